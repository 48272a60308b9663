#include "letters.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define UNKNOWN (-1)

static const char OFFSET[] = ",\"offset\":", RECORD[] = "\"record\":";
static const char BASE64[] = "\"raw_b64\":\"", BASE64_END[] = "\"";
static const char END[] = "}\n";

typedef struct {
    const char *start;
    size_t size;
} Piece;

/* A line of the block, and where it stands in its file. */
typedef struct {
    Piece text;
    long long number;
    long long offset;
} Place;

typedef struct {
    Place *places;
    Py_ssize_t count;
    Py_ssize_t room;
} Places;

typedef struct {
    const Place *place;
    Piece opening;
    Piece closing;
    Piece content; /* what holds the record: empty for the line as it is, without text for it in base64 */
} Letter;

/* Adds a line; returns false where memory is short. */
static bool
add_place(Places *places, Place place)
{
    if (places->count == places->room) {
        Py_ssize_t room = places->room > 0 ? 2 * places->room : 2048;
        Place *more = realloc(places->places, (size_t)room * sizeof(Place));
        if (more == NULL) {
            return false;
        }
        places->places = more;
        places->room = room;
    }
    places->places[places->count++] = place;
    return true;
}

/* Adds the lines of a span that begins at `*at`; returns false with an exception. */
static bool
add_span(Places *places, PyObject *span, const char **at, const char *end)
{
    Py_ssize_t lines;
    Place place;
    if (!PyArg_ParseTuple(span, "nLL", &lines, &place.number, &place.offset)) {
        return false;
    }
    for (; lines > 0; lines--) {
        if (*at > end) {
            PyErr_SetString(PyExc_ValueError, "the block has fewer lines than its spans");
            return false;
        }
        const char *feed = memchr(*at, '\n', (size_t)(end - *at));
        place.text = (Piece){*at, (size_t)((feed != NULL ? feed : end) - *at)};
        if (!add_place(places, place)) {
            PyErr_NoMemory();
            return false;
        }
        *at += place.text.size + 1;
        place.number += place.number != UNKNOWN;
        place.offset += place.offset != UNKNOWN ? (long long)place.text.size + 1 : 0;
    }
    return true;
}

static bool
find_places(Places *places, PyObject *block, PyObject *spans)
{
    const char *at = PyBytes_AsString(block), *end = at + PyBytes_Size(block);
    Py_ssize_t count = PyList_Size(spans);
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!add_span(places, PyList_GetItem(spans, i), &at, end)) {
            return false;
        }
    }
    return true;
}

/* Takes bytes from a list, or nothing for None; returns false with an exception. */
static bool
take_piece(PyObject *list, Py_ssize_t index, Piece *piece)
{
    PyObject *item = PyList_GetItem(list, index); /* borrowed */
    char *text = NULL;
    Py_ssize_t size = 0;
    if (item == NULL || (item != Py_None && PyBytes_AsStringAndSize(item, &text, &size) < 0)) {
        return false;
    }
    *piece = (Piece){text, (size_t)size};
    return true;
}

static bool
take_letter(Letter *letter, const Places *places, PyObject *const columns[4], Py_ssize_t i)
{
    PyObject *item = PyList_GetItem(columns[0], i);
    Py_ssize_t line = item != NULL ? PyLong_AsSsize_t(item) : -1;
    if (line == -1 && PyErr_Occurred()) {
        return false;
    }
    if (line < 0 || line >= places->count) {
        PyErr_SetString(PyExc_IndexError, "there is no such line");
        return false;
    }
    letter->place = &places->places[line];
    return take_piece(columns[1], i, &letter->opening) && take_piece(columns[2], i, &letter->closing) &&
           take_piece(columns[3], i, &letter->content);
}

static size_t
base64_size(size_t size)
{
    return (size + 2) / 3 * 4;
}

static char *
put_base64(Piece text, char *out)
{
    static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *at = (const unsigned char *)text.start;
    size_t left = text.size;
    for (; left >= 3; left -= 3, at += 3, out += 4) {
        unsigned bits = (unsigned)at[0] << 16 | (unsigned)at[1] << 8 | at[2];
        out[0] = DIGITS[bits >> 18];
        out[1] = DIGITS[bits >> 12 & 63];
        out[2] = DIGITS[bits >> 6 & 63];
        out[3] = DIGITS[bits & 63];
    }
    if (left > 0) {
        unsigned bits = (unsigned)at[0] << 16 | (left > 1 ? (unsigned)at[1] << 8 : 0);
        out[0] = DIGITS[bits >> 18];
        out[1] = DIGITS[bits >> 12 & 63];
        out[2] = left > 1 ? DIGITS[bits >> 6 & 63] : '=';
        out[3] = '=';
        out += 4;
    }
    return out;
}

static char *
put(const char *text, size_t size, char *out)
{
    if (size > 0) {
        memcpy(out, text, size);
    }
    return out + size;
}

static const char UNKNOWN_NUMBER[] = "null";

static size_t
number_size(long long number)
{
    if (number < 0) {
        return sizeof(UNKNOWN_NUMBER) - 1;
    }
    size_t digits = 1;
    for (; number >= 10; number /= 10) {
        digits++;
    }
    return digits;
}

static char *
put_number(long long number, char *out)
{
    size_t size = number_size(number);
    if (number < 0) {
        return put(UNKNOWN_NUMBER, size, out);
    }
    for (size_t i = size; i > 0; i--, number /= 10) {
        out[i - 1] = (char)('0' + number % 10);
    }
    return out + size;
}

static bool
is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static Piece
stripped(Piece text)
{
    while (text.size > 0 && is_space(*text.start)) {
        text.start++;
        text.size--;
    }
    while (text.size > 0 && is_space(text.start[text.size - 1])) {
        text.size--;
    }
    return text;
}

static size_t
content_size(const Letter *letter)
{
    if (letter->content.start == NULL) {
        return sizeof(BASE64) - 1 + base64_size(letter->place->text.size) + sizeof(BASE64_END) - 1;
    }
    return letter->content.size > 0 ? letter->content.size
                                    : sizeof(RECORD) - 1 + stripped(letter->place->text).size;
}

static char *
put_content(const Letter *letter, char *out)
{
    Piece text = letter->place->text;
    if (letter->content.start == NULL) {
        out = put(BASE64, sizeof(BASE64) - 1, out);
        out = put_base64(text, out);
        return put(BASE64_END, sizeof(BASE64_END) - 1, out);
    }
    if (letter->content.size > 0) {
        return put(letter->content.start, letter->content.size, out);
    }
    text = stripped(text);
    return put(text.start, text.size, put(RECORD, sizeof(RECORD) - 1, out));
}

static size_t
letter_size(const Letter *letter)
{
    const Place *place = letter->place;
    return letter->opening.size + number_size(place->number) + sizeof(OFFSET) - 1 + number_size(place->offset) +
           letter->closing.size + content_size(letter) + sizeof(END) - 1;
}

static char *
put_letter(const Letter *letter, char *out)
{
    const Place *place = letter->place;
    out = put(letter->opening.start, letter->opening.size, out);
    out = put_number(place->number, out);
    out = put(OFFSET, sizeof(OFFSET) - 1, out);
    out = put_number(place->offset, out);
    out = put(letter->closing.start, letter->closing.size, out);
    return put(END, sizeof(END) - 1, put_content(letter, out));
}

/* Returns the letters one behind the other. */
static PyObject *
joined(const Letter *letters, Py_ssize_t count)
{
    size_t size = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        size += letter_size(&letters[i]);
    }
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (bytes == NULL) {
        return NULL;
    }
    char *out = PyBytes_AsString(bytes);
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < count; i++) {
        out = put_letter(&letters[i], out);
    }
    Py_END_ALLOW_THREADS
    return bytes;
}

PyObject *
module_letters(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *block, *spans, *columns[4], *found = NULL;
    if (!PyArg_ParseTuple(
            arguments, "SO!O!O!O!O!", &block, &PyList_Type, &spans, &PyList_Type, &columns[0], &PyList_Type,
            &columns[1], &PyList_Type, &columns[2], &PyList_Type, &columns[3])) {
        return NULL;
    }
    Places places = {0};
    Py_ssize_t count = PyList_Size(columns[0]), taken = 0;
    Letter *letters = malloc(((size_t)count + 1) * sizeof(Letter));
    if (letters == NULL) {
        return PyErr_NoMemory();
    }
    if (find_places(&places, block, spans)) {
        while (taken < count && take_letter(&letters[taken], &places, columns, taken)) {
            taken++;
        }
        found = taken == count ? joined(letters, count) : NULL;
    }
    free(places.places);
    free(letters);
    return found;
}
