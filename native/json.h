/* Reads JSON text without building anything of it.
 *
 * Each `skip_` function takes where a token begins and returns where it ends, or NULL where the text is not
 * certainly what the strictest of readers would take. No function is told where the text ends: a line feed or
 * a NUL must follow it, neither of which may stand in a token, so that none ends behind it. As several bytes
 * are looked at together, `PADDING` bytes more must be readable.
 */
#ifndef MIXPANEL_JSON_H
#define MIXPANEL_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PADDING 8

#if defined(__GNUC__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define EIGHT_AT_ONCE 1
#else
#define EIGHT_AT_ONCE 0
#endif

typedef unsigned char Byte;

/* A string's text between its quotes, as it stands there. */
typedef struct {
    const Byte *start;
    const Byte *end;
    bool escaped; /* whether a backslash is in it */
} Text;

typedef struct {
    const Byte *start;
    const Byte *whole_end; /* behind the digits of its whole part */
    const Byte *end;
    bool exponent;
} Number;

/* How much an object or an array may hold and nest, to be certain to keep all rules. */
typedef struct {
    int members; /* keys or elements of one container */
    int depth;   /* containers in a container, itself included */
} Bounds;

/* Skips white space, but never a line feed. */
static inline const Byte *
skip_space(const Byte *at)
{
    while (*at == ' ' || *at == '\t' || *at == '\r') {
        at++;
    }
    return at;
}

const Byte *skip_string(const Byte *at, Text *text);
const Byte *skip_number(const Byte *at, Number *number);
const Byte *skip_literal(const Byte *at); /* true, false, null */
const Byte *skip_value(const Byte *at, Bounds bounds);
const Byte *skip_word(const Byte *at, const char *word);

/* Skips a string from behind its opening quote, up to the closing one or to whatever may not stand in it. */
const Byte *skip_text(const Byte *at, Text *text);

/* Returns whether an escape stands for half a character, from its backslash. */
bool is_half_character(const Byte *at);

/* Skips what is UTF-8, whatever it says. */
const Byte *skip_utf8_text(const Byte *at, const Byte *end);

/* Writes a string's text without escapes, in UTF-8, and returns where it ends: never longer than the text. */
Byte *unescape(Text text, Byte *out);

#endif
