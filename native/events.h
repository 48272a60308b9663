#ifndef MIXPANEL_EVENTS_H
#define MIXPANEL_EVENTS_H

#include "json.h"

#define MOST_NAMES 32
#define LONGEST_NAME 40

/* A few short texts. */
typedef struct {
    int count;
    struct {
        size_t size;
        Byte text[LONGEST_NAME];
    } names[MOST_NAMES];
} Names;

/* What an event is held against; all of it comes from `limits.py`. */
typedef struct {
    Names identity_events;
    Names disallowed_ids; /* in lower case */
    Bounds properties;
    size_t most_bytes;
    size_t longest_insert_id;
    int64_t earliest_s;
    int64_t earliest_ms;
    int64_t latest_s;
    bool simplified; /* the project's identity model */
} Rules;

typedef enum {
    SUSPECT = 1,    /* nothing else is known of it */
    WITHOUT_ID = 2, /* has no `$insert_id` */
    WITHOUT_IP = 4,
    CUT_SHORT = 8, /* no JSON, because it ends too early; it is no suspect then */
} Finding;

/* Where a line is, as offsets into its block. */
typedef struct {
    size_t start; /* without the white space around it, if it is an event */
    size_t end;
    size_t close; /* the `}` of its properties */
    unsigned findings; /* of `Finding` */
} Line;

/* Finds out what can be said of the line at `start`, which ends with a line feed or a NUL at `end`. */
Line scan_line(const Byte *block, size_t start, size_t end, const Rules *rules);

#endif
