/* Why a line is certainly no JSON, or none that may be sent. */
#ifndef MIXPANEL_FAULTS_H
#define MIXPANEL_FAULTS_H

#include "json.h"

typedef enum {
    NO_FAULT,   /* that is certain */
    ENDS_EARLY, /* the beginning of a JSON text, and none without what follows */
    NO_UTF8,
    HALF_CHARACTER,
    NAN_TOKEN,
    INFINITY_TOKEN,
    MINUS_INFINITY_TOKEN,
} FaultKind;

typedef struct {
    FaultKind kind;
    const Byte *at; /* of `NO_UTF8`: the first byte that is none */
    Text property;  /* of `NO_UTF8`: the key whose text that is in, empty where it is in none */
} Fault;

/* Returns what is wrong with a text, as `record_syntax.py` would say. */
Fault find_fault(const Byte *at, const Byte *end);

#endif
