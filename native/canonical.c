#include "canonical.h"

#include <string.h>

#define MOST_MEMBERS 1024 /* of all objects around a place in the text; a record has fewer than 255 properties */
#define DEEPEST 64
/* A decimal of so many digits is the shortest one of its double, and comes back as it was. */
#define EXACT_DIGITS 15
/* 0.0001 is written like this, what is smaller with an exponent. */
#define MOST_LEADING_ZEROS 3
/* Every whole number of so many digits fits into 64 bits. */
#define WHOLE_DIGITS 18

/* A key, and where it has been written with its value. */
typedef struct {
    const Byte *key;
    size_t key_size;
    const Byte *start;
    const Byte *end;
} Member;

/* What members are sorted by: most keys differ in their first eight bytes, taken as a number. */
typedef struct {
    uint64_t prefix;
    const Member *member;
} Place;

typedef struct {
    Byte *out;
    Byte *scratch;
    int used;
    Member members[MOST_MEMBERS];
    Place places[MOST_MEMBERS];
} Writer;

/* Copies eight bytes at a time, and so up to seven more than asked for: what belongs there is written later. */
static inline Byte *
copy(Byte *out, const Byte *start, const Byte *end)
{
    for (ptrdiff_t done = 0; done < end - start; done += PADDING) {
        memcpy(out + done, start + done, PADDING);
    }
    return out + (end - start);
}

/* Writes a character that may stand in no string as it is. */
static Byte *
put_escape(Byte c, Byte *out)
{
    static const char digits[] = "0123456789abcdef";
    *out++ = '\\';
    switch (c) {
    case '\b': *out++ = 'b'; return out;
    case '\f': *out++ = 'f'; return out;
    case '\n': *out++ = 'n'; return out;
    case '\r': *out++ = 'r'; return out;
    case '\t': *out++ = 't'; return out;
    case '"': case '\\': *out++ = c; return out;
    default: break;
    }
    *out++ = 'u';
    *out++ = '0';
    *out++ = '0';
    *out++ = (Byte)digits[c >> 4];
    *out++ = (Byte)digits[c & 15];
    return out;
}

/* Writes a string's text; returns whether that took an escape. */
static bool
write_text(Writer *writer, Text text)
{
    if (!text.escaped) {
        writer->out = copy(writer->out, text.start, text.end);
        return false;
    }
    bool escaped = false;
    const Byte *end = unescape(text, writer->scratch);
    for (const Byte *at = writer->scratch; at < end; at++) {
        if (*at < 0x20 || *at == '"' || *at == '\\') {
            writer->out = put_escape(*at, writer->out);
            escaped = true;
        }
        else {
            *writer->out++ = *at;
        }
    }
    return escaped;
}

static const Byte *
write_string(Writer *writer, const Byte *at)
{
    Text text;
    at = skip_string(at, &text);
    if (at != NULL) {
        *writer->out++ = '"';
        write_text(writer, text);
        *writer->out++ = '"';
    }
    return at;
}

/* Returns where a decimal fraction ends without the zeros behind it, of which one stays if it is nothing else. */
static const Byte *
without_zeros(const Number *number)
{
    const Byte *end = number->end;
    while (end[-1] == '0' && end > number->whole_end + 2) {
        end--;
    }
    return end;
}

/* Returns whether a decimal fraction, up to `end`, is the shortest text of its double, as it would be written. */
static bool
is_shortest(const Byte *whole, const Byte *point, const Byte *end)
{
    const Byte *fraction = point + 1;
    if (*whole != '0') {
        return (point - whole) + (end - fraction) <= EXACT_DIGITS;
    }
    const Byte *first = fraction;
    while (first < end && *first == '0') {
        first++;
    }
    bool zero = first == end;
    return zero || (first - fraction <= MOST_LEADING_ZEROS && end - first <= EXACT_DIGITS);
}

/* Writes a number, unless its canonical spelling takes arithmetic to find. */
static const Byte *
write_number(Writer *writer, const Byte *at)
{
    Number number;
    at = skip_number(at, &number);
    if (at == NULL || number.exponent) {
        return NULL;
    }
    const Byte *whole = number.start + (*number.start == '-'), *end = number.end;
    if (end > number.whole_end) {
        end = without_zeros(&number);
        if (!is_shortest(whole, number.whole_end, end)) {
            return NULL;
        }
    }
    else if (end - whole > WHOLE_DIGITS || (*whole == '0' && whole > number.start)) {
        return NULL;
    }
    writer->out = copy(writer->out, number.start, end);
    return at;
}

static const Byte *
write_literal(Writer *writer, const Byte *at)
{
    const Byte *end = skip_literal(at);
    if (end != NULL) {
        writer->out = copy(writer->out, at, end);
    }
    return end;
}

static uint64_t
prefix_of(const Byte *key, size_t size)
{
    uint64_t prefix = 0;
#if EIGHT_AT_ONCE
    memcpy(&prefix, key, sizeof(prefix));
    prefix = __builtin_bswap64(prefix);
    return size < 8 ? prefix & ~(UINT64_MAX >> 8 * size) : prefix;
#else
    for (size_t i = 0; i < 8; i++) {
        prefix = prefix << 8 | (i < size ? key[i] : 0);
    }
    return prefix;
#endif
}

/* Returns less than 0, 0 or more than 0 as one key stands before another, is the same, or stands behind it. */
static inline int
compare(Place one, Place other)
{
    if (one.prefix != other.prefix) {
        return one.prefix < other.prefix ? -1 : 1;
    }
    size_t size = one.member->key_size, other_size = other.member->key_size;
    int order = memcmp(one.member->key, other.member->key, size < other_size ? size : other_size);
    if (order != 0) {
        return order;
    }
    return size < other_size ? -1 : size > other_size;
}

/* Lists members in the order of their keys; returns false where one key stands twice. */
static bool
sort(const Member *members, int count, Place *places, bool *moved)
{
    *moved = false;
    for (int i = 0; i < count; i++) {
        Place place = {prefix_of(members[i].key, members[i].key_size), &members[i]};
        int at = i, order = -1;
        while (at > 0 && (order = compare(place, places[at - 1])) < 0) {
            places[at] = places[at - 1];
            at--;
        }
        if (order == 0) {
            return false;
        }
        places[at] = place;
        *moved = *moved || at < i;
    }
    return true;
}

/* Puts an object's written members into the order of their keys; returns false where one stands twice. */
static bool
put_in_order(Writer *writer, Byte *first, const Member *members, int count)
{
    bool moved;
    if (!sort(members, count, writer->places, &moved)) {
        return false;
    }
    if (moved) {
        Byte *end = writer->scratch;
        for (int i = 0; i < count; i++) {
            if (i > 0) {
                *end++ = ',';
            }
            end = copy(end, writer->places[i].member->start, writer->places[i].member->end);
        }
        copy(first, writer->scratch, end);
    }
    return true;
}

static const Byte *write_value(Writer *writer, const Byte *at, int depth);

/* Writes a member and remembers where; gives up a key that is not in the order of its spelling. */
static const Byte *
write_member(Writer *writer, const Byte *at, int depth)
{
    if (writer->used == MOST_MEMBERS) {
        return NULL;
    }
    Member *member = &writer->members[writer->used++];
    Text key;
    at = skip_string(at, &key);
    if (at == NULL || *(at = skip_space(at)) != ':') {
        return NULL;
    }
    member->start = writer->out;
    *writer->out++ = '"';
    member->key = key.escaped ? writer->out : key.start;
    const Byte *text = writer->out;
    if (write_text(writer, key)) {
        return NULL;
    }
    member->key_size = (size_t)(writer->out - text);
    *writer->out++ = '"';
    *writer->out++ = ':';
    at = write_value(writer, skip_space(at + 1), depth);
    member->end = writer->out;
    return at;
}

/* Writes an object or an array from its bracket, and sorts an object's members. */
static const Byte *
write_container(Writer *writer, const Byte *at, int depth)
{
    bool object = *at == '{';
    Byte closing = object ? '}' : ']';
    int members = writer->used;
    *writer->out++ = *at;
    Byte *first = writer->out;
    at = skip_space(at + 1);
    if (*at != closing) {
        for (;;) {
            at = object ? write_member(writer, at, depth) : write_value(writer, at, depth);
            if (at == NULL) {
                return NULL;
            }
            at = skip_space(at);
            if (*at != ',') {
                break;
            }
            *writer->out++ = ',';
            at = skip_space(at + 1);
        }
        if (*at != closing) {
            return NULL;
        }
    }
    if (object && !put_in_order(writer, first, &writer->members[members], writer->used - members)) {
        return NULL;
    }
    writer->used = members;
    *writer->out++ = closing;
    return at + 1;
}

static const Byte *
write_value(Writer *writer, const Byte *at, int depth)
{
    switch (*at) {
    case '"':
        return write_string(writer, at);
    case '{': case '[':
        return depth == DEEPEST ? NULL : write_container(writer, at, depth + 1);
    case 't': case 'f': case 'n':
        return write_literal(writer, at);
    default:
        return write_number(writer, at);
    }
}

size_t
canonical(const Byte *text, size_t size, Byte *out, Byte *scratch)
{
    Writer writer;
    writer.out = out;
    writer.scratch = scratch;
    writer.used = 0;
    const Byte *at = write_value(&writer, skip_space(text), 0);
    if (at == NULL || skip_space(at) != text + size) {
        return 0;
    }
    return (size_t)(writer.out - out);
}
