/* `Scan`: what is known of the lines of a block. */
#ifndef MIXPANEL_SCAN_H
#define MIXPANEL_SCAN_H

#include "stable_python.h"

#include "events.h"

/* Makes the type; to be called once, before any scan. Returns NULL with an exception. */
PyObject *make_scan_type(void);

/* Returns a new `Scan` of a block, a `bytes`, or NULL with an exception. */
PyObject *new_scan(PyObject *block, const Rules *rules);

#endif
