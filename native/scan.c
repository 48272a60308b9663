#include "scan.h"

#include <stdlib.h>
#include <string.h>

#include "canonical.h"

#define FIRST_LINES 2048 /* a full request and a little */

typedef struct {
    PyObject_HEAD
    Byte *text; /* the block, with `PADDING` NULs behind it */
    size_t size;
    PyObject *suspects;   /* list of int */
    PyObject *without_id; /* list of int */
    PyObject *refused;    /* dict of the lines by the name of their flaw */
    Py_ssize_t count;
    Line *lines;
} Scan;

static PyTypeObject *scan_type;

static void
scan_dealloc(Scan *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(self->suspects);
    Py_XDECREF(self->without_id);
    Py_XDECREF(self->refused);
    free(self->lines);
    free(self->text);
    PyObject_Free(self);
    Py_DECREF(type);
}

/* Scans all lines; needs no Python. Returns false where memory is short. */
static bool
scan_lines(Scan *scan, const Byte *block, size_t size, const Rules *rules)
{
    Py_ssize_t room = 0;
    scan->text = malloc(size + PADDING);
    if (scan->text == NULL) {
        return false;
    }
    memcpy(scan->text, block, size);
    memset(scan->text + size, 0, PADDING);
    size -= size > 0 && block[size - 1] == '\n';
    for (size_t start = 0; start <= size;) {
        if (scan->count == room) {
            room = room > 0 ? 2 * room : FIRST_LINES;
            Line *more = realloc(scan->lines, (size_t)room * sizeof(Line));
            if (more == NULL) {
                return false;
            }
            scan->lines = more;
        }
        const Byte *feed = memchr(scan->text + start, '\n', size - start);
        size_t end = feed != NULL ? (size_t)(feed - scan->text) : size;
        scan->lines[scan->count++] = scan_line(scan->text, start, end, rules);
        start = end + 1;
    }
    scan->size = size;
    return true;
}

/* Appends a number to a list; returns false with an exception. */
static bool
append(PyObject *list, Py_ssize_t number)
{
    PyObject *item = PyLong_FromSsize_t(number);
    bool done = item != NULL && PyList_Append(list, item) == 0;
    Py_XDECREF(item);
    return done;
}

/* Returns the indices of the lines of which something has been found. */
static PyObject *
indices(const Scan *scan, Finding finding)
{
    PyObject *list = PyList_New(0);
    for (Py_ssize_t i = 0; list != NULL && i < scan->count; i++) {
        if (!(scan->lines[i].findings & finding)) {
            continue;
        }
        if (!append(list, i)) {
            Py_CLEAR(list);
        }
    }
    return list;
}

/* As `event_scan.py` calls them. */
static const char *const FLAW_NAMES[FLAWS] = {
    [NO_PROPERTIES] = "no_properties",
    [NO_EVENT] = "no_event",
    [NO_TIME] = "no_time",
    [TIME_AS_TEXT] = "time_as_text",
    [EARLY_TIME] = "early_time",
    [LATE_TIME] = "late_time",
    [IDENTITY_EVENT] = "identity_event",
    [DISALLOWED_ID] = "disallowed_id",
    [NO_DISTINCT_ID] = "no_distinct_id",
    [CUT_SHORT] = "cut_short",
    [NOT_UTF8] = "not_utf8",
    [LONE_SURROGATE] = "lone_surrogate",
    [NOT_A_NUMBER] = "nan",
    [INFINITE] = "infinity",
    [MINUS_INFINITE] = "minus_infinity",
};

/* Returns the lines that are refused, by the name of their flaw. */
static PyObject *
refused_lines(const Scan *scan)
{
    PyObject *lists[FLAWS] = {NULL}; /* borrowed from the dict */
    PyObject *refused = PyDict_New();
    for (Py_ssize_t i = 0; refused != NULL && i < scan->count; i++) {
        const Line *line = &scan->lines[i];
        if (!(line->findings & REFUSED)) {
            continue;
        }
        PyObject **list = &lists[line->flaw];
        if (*list == NULL && (*list = PyList_New(0)) != NULL) {
            int set = PyDict_SetItemString(refused, FLAW_NAMES[line->flaw], *list);
            Py_DECREF(*list);
            if (set < 0) {
                *list = NULL;
            }
        }
        if (*list == NULL || !append(*list, i)) {
            Py_CLEAR(refused);
        }
    }
    return refused;
}

/* Returns the line that a number stands for, or NULL with an exception. */
static const Line *
line_at(const Scan *scan, PyObject *number)
{
    Py_ssize_t index = PyLong_AsSsize_t(number);
    if (index == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (index < 0 || index >= scan->count) {
        PyErr_SetString(PyExc_IndexError, "there is no such line");
        return NULL;
    }
    return &scan->lines[index];
}

static PyObject *
scan_line_method(Scan *self, PyObject *argument)
{
    const Line *line = line_at(self, argument);
    if (line == NULL) {
        return NULL;
    }
    return PyBytes_FromStringAndSize(
        (const char *)self->text + line->start, (Py_ssize_t)(line->end - line->start));
}

static PyObject *
scan_broken(Scan *self, PyObject *argument)
{
    const Line *line = line_at(self, argument);
    if (line == NULL) {
        return NULL;
    }
    if (line->flaw != NOT_UTF8) {
        PyErr_SetString(PyExc_ValueError, "the line is UTF-8, or not read");
        return NULL;
    }
    return Py_BuildValue(
        "ny#", (Py_ssize_t)(line->place - line->start), line->key > 0 ? self->text + line->key : NULL,
        (Py_ssize_t)line->key_size);
}

/* Writes the canonical forms of the lines without an id, one behind the other; needs no Python. */
static void
write_contents(const Scan *scan, Byte *out, Byte *scratch, size_t *sizes)
{
    for (Py_ssize_t i = 0; i < scan->count; i++) {
        const Line *line = &scan->lines[i];
        if (line->findings & WITHOUT_ID) {
            *sizes = canonical(scan->text + line->start, line->end - line->start, out, scratch);
            out += *sizes++;
        }
    }
}

static PyObject *
contents_list(const Byte *out, const size_t *sizes, Py_ssize_t count)
{
    PyObject *list = PyList_New(count);
    for (Py_ssize_t i = 0; list != NULL && i < count; i++) {
        PyObject *content = NULL;
        if (sizes[i] > 0) {
            content = PyBytes_FromStringAndSize((const char *)out, (Py_ssize_t)sizes[i]);
            out += sizes[i];
        }
        else {
            content = Py_None;
            Py_INCREF(content);
        }
        if (content == NULL || PyList_SetItem(list, i, content) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

static PyObject *
scan_contents(Scan *self, PyObject *Py_UNUSED(ignored))
{
    Py_ssize_t count = PyList_Size(self->without_id);
    size_t room = self->size + PADDING;
    Byte *out = malloc(2 * room);
    size_t *sizes = malloc(((size_t)count + 1) * sizeof(size_t));
    PyObject *list = NULL;
    if (out != NULL && sizes != NULL) {
        Py_BEGIN_ALLOW_THREADS
        write_contents(self, out, out + room, sizes);
        Py_END_ALLOW_THREADS
        list = contents_list(out, sizes, count);
    }
    else {
        PyErr_NoMemory();
    }
    free(out);
    free(sizes);
    return list;
}

/* What is to be written in place of a line, or of a part of it. */
typedef struct {
    const char *text;
    size_t size;
} Piece;

/* Takes the next item of a list: bytes or text, or None. Returns 1, 0 for None, or -1 with an exception. */
static int
take(PyObject *list, Py_ssize_t index, Piece *piece)
{
    PyObject *item = PyList_GetItem(list, index); /* borrowed */
    Py_ssize_t size = 0;
    if (item == NULL) {
        return -1;
    }
    if (item == Py_None) {
        return 0;
    }
    if (PyBytes_Check(item)) {
        piece->text = PyBytes_AsString(item);
        size = PyBytes_Size(item);
    }
    else {
        piece->text = PyUnicode_AsUTF8AndSize(item, &size);
    }
    piece->size = (size_t)size;
    return piece->text != NULL ? 1 : -1;
}

static const char ID_BEFORE[] = ",\"$insert_id\":\"", ID_BEHIND[] = "\"", NO_IP[] = ",\"ip\":0";

typedef struct {
    PyObject *ids;    /* of the lines without one */
    PyObject *judged; /* what became of the suspects */
    bool default_ip;
    Py_ssize_t next_id;
    Py_ssize_t next_judged;
    Py_ssize_t defaulted; /* lines that got an `ip` */
    Byte *out;            /* NULL while only the size is asked for */
    size_t size;
} Body;

static void
put(Body *body, const void *text, size_t size)
{
    if (body->out != NULL) {
        memcpy(body->out + body->size, text, size);
    }
    body->size += size;
}

static void
separate(Body *body)
{
    if (body->size > 0) {
        put(body, "\n", 1);
    }
}

static int
put_suspect(Body *body)
{
    Piece piece;
    int taken = take(body->judged, body->next_judged++, &piece);
    if (taken > 0) {
        separate(body);
        put(body, piece.text, piece.size);
    }
    return taken;
}

/* Puts a line with what it lacks, unless an id was to be made for it and could not. */
static int
put_clean(Body *body, const Byte *text, const Line *line)
{
    Piece id = {NULL, 0};
    if (line->findings & WITHOUT_ID) {
        int taken = take(body->ids, body->next_id++, &id);
        if (taken <= 0) {
            return taken;
        }
    }
    separate(body);
    put(body, text + line->start, line->place - line->start);
    if (id.text != NULL) {
        put(body, ID_BEFORE, sizeof(ID_BEFORE) - 1);
        put(body, id.text, id.size);
        put(body, ID_BEHIND, sizeof(ID_BEHIND) - 1);
    }
    if (body->default_ip && line->findings & WITHOUT_IP) {
        put(body, NO_IP, sizeof(NO_IP) - 1);
        body->defaulted++;
    }
    put(body, text + line->place, line->end - line->place);
    return 1;
}

/* Puts all lines; returns -1 with an exception where the lists do not fit them. */
static int
put_lines(Body *body, const Scan *scan)
{
    body->next_id = body->next_judged = body->defaulted = 0;
    body->size = 0;
    for (Py_ssize_t i = 0; i < scan->count; i++) {
        const Line *line = &scan->lines[i];
        if (line->findings & REFUSED) {
            continue;
        }
        if ((line->findings & SUSPECT ? put_suspect(body) : put_clean(body, scan->text, line)) < 0) {
            return -1;
        }
    }
    return 0;
}

static PyObject *
scan_body(Scan *self, PyObject *arguments)
{
    Body body = {0};
    int default_ip;
    if (!PyArg_ParseTuple(
            arguments, "O!O!p", &PyList_Type, &body.ids, &PyList_Type, &body.judged, &default_ip)) {
        return NULL;
    }
    body.default_ip = default_ip;
    if (put_lines(&body, self) < 0) {
        return NULL;
    }
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)body.size);
    if (bytes == NULL) {
        return NULL;
    }
    body.out = (Byte *)PyBytes_AsString(bytes);
    if (put_lines(&body, self) < 0) {
        Py_DECREF(bytes);
        return NULL;
    }
    return Py_BuildValue("Nn", bytes, body.defaulted);
}

static PyMethodDef scan_methods[] = {
    {"line", (PyCFunction)scan_line_method, METH_O, NULL},
    {"broken", (PyCFunction)scan_broken, METH_O, NULL},
    {"contents", (PyCFunction)scan_contents, METH_NOARGS, NULL},
    {"body", (PyCFunction)scan_body, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef scan_members[] = {
    {"count", T_PYSSIZET, offsetof(Scan, count), READONLY, NULL},
    {"suspects", T_OBJECT_EX, offsetof(Scan, suspects), READONLY, NULL},
    {"without_id", T_OBJECT_EX, offsetof(Scan, without_id), READONLY, NULL},
    {"refused", T_OBJECT_EX, offsetof(Scan, refused), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot scan_slots[] = {
    {Py_tp_dealloc, scan_dealloc},
    {Py_tp_methods, scan_methods},
    {Py_tp_members, scan_members},
    {0, NULL},
};

static PyType_Spec scan_spec = {
    .name = "mixpanel_http._native.Scan",
    .basicsize = sizeof(Scan),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = scan_slots,
};

PyObject *
make_scan_type(void)
{
    PyObject *made = PyType_FromSpec(&scan_spec);
    scan_type = (PyTypeObject *)made;
    return made;
}

PyObject *
new_scan(PyObject *block, const Rules *rules)
{
    Scan *scan = PyObject_New(Scan, scan_type);
    if (scan == NULL) {
        return NULL;
    }
    const Byte *text = (const Byte *)PyBytes_AsString(block);
    size_t size = (size_t)PyBytes_Size(block);
    bool done;
    scan->text = NULL;
    scan->lines = NULL;
    scan->count = 0;
    scan->suspects = scan->without_id = scan->refused = NULL;
    Py_BEGIN_ALLOW_THREADS
    done = scan_lines(scan, text, size, rules);
    Py_END_ALLOW_THREADS
    if (!done) {
        PyErr_NoMemory();
    }
    else if (
        (scan->suspects = indices(scan, SUSPECT)) && (scan->without_id = indices(scan, WITHOUT_ID)) &&
        (scan->refused = refused_lines(scan))) {
        return (PyObject *)scan;
    }
    Py_DECREF(scan);
    return NULL;
}
