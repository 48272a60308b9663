#include "cut_short.h"

#define MOST_OPEN 32 /* containers in each other; what nests deeper is for a closer look */

typedef struct {
    const Byte *end;
    bool ended; /* whether the text came to its end where something had to follow */
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

static const Byte *
read_string(const Byte *at, Reading *reading)
{
    Text text;
    if (at == NULL || *at != '"') {
        return NULL;
    }
    at = skip_text(at + 1, &text);
    reading->ended = at == reading->end;
    return *at == '"' ? at + 1 : NULL;
}

static const Byte *read_value(const Byte *at, Reading *reading, int depth);

static const Byte *
read_member(const Byte *at, bool named, Reading *reading, int depth)
{
    if (named) {
        at = go_on(read_string(at, reading), reading);
        if (at == NULL || *at != ':') {
            return NULL;
        }
        at = go_on(at + 1, reading);
    }
    return read_value(at, reading, depth);
}

/* Reads an object or an array, from its bracket. */
static const Byte *
read_container(const Byte *at, Reading *reading, int depth)
{
    bool named = *at == '{';
    Byte closing = named ? '}' : ']';
    at = go_on(at + 1, reading);
    if (at != NULL && *at == closing) {
        return at + 1;
    }
    while (at != NULL) {
        at = go_on(read_member(at, named, reading, depth), reading);
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

static const Byte *
read_value(const Byte *at, Reading *reading, int depth)
{
    Number number;
    if (at == NULL) {
        return NULL;
    }
    switch (*at) {
    case '"':
        return read_string(at, reading);
    case '{': case '[':
        return depth > 0 ? read_container(at, reading, depth - 1) : NULL;
    case 't': case 'f': case 'n':
        return skip_literal(at);
    default:
        return skip_number(at, &number);
    }
}

bool
is_cut_short(const Byte *at, const Byte *end)
{
    Reading reading = {end, false};
    read_value(skip_space(at), &reading, MOST_OPEN);
    return reading.ended;
}
