#include "faults.h"

#include <string.h>

#define MOST_OPEN 32 /* containers in each other; what nests deeper is for a closer look */
#define MOST_KEYS 64 /* properties of a line that is no UTF-8 */

/* Whose members are read. */
typedef enum { RECORD, PROPERTIES, OTHERS } Owner;

typedef struct {
    const Byte *end;
    bool ended;         /* whether the text came to its end where something had to follow */
    bool half;          /* whether an escape stands for half a character */
    FaultKind constant; /* what stands where a value has to, if that is none of JSON's */
    const Byte *broken; /* the first byte that is no UTF-8, or the end */
    bool properties;    /* whether they have been there */
    bool unsure;        /* whether a key stands twice, or may */
    int keys;
    Text *key;  /* those that have been there, if the text is no UTF-8 */
    Text found; /* the first key whose text is no UTF-8 */
} Reading;

/* Each function takes where something begins, or NULL, and returns where that ends; NULL where it does not. */

/* Goes on to the next token. */
static const Byte *
go_on(const Byte *at, Reading *reading)
{
    if (at == NULL) {
        return NULL;
    }
    at = skip_space(at);
    reading->ended = at == reading->end;
    return reading->ended ? NULL : at;
}

/* Reads a string, whatever its bytes stand for; tells whether all of them are UTF-8. */
static const Byte *
read_string(const Byte *at, Reading *reading, Text *text, bool *is_utf8)
{
    if (at == NULL || *at != '"') {
        return NULL;
    }
    const Byte *start = at + 1;
    bool escaped = false;
    *is_utf8 = true;
    for (at = start;; escaped |= text->escaped) {
        at = skip_text(at, text);
        if (*at >= 0x80) {
            *is_utf8 = false;
            at++;
        }
        else if (is_half_character(at)) {
            reading->half = true;
            at += 6;
        }
        else {
            break;
        }
    }
    *text = (Text){start, at, escaped || text->escaped};
    reading->ended = at == reading->end;
    return *at == '"' ? at + 1 : NULL;
}

static bool
are_same(Text one, Text other)
{
    size_t size = (size_t)(one.end - one.start);
    return size == (size_t)(other.end - other.start) && memcmp(one.start, other.start, size) == 0;
}

/* Notes a property, as of keys that stand twice the last one counts: then it takes a closer look. */
static void
note_property(Reading *reading, Text key, bool is_broken)
{
    for (int i = 0; i < reading->keys && !reading->unsure; i++) {
        reading->unsure = are_same(reading->key[i], key);
    }
    if (key.escaped || reading->keys == MOST_KEYS) {
        reading->unsure = true;
    }
    if (reading->unsure) {
        return;
    }
    reading->key[reading->keys++] = key;
    if (is_broken && reading->found.start == NULL) {
        reading->found = key;
    }
}

/* Returns whose members the value of a key of the record has. */
static Owner
owner_of(Text key, Reading *reading)
{
    static const char NAME[] = "properties";
    bool is_it = are_same(key, (Text){(const Byte *)NAME, (const Byte *)NAME + sizeof(NAME) - 1, false});
    reading->unsure |= key.escaped || (is_it && reading->properties);
    reading->properties |= is_it;
    return is_it ? PROPERTIES : OTHERS;
}

static const Byte *read_value(const Byte *at, Reading *reading, int depth, Owner owner);

static const Byte *
read_named(const Byte *at, Reading *reading, int depth, Owner owner)
{
    Text key, text;
    bool is_utf8;
    at = go_on(read_string(at, reading, &key, &is_utf8), reading);
    if (at == NULL || *at != ':') {
        return NULL;
    }
    at = go_on(at + 1, reading);
    bool is_text = at != NULL && *at == '"';
    if (is_text) {
        at = read_string(at, reading, &text, &is_utf8);
    }
    else {
        at = read_value(at, reading, depth, owner == RECORD ? owner_of(key, reading) : OTHERS);
    }
    if (owner == PROPERTIES && reading->broken < reading->end) {
        note_property(reading, key, is_text && !is_utf8);
    }
    return at;
}

/* Reads an object or an array, from its bracket. */
static const Byte *
read_container(const Byte *at, Reading *reading, int depth, Owner owner)
{
    bool named = *at == '{';
    Byte closing = named ? '}' : ']';
    at = go_on(at + 1, reading);
    if (at != NULL && *at == closing) {
        return at + 1;
    }
    while (at != NULL) {
        at = named ? read_named(at, reading, depth, owner) : read_value(at, reading, depth, OTHERS);
        at = go_on(at, reading);
        if (at == NULL) {
            return NULL;
        }
        if (*at == closing) {
            return at + 1;
        }
        at = *at == ',' ? go_on(at + 1, reading) : NULL;
    }
    return NULL;
}

/* Notes what some writers have for numbers that JSON has not; always returns NULL. */
static const Byte *
note_constant(const Byte *at, Reading *reading)
{
    if (skip_word(at, "NaN")) {
        reading->constant = NAN_TOKEN;
    }
    else if (skip_word(at, "Infinity")) {
        reading->constant = INFINITY_TOKEN;
    }
    else if (skip_word(at, "-Infinity")) {
        reading->constant = MINUS_INFINITY_TOKEN;
    }
    return NULL;
}

static const Byte *
read_value(const Byte *at, Reading *reading, int depth, Owner owner)
{
    Text text;
    Number number;
    bool is_utf8;
    if (at == NULL) {
        return NULL;
    }
    switch (*at) {
    case '"':
        return read_string(at, reading, &text, &is_utf8);
    case '{': case '[':
        return depth > 0 ? read_container(at, reading, depth - 1, owner) : NULL;
    case 't': case 'f': case 'n':
        return skip_literal(at);
    default:
        break;
    }
    const Byte *behind = skip_number(at, &number);
    return behind != NULL ? behind : note_constant(at, reading);
}

Fault
find_fault(const Byte *at, const Byte *end)
{
    Text keys[MOST_KEYS];
    Reading reading = {.end = end, .broken = skip_utf8_text(at, end), .key = keys};
    Fault fault = {NO_FAULT, reading.broken, {NULL, NULL, false}};
    at = read_value(skip_space(at), &reading, MOST_OPEN, RECORD);
    bool is_whole = at != NULL && skip_space(at) == end;
    if (reading.broken < end) {
        if (reading.half || (is_whole && reading.unsure) || !(is_whole || reading.ended)) {
            return fault;
        }
        fault.kind = NO_UTF8;
        if (is_whole) {
            fault.property = reading.found;
        }
    }
    else if (is_whole) {
        fault.kind = reading.half ? HALF_CHARACTER : NO_FAULT;
    }
    else if (!reading.half) {
        fault.kind = reading.ended ? ENDS_EARLY : reading.constant;
    }
    return fault;
}
