/* The Python side, as `_native.pyi` describes it. */
#include "stable_python.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "canonical.h"
#include "events.h"
#include "letters.h"
#include "scan.h"

/* One more with each change of what `_native.pyi` describes: mixpanel_http/compiled.py names the same. */
#define INTERFACE 3

#define MOST_OPEN 32 /* containers in each other; what nests deeper is for a closer look */

typedef struct {
    PyObject_HEAD
    Rules rules;
} Scanner;

/* Copies a sequence of short bytes. */
static int
names_of(PyObject *sequence, Names *names)
{
    Py_ssize_t count = PySequence_Size(sequence);
    if (count < 0) {
        return -1;
    }
    if (count > MOST_NAMES) {
        PyErr_SetString(PyExc_ValueError, "too many names");
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = PySequence_GetItem(sequence, i);
        char *text = NULL;
        Py_ssize_t size = 0;
        int bad = item == NULL || PyBytes_AsStringAndSize(item, &text, &size) < 0;
        if (!bad && size > LONGEST_NAME) {
            PyErr_SetString(PyExc_ValueError, "a name is too long");
            bad = 1;
        }
        if (!bad) {
            names->names[i].size = (size_t)size;
            memcpy(names->names[i].text, text, (size_t)size);
        }
        Py_XDECREF(item);
        if (bad) {
            return -1;
        }
    }
    names->count = (int)count;
    return 0;
}

static int
scanner_init(Scanner *self, PyObject *arguments, PyObject *named)
{
    static char *keywords[] = {
        "identity_events", "disallowed_ids", "most_members", "most_nesting", "most_bytes", "longest_insert_id",
        "earliest_s", "earliest_ms", NULL};
    PyObject *events, *ids;
    Py_ssize_t most_bytes, longest_insert_id;
    long long earliest_s, earliest_ms;
    Rules *rules = &self->rules;
    if (!PyArg_ParseTupleAndKeywords(
            arguments, named, "$OOiinnLL", keywords, &events, &ids, &rules->properties.members,
            &rules->properties.depth, &most_bytes, &longest_insert_id, &earliest_s, &earliest_ms)) {
        return -1;
    }
    rules->most_bytes = (size_t)most_bytes;
    rules->longest_insert_id = (size_t)longest_insert_id;
    rules->earliest_s = earliest_s;
    rules->earliest_ms = earliest_ms;
    return names_of(events, &rules->identity_events) < 0 || names_of(ids, &rules->disallowed_ids) < 0 ? -1 : 0;
}

static void
scanner_dealloc(Scanner *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyObject *
scanner_scan(Scanner *self, PyObject *arguments)
{
    PyObject *block;
    long long latest_s;
    int simplified;
    if (!PyArg_ParseTuple(arguments, "SLp", &block, &latest_s, &simplified)) {
        return NULL;
    }
    Rules rules = self->rules;
    rules.latest_s = latest_s;
    rules.simplified = simplified;
    return new_scan(block, &rules);
}

static PyMethodDef scanner_methods[] = {
    {"scan", (PyCFunction)scanner_scan, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot scanner_slots[] = {
    {Py_tp_init, scanner_init},
    {Py_tp_dealloc, scanner_dealloc},
    {Py_tp_methods, scanner_methods},
    {0, NULL},
};

static PyType_Spec scanner_spec = {
    .name = "mixpanel_http._native.Scanner",
    .basicsize = sizeof(Scanner),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = scanner_slots,
};

static PyObject *
module_canonical(PyObject *Py_UNUSED(module), PyObject *text)
{
    if (!PyBytes_Check(text)) {
        PyErr_SetString(PyExc_TypeError, "canonical takes bytes");
        return NULL;
    }
    size_t size = (size_t)PyBytes_Size(text), room = size + PADDING;
    Byte *padded = malloc(3 * room);
    if (padded == NULL) {
        return PyErr_NoMemory();
    }
    memcpy(padded, PyBytes_AsString(text), size);
    memset(padded + size, 0, PADDING);
    Byte *out = padded + room;
    size_t written = canonical(padded, size, out, out + room);
    PyObject *found = NULL;
    if (written > 0) {
        found = PyBytes_FromStringAndSize((const char *)out, (Py_ssize_t)written);
    }
    else {
        found = Py_None;
        Py_INCREF(found);
    }
    free(padded);
    return found;
}

/* Returns whether a text is certainly JSON, all of which can be decoded; `room` is for as much and `PADDING`. */
static bool
is_json(const char *text, size_t size, Byte *room)
{
    const Bounds any = {INT_MAX, MOST_OPEN};
    memcpy(room, text, size);
    memset(room + size, 0, PADDING);
    const Byte *at = skip_value(skip_space(room), any);
    return at != NULL && skip_space(at) == room + size;
}

/* Takes bytes from a list and looks at them; returns a new reference, or NULL with an exception. */
static PyObject *
look_at(PyObject *lines, Py_ssize_t index, Byte **room, size_t *held)
{
    char *text = NULL;
    Py_ssize_t size = 0;
    if (PyBytes_AsStringAndSize(PyList_GetItem(lines, index), &text, &size) < 0) {
        return NULL;
    }
    if ((size_t)size + PADDING > *held) {
        free(*room);
        *held = 2 * ((size_t)size + PADDING);
        *room = malloc(*held);
        if (*room == NULL) {
            *held = 0;
            return PyErr_NoMemory();
        }
    }
    return PyBool_FromLong(is_json(text, (size_t)size, *room));
}

static PyObject *
module_are_json(PyObject *Py_UNUSED(module), PyObject *lines)
{
    if (!PyList_Check(lines)) {
        PyErr_SetString(PyExc_TypeError, "are_json takes a list");
        return NULL;
    }
    Byte *room = NULL;
    size_t held = 0;
    PyObject *told = PyList_New(0);
    for (Py_ssize_t i = 0; told != NULL && i < PyList_Size(lines); i++) {
        PyObject *item = look_at(lines, i, &room, &held);
        if (item == NULL || PyList_Append(told, item) < 0) {
            Py_CLEAR(told);
        }
        Py_XDECREF(item);
    }
    free(room);
    return told;
}

static PyMethodDef module_methods[] = {
    {"are_json", module_are_json, METH_O, NULL},
    {"canonical", module_canonical, METH_O, NULL},
    {"letters", module_letters, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "mixpanel_http._native",
    .m_size = -1,
    .m_methods = module_methods,
};

PyMODINIT_FUNC
PyInit__native(void)
{
    PyObject *made = PyModule_Create(&module);
    PyObject *scanner = PyType_FromSpec(&scanner_spec);
    PyObject *scan = make_scan_type();
    if (made == NULL || scanner == NULL || scan == NULL ||
        PyModule_AddObjectRef(made, "Scanner", scanner) < 0 ||
        PyModule_AddObjectRef(made, "Scan", scan) < 0 ||
        PyModule_AddIntConstant(made, "INTERFACE", INTERFACE) < 0) {
        Py_CLEAR(made);
    }
    Py_XDECREF(scanner);
    return made;
}
