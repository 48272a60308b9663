#include "events.h"

#include <string.h>

#define LONGEST_ESCAPE 6      /* characters, of a byte at least */
#define TIME_DIGITS 15        /* milliseconds of the year 5138 and later have more */
#define LATEST_CLOCK 1000000000000 /* seconds; by any earlier one, a time of more digits is too late */
#define ROUNDING 2            /* a time closer to a bound than that may count as at it */
#define OTHER_MEMBERS 255     /* beside `event` and `properties` */
#define OTHER_DEPTH 16
#define LEAST_ID_OF_KELVIN 0xe2 /* how U+212A begins, the one character whose lower case is ASCII: k */

/* What has been found in an event. */
typedef struct {
    bool event, properties;                      /* keys at the top */
    bool time, distinct_id, insert_id, ip, user_id, device_id; /* keys of the properties */
    bool given;                                  /* `distinct_id` is not null */
    bool somebody;                               /* an id that may stand in for `distinct_id` */
    Flaw flaw;                                   /* the first rule that is certainly broken */
    const Byte *close;
} Seen;

/* Notes that a rule is certainly broken, and returns where to go on. */
static const Byte *
refuse(Seen *seen, Flaw flaw, const Byte *at)
{
    if (flaw < seen->flaw) {
        seen->flaw = flaw;
    }
    return at;
}

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

static bool
is_blank(Text text)
{
    while (text.start < text.end && *text.start == ' ') {
        text.start++;
    }
    return text.start == text.end;
}

static const Byte *
check_name(const Byte *at, Seen *seen, const Rules *rules)
{
    Text text;
    Byte room[LONGEST_ESCAPE * LONGEST_NAME];
    if (*at == 'n') {
        return refuse(seen, NO_EVENT, skip_literal(at));
    }
    at = skip_string(at, &text);
    if (at == NULL) {
        return NULL;
    }
    text = plain(text, room);
    if (is_one_of(&rules->identity_events, text.start, (size_t)(text.end - text.start))) {
        return rules->simplified ? refuse(seen, IDENTITY_EVENT, at) : NULL;
    }
    if (is_blank(text)) {
        return refuse(seen, NO_EVENT, at);
    }
    return is_visible(text) && !text.escaped ? at : NULL;
}

static const Byte *
check_number_for_time(const Byte *at, Number number, Seen *seen, const Rules *rules)
{
    if (number.exponent) {
        return NULL;
    }
    if (*number.start == '-') {
        return refuse(seen, EARLY_TIME, at);
    }
    if (number.whole_end - number.start > TIME_DIGITS) {
        return rules->latest_s < LATEST_CLOCK ? refuse(seen, LATE_TIME, at) : NULL;
    }
    int64_t time = 0;
    for (const Byte *digit = number.start; digit < number.whole_end; digit++) {
        time = time * 10 + (*digit - '0');
    }
    if ((time >= rules->earliest_s && time < rules->latest_s) ||
        (time >= rules->earliest_ms && time < rules->latest_s * 1000)) {
        return at;
    }
    if (time < rules->earliest_s - ROUNDING) {
        return refuse(seen, EARLY_TIME, at);
    }
    bool late_s = time > rules->latest_s + ROUNDING && time < rules->earliest_ms - ROUNDING;
    bool late_ms = time > (rules->latest_s + ROUNDING) * 1000 && time >= rules->earliest_ms;
    return late_s || late_ms ? refuse(seen, LATE_TIME, at) : NULL;
}

static const Byte *
check_time(const Byte *at, Seen *seen, const Rules *rules)
{
    Text text;
    Number number;
    if (*at == '"') {
        return refuse(seen, TIME_AS_TEXT, skip_string(at, &text));
    }
    if (*at == 'n') {
        return refuse(seen, NO_TIME, skip_literal(at));
    }
    at = skip_number(at, &number);
    return at != NULL ? check_number_for_time(at, number, seen, rules) : NULL;
}

typedef enum { ALLOWED, DISALLOWED, UNCERTAIN } Standing;

/* Returns whether an id is one of those that stand for nobody, in whatever case. */
static Standing
standing(Text text, const Rules *rules)
{
    Byte lower[LONGEST_NAME];
    size_t size = (size_t)(text.end - text.start);
    if (text.escaped || size > LONGEST_NAME) {
        return ALLOWED;
    }
    for (size_t i = 0; i < size; i++) {
        Byte c = text.start[i];
        if (c == LEAST_ID_OF_KELVIN) {
            return UNCERTAIN;
        }
        lower[i] = c >= 'A' && c <= 'Z' ? (Byte)(c | 0x20) : c;
    }
    return is_one_of(&rules->disallowed_ids, lower, size) ? DISALLOWED : ALLOWED;
}

static const Byte *
check_distinct_id(const Byte *at, Seen *seen, const Rules *rules)
{
    Text text;
    Byte room[LONGEST_ESCAPE * LONGEST_NAME];
    if (*at == 'n') {
        return skip_literal(at);
    }
    at = skip_string(at, &text);
    if (at == NULL) {
        return NULL;
    }
    seen->given = true;
    switch (standing(plain(text, room), rules)) {
    case ALLOWED:
        return at;
    case DISALLOWED:
        return refuse(seen, DISALLOWED_ID, at);
    default:
        return NULL;
    }
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
    return standing(text, rules) == ALLOWED ? at : NULL;
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
            return note(&seen->time) ? check_time(at, seen, rules) : NULL;
        }
        break;
    case sizeof("$user_id") - 1:
        if (IS(key, "$user_id")) {
            return check_other_id(at, &seen->user_id, &seen->somebody, rules);
        }
        break;
    case sizeof("distinct_id") - 1:
        if (IS(key, "distinct_id")) {
            return note(&seen->distinct_id) ? check_distinct_id(at, seen, rules) : NULL;
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
        return note(&seen->event) ? check_name(at, seen, rules) : NULL;
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

/* Returns the first rule that the members of an event certainly break. */
static Flaw
flaw_of(Seen *seen, const Rules *rules)
{
    if (!seen->properties) {
        return NO_PROPERTIES;
    }
    if (!seen->event) {
        refuse(seen, NO_EVENT, NULL);
    }
    if (!seen->time) {
        refuse(seen, NO_TIME, NULL);
    }
    if (!seen->given && !(rules->simplified && seen->somebody)) {
        refuse(seen, NO_DISTINCT_ID, NULL);
    }
    return seen->flaw;
}

/* Finds out why a line that could not be read as an event is certainly refused. */
static void
look_for_fault(Line *line, const Byte *block)
{
    static const Flaw FLAW_OF[] = {
        [ENDS_EARLY] = CUT_SHORT, [NO_UTF8] = NOT_UTF8, [HALF_CHARACTER] = LONE_SURROGATE,
        [NAN_TOKEN] = NOT_A_NUMBER, [INFINITY_TOKEN] = INFINITE, [MINUS_INFINITY_TOKEN] = MINUS_INFINITE};
    Fault fault = find_fault(block + line->start, block + line->end);
    if (fault.kind == NO_FAULT) {
        return;
    }
    line->findings = REFUSED;
    line->flaw = FLAW_OF[fault.kind];
    line->place = (size_t)(fault.at - block);
    if (fault.property.start != NULL) {
        line->key = (size_t)(fault.property.start - block);
        line->key_size = (size_t)(fault.property.end - fault.property.start);
    }
}

Line
scan_line(const Byte *block, size_t start, size_t end, const Rules *rules)
{
    Line line = {.start = start, .end = end, .flaw = NO_RULE, .findings = SUSPECT};
    Seen seen = {.flaw = NO_RULE};
    const Byte *first = skip_space(block + start);
    if (end - start > rules->most_bytes) {
        return line;
    }
    const Byte *at = check_object(first, OTHER_MEMBERS, check_member, &seen, rules);
    if (at == NULL || skip_space(at + 1) != block + end) {
        look_for_fault(&line, block);
        return line;
    }
    line.flaw = flaw_of(&seen, rules);
    if (line.flaw != NO_RULE) {
        line.findings = REFUSED;
        return line;
    }
    line.start = (size_t)(first - block);
    line.end = (size_t)(at + 1 - block);
    line.place = (size_t)(seen.close - block);
    line.findings = (seen.insert_id ? 0u : WITHOUT_ID) | (seen.ip ? 0u : WITHOUT_IP);
    return line;
}
