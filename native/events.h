#ifndef MIXPANEL_EVENTS_H
#define MIXPANEL_EVENTS_H

#include "faults.h"

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
    REFUSED = 8, /* for its `Flaw` */
} Finding;

/* Why a line is certainly refused. The rules stand in the order in which the judge looks at them. */
typedef enum {
    NO_PROPERTIES,
    NO_EVENT,
    NO_TIME,
    TIME_AS_TEXT,
    EARLY_TIME,
    LATE_TIME,
    IDENTITY_EVENT,
    DISALLOWED_ID,
    NO_DISTINCT_ID,
    NO_RULE, /* is broken */
    CUT_SHORT = NO_RULE,
    NOT_UTF8,
    LONE_SURROGATE,
    NOT_A_NUMBER,
    INFINITE,
    MINUS_INFINITE,
    FLAWS,
} Flaw;

/* Where a line is, as offsets into its block, and what has been found in it. */
typedef struct {
    size_t start; /* without the white space around it, if it is an event */
    size_t end;
    size_t place; /* the `}` of its properties; of what is no UTF-8, the first such byte */
    size_t key;   /* of what is no UTF-8, the property that it is in */
    size_t key_size;
    Flaw flaw;         /* if it is refused */
    unsigned findings; /* of `Finding` */
} Line;

/* Finds out what can be said of the line at `start`, which ends with a line feed or a NUL at `end`. */
Line scan_line(const Byte *block, size_t start, size_t end, const Rules *rules);

#endif
