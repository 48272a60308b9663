#ifndef MIXPANEL_CUT_SHORT_H
#define MIXPANEL_CUT_SHORT_H

#include "json.h"

/* Returns whether a text is certainly the beginning of a JSON text, and would be none without what follows. */
bool is_cut_short(const Byte *at, const Byte *end);

#endif
