#include "events.h"

#include <string.h>

#include "cut_short.h"

#define LONGEST_ESCAPE 6      /* characters, of a byte at least */
#define TIME_DIGITS 15        /* milliseconds of the year 5138 and later have more */
#define OTHER_MEMBERS 32      /* beside `event` and `properties` */
#define OTHER_DEPTH 16
#define LEAST_ID_OF_KELVIN 0xe2 /* how U+212A begins, the one character whose lower case is ASCII: k */

/* What has been found in an event. */
typedef struct {
    bool event, properties;                      /* keys at the top */
    bool time, distinct_id, insert_id, ip, user_id, device_id; /* keys of the properties */
    bool somebody;                               /* an id that may stand in for `distinct_id` */
    const Byte *close;
} Seen;

static bool
is_one_of(const Names *names, const Byte *text, size_t size)
{
    for (int i = 0; i < names->count; i++) {
        if (names->names[i].size == size && memcmp(names->names[i].text, text, size) == 0) {
            return true;
        }
    }
    return false;
}

static bool
is(Text text, const char *name, size_t size)
{
    return (size_t)(text.end - text.start) == size && memcmp(text.start, name, size) == 0;
}
#define IS(text, name) is(text, name, sizeof(name) - 1)

/* Returns a short text without its escapes; it is left as it is where it is longer than any name. */
static Text
plain(Text text, Byte *room)
{
    if (text.escaped && text.end - text.start <= LONGEST_ESCAPE * LONGEST_NAME) {
        text.end = unescape(text, room);
        text.start = room;
        text.escaped = false;
    }
    return text;
}

/* Returns whether a text has a character that certainly is no white space. */
static bool
is_visible(Text text)
{
    for (const Byte *at = text.start; at < text.end; at++) {
        if (*at > ' ' && *at < 0x7f) {
            return true;
        }
        /* White space beyond ASCII begins with C2, E1, E2 or E3 80. */
        if (*at > 0xc2 && *at != 0xe1 && *at != 0xe2 && !(*at == 0xe3 && at[1] == 0x80)) {
            return true;
        }
    }
    return false;
}

static const Byte *
check_name(const Byte *at, const Rules *rules)
{
    Text text;
    Byte room[LONGEST_ESCAPE * LONGEST_NAME];
    at = skip_string(at, &text);
    if (at == NULL) {
        return NULL;
    }
    text = plain(text, room);
    if (!is_visible(text) || is_one_of(&rules->identity_events, text.start, (size_t)(text.end - text.start))) {
        return NULL;
    }
    return at;
}

static const Byte *
check_time(const Byte *at, const Rules *rules)
{
    Number number;
    at = skip_number(at, &number);
    if (at == NULL || number.exponent || number.whole_end - number.start > TIME_DIGITS) {
        return NULL;
    }
    int64_t time = 0;
    for (const Byte *digit = number.start; digit < number.whole_end; digit++) {
        if (*digit == '-') {
            return NULL;
        }
        time = time * 10 + (*digit - '0');
    }
    bool seconds = time >= rules->earliest_s && time < rules->latest_s;
    bool milliseconds = time >= rules->earliest_ms && time < rules->latest_s * 1000;
    return seconds || milliseconds ? at : NULL;
}

/* Returns whether an id is certainly none of those that stand for nobody, in whatever case. */
static bool
is_allowed(Text text, const Rules *rules)
{
    Byte lower[LONGEST_NAME];
    size_t size = (size_t)(text.end - text.start);
    if (text.escaped || size > LONGEST_NAME) {
        return true;
    }
    for (size_t i = 0; i < size; i++) {
        Byte c = text.start[i];
        if (c == LEAST_ID_OF_KELVIN) {
            return false;
        }
        lower[i] = c >= 'A' && c <= 'Z' ? (Byte)(c | 0x20) : c;
    }
    return !is_one_of(&rules->disallowed_ids, lower, size);
}

static const Byte *
check_distinct_id(const Byte *at, const Rules *rules)
{
    Text text;
    Byte room[LONGEST_ESCAPE * LONGEST_NAME];
    at = skip_string(at, &text);
    return at != NULL && is_allowed(plain(text, room), rules) ? at : NULL;
}

static bool
is_id_character(Byte c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-';
}

static const Byte *
check_insert_id(const Byte *at, const Rules *rules)
{
    Text text;
    at = skip_string(at, &text);
    if (at == NULL || text.end == text.start || (size_t)(text.end - text.start) > rules->longest_insert_id) {
        return NULL;
    }
    for (const Byte *c = text.start; c < text.end; c++) {
        if (!is_id_character(*c)) {
            return NULL;
        }
    }
    return is_allowed(text, rules) ? at : NULL;
}

/* Notes that a key is there; returns false where it has been there before. */
static bool
note(bool *seen)
{
    bool first = !*seen;
    *seen = true;
    return first;
}

/* Checks an id that may stand in for `distinct_id`: any text that is not empty does. */
static const Byte *
check_other_id(const Byte *at, bool *is_there, bool *somebody, const Rules *rules)
{
    Text text;
    if (!note(is_there)) {
        return NULL;
    }
    if (*at != '"') {
        return skip_value(at, rules->properties);
    }
    at = skip_string(at, &text);
    *somebody = *somebody || (at != NULL && text.end > text.start);
    return at;
}

static const Byte *
check_property(Text key, const Byte *at, Seen *seen, const Rules *rules)
{
    switch (key.end - key.start) {
    case sizeof("ip") - 1:
        if (IS(key, "ip") && !note(&seen->ip)) {
            return NULL;
        }
        break;
    case sizeof("time") - 1:
        if (IS(key, "time")) {
            return note(&seen->time) ? check_time(at, rules) : NULL;
        }
        break;
    case sizeof("$user_id") - 1:
        if (IS(key, "$user_id")) {
            return check_other_id(at, &seen->user_id, &seen->somebody, rules);
        }
        break;
    case sizeof("distinct_id") - 1:
        if (IS(key, "distinct_id")) {
            return note(&seen->distinct_id) ? check_distinct_id(at, rules) : NULL;
        }
        break;
    case sizeof("$insert_id") - 1:
        if (IS(key, "$insert_id")) {
            return note(&seen->insert_id) ? check_insert_id(at, rules) : NULL;
        }
        if (IS(key, "$device_id")) {
            return check_other_id(at, &seen->device_id, &seen->somebody, rules);
        }
        break;
    default:
        break;
    }
    return skip_value(at, rules->properties);
}

/* Skips a key and what stands between it and its value. */
static const Byte *
skip_key(const Byte *at, Text *key, Byte *room)
{
    at = skip_string(at, key);
    if (at == NULL || *(at = skip_space(at)) != ':') {
        return NULL;
    }
    *key = plain(*key, room);
    return skip_space(at + 1);
}

typedef const Byte *Check(Text key, const Byte *at, Seen *seen, const Rules *rules);

/* Checks each member of an object of at most so many; returns the object's closing brace. */
static inline const Byte *
check_object(const Byte *at, int most, Check *check, Seen *seen, const Rules *rules)
{
    Text key;
    Byte room[LONGEST_ESCAPE * LONGEST_NAME];
    if (*at != '{') {
        return NULL;
    }
    for (int count = 0; count < most; count++) {
        at = skip_key(skip_space(at + 1), &key, room);
        if (at == NULL || (at = check(key, at, seen, rules)) == NULL) {
            return NULL;
        }
        at = skip_space(at);
        if (*at == '}') {
            return at;
        }
        if (*at != ',') {
            return NULL;
        }
    }
    return NULL;
}

static const Byte *
check_member(Text key, const Byte *at, Seen *seen, const Rules *rules)
{
    if (IS(key, "event")) {
        return note(&seen->event) ? check_name(at, rules) : NULL;
    }
    if (!IS(key, "properties")) {
        Bounds others = {OTHER_MEMBERS, OTHER_DEPTH};
        return skip_value(at, others);
    }
    if (!note(&seen->properties)) {
        return NULL;
    }
    seen->close = check_object(at, rules->properties.members, check_property, seen, rules);
    return seen->close != NULL ? seen->close + 1 : NULL;
}

static bool
is_event(const Seen *seen, const Rules *rules)
{
    bool somebody = seen->distinct_id || (rules->simplified && seen->somebody);
    return seen->event && seen->properties && seen->time && somebody;
}

Line
scan_line(const Byte *block, size_t start, size_t end, const Rules *rules)
{
    Line line = {start, end, 0, SUSPECT};
    Seen seen = {0};
    const Byte *first = skip_space(block + start);
    if (end - start > rules->most_bytes) {
        return line;
    }
    const Byte *at = check_object(first, OTHER_MEMBERS, check_member, &seen, rules);
    if (at == NULL || skip_space(at + 1) != block + end || !is_event(&seen, rules)) {
        line.findings = is_cut_short(first, block + end) ? CUT_SHORT : SUSPECT;
        return line;
    }
    line.start = (size_t)(first - block);
    line.end = (size_t)(at + 1 - block);
    line.close = (size_t)(seen.close - block);
    line.findings = (seen.insert_id ? 0u : WITHOUT_ID) | (seen.ip ? 0u : WITHOUT_IP);
    return line;
}
