#include "json.h"

#include <string.h>

#define LONGEST_NUMBER 1000 /* characters; what is longer is no number that anybody meant */

/* Plain is what may stand in a string as it is and is one byte: ASCII but controls, quote and backslash. */
#if EIGHT_AT_ONCE
#define EACH(byte) (0x0101010101010101u * (byte))

/* Has the high bit of each byte set that is smaller than `least`, at most 0x80. Behind the first of them others
 * may be set too, by the borrow. */
static inline uint64_t
below(uint64_t bytes, Byte least)
{
    return (bytes - EACH(least)) & ~bytes & EACH(0x80);
}

/* Skips plain characters, eight at a time. */
static inline const Byte *
skip_plain(const Byte *at)
{
    for (;;) {
        uint64_t bytes;
        memcpy(&bytes, at, sizeof(bytes));
        uint64_t others = (bytes & EACH(0x80)) | below(bytes, 0x20) | below(bytes ^ EACH('"'), 1) |
                          below(bytes ^ EACH('\\'), 1);
        if (others != 0) {
            return at + __builtin_ctzll(others) / 8;
        }
        at += sizeof(bytes);
    }
}
#else
static inline const Byte *
skip_plain(const Byte *at)
{
    while (*at >= 0x20 && *at < 0x80 && *at != '"' && *at != '\\') {
        at++;
    }
    return at;
}
#endif

static inline bool
is_digit(Byte c)
{
    return (Byte)(c - '0') < 10;
}

static inline bool
is_continuation(Byte c)
{
    return (c & 0xc0) == 0x80;
}

/* Skips one character of more than one byte: no surrogate, no longer than it has to be, not above U+10FFFF. */
static const Byte *
skip_utf8(const Byte *at)
{
    Byte lead = at[0], next = at[1];
    if (lead < 0xc2 || lead > 0xf4 || !is_continuation(next)) {
        return NULL;
    }
    if (lead < 0xe0) {
        return at + 2;
    }
    if (!is_continuation(at[2])) {
        return NULL;
    }
    if (lead < 0xf0) {
        bool overlong = lead == 0xe0 && next < 0xa0, surrogate = lead == 0xed && next > 0x9f;
        return overlong || surrogate ? NULL : at + 3;
    }
    bool overlong = lead == 0xf0 && next < 0x90, too_high = lead == 0xf4 && next > 0x8f;
    return overlong || too_high || !is_continuation(at[3]) ? NULL : at + 4;
}

static int
hex_digit(Byte c)
{
    if (is_digit(c)) {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Returns the number that four hexadecimal digits stand for, or -1. */
static int
hex4(const Byte *at)
{
    int value = 0;
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(at[i]);
        if (digit < 0) {
            return -1;
        }
        value = value << 4 | digit;
    }
    return value;
}

static bool
is_high_surrogate(int unit)
{
    return (unit & 0xfc00) == 0xd800;
}

static bool
is_low_surrogate(int unit)
{
    return (unit & 0xfc00) == 0xdc00;
}

/* Skips an escape, from its backslash; of half a character only with the other half behind it. */
static const Byte *
skip_escape(const Byte *at)
{
    switch (at[1]) {
    case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't':
        return at + 2;
    case 'u':
        break;
    default:
        return NULL;
    }
    int unit = hex4(at + 2);
    if (unit < 0 || is_low_surrogate(unit)) {
        return NULL;
    }
    if (!is_high_surrogate(unit)) {
        return at + 6;
    }
    return at[6] == '\\' && at[7] == 'u' && is_low_surrogate(hex4(at + 8)) ? at + 12 : NULL;
}

bool
is_half_character(const Byte *at)
{
    return at[0] == '\\' && at[1] == 'u' && hex4(at + 2) >= 0 && skip_escape(at) == NULL;
}

static inline const Byte *
skip_ascii(const Byte *at, const Byte *end)
{
#if EIGHT_AT_ONCE
    for (uint64_t bytes; (size_t)(end - at) >= sizeof(bytes); at += sizeof(bytes)) {
        memcpy(&bytes, at, sizeof(bytes));
        if (bytes & EACH(0x80)) {
            break;
        }
    }
#endif
    while (at < end && *at < 0x80) {
        at++;
    }
    return at;
}

const Byte *
skip_utf8_text(const Byte *at, const Byte *end)
{
    while ((at = skip_ascii(at, end)) < end) {
        const Byte *behind = skip_utf8(at);
        if (behind == NULL) {
            break;
        }
        at = behind;
    }
    return at;
}

const Byte *
skip_text(const Byte *at, Text *text)
{
    text->start = at;
    text->escaped = false;
    for (;;) {
        at = text->end = skip_plain(at);
        if (*at == '"') {
            return at;
        }
        if (*at == '\\') {
            text->escaped = true;
            at = skip_escape(at);
        }
        else {
            at = skip_utf8(at);
        }
        if (at == NULL) {
            return text->end;
        }
    }
}

const Byte *
skip_string(const Byte *at, Text *text)
{
    if (*at != '"') {
        return NULL;
    }
    at = skip_text(at + 1, text);
    return *at == '"' ? at + 1 : NULL;
}

static const Byte *
skip_digits(const Byte *at)
{
    while (is_digit(*at)) {
        at++;
    }
    return at;
}

const Byte *
skip_number(const Byte *at, Number *number)
{
    number->start = at;
    at += *at == '-';
    const Byte *whole = at;
    at = skip_digits(at);
    if (at == whole || (*whole == '0' && at > whole + 1)) {
        return NULL;
    }
    number->whole_end = at;
    if (*at == '.') {
        const Byte *fraction = at + 1;
        at = skip_digits(fraction);
        if (at == fraction) {
            return NULL;
        }
    }
    number->exponent = (*at | 0x20) == 'e';
    if (number->exponent) {
        at += at[1] == '+' || at[1] == '-' ? 2 : 1;
        const Byte *power = at;
        at = skip_digits(power);
        if (at == power) {
            return NULL;
        }
    }
    number->end = at;
    return at - number->start <= LONGEST_NUMBER ? at : NULL;
}

const Byte *
skip_word(const Byte *at, const char *word)
{
    while (*word) {
        if (*at++ != (Byte)*word++) {
            return NULL;
        }
    }
    return at;
}

const Byte *
skip_literal(const Byte *at)
{
    return *at == 't' ? skip_word(at, "true") : *at == 'f' ? skip_word(at, "false") : skip_word(at, "null");
}

/* Skips an object or an array, from behind its bracket. */
static const Byte *
skip_members(const Byte *at, Byte closing, Bounds inner)
{
    at = skip_space(at);
    if (*at == closing) {
        return at + 1;
    }
    for (int count = 1; count <= inner.members; count++) {
        if (closing == '}') {
            Text key;
            at = skip_string(at, &key);
            if (at == NULL || *(at = skip_space(at)) != ':') {
                return NULL;
            }
            at = skip_space(at + 1);
        }
        at = skip_value(at, inner);
        if (at == NULL) {
            return NULL;
        }
        at = skip_space(at);
        if (*at == closing) {
            return at + 1;
        }
        if (*at != ',') {
            return NULL;
        }
        at = skip_space(at + 1);
    }
    return NULL;
}

const Byte *
skip_value(const Byte *at, Bounds bounds)
{
    Text text;
    Number number;
    switch (*at) {
    case '"':
        return skip_string(at, &text);
    case '{': case '[':
        if (bounds.depth == 0) {
            return NULL;
        }
        bounds.depth--;
        return skip_members(at + 1, *at == '{' ? '}' : ']', bounds);
    case 't': case 'f': case 'n':
        return skip_literal(at);
    default:
        return skip_number(at, &number);
    }
}

static Byte *
put_utf8(uint32_t c, Byte *out)
{
    if (c < 0x80) {
        *out++ = (Byte)c;
        return out;
    }
    if (c < 0x800) {
        *out++ = (Byte)(0xc0 | c >> 6);
    }
    else {
        if (c < 0x10000) {
            *out++ = (Byte)(0xe0 | c >> 12);
        }
        else {
            *out++ = (Byte)(0xf0 | c >> 18);
            *out++ = (Byte)(0x80 | (c >> 12 & 0x3f));
        }
        *out++ = (Byte)(0x80 | (c >> 6 & 0x3f));
    }
    *out++ = (Byte)(0x80 | (c & 0x3f));
    return out;
}

/* Returns the character that an escape of one letter stands for. */
static Byte
escaped_character(Byte letter)
{
    switch (letter) {
    case 'b': return '\b';
    case 'f': return '\f';
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    default: return letter;
    }
}

Byte *
unescape(Text text, Byte *out)
{
    const Byte *at = text.start;
    while (at < text.end) {
        if (*at != '\\') {
            *out++ = *at++;
            continue;
        }
        if (at[1] != 'u') {
            *out++ = escaped_character(at[1]);
            at += 2;
            continue;
        }
        uint32_t unit = (uint32_t)hex4(at + 2);
        at += 6;
        if (is_high_surrogate((int)unit)) {
            uint32_t low = (uint32_t)hex4(at + 2);
            unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
            at += 6;
        }
        out = put_utf8(unit, out);
    }
    return out;
}
