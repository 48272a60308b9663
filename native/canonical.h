#ifndef MIXPANEL_CANONICAL_H
#define MIXPANEL_CANONICAL_H

#include "json.h"

/* Writes a JSON text's canonical form, and returns its size: keys sorted, no white space, one spelling of each
 * string and number. Returns 0 where it is not certain to be what `insert_ids.canonical` makes of it.
 *
 * What is canonical is never longer than its source: `out` has room for `size` bytes, and so has `scratch`; like
 * the text, each is followed by what `json.h` asks for.
 */
size_t canonical(const Byte *text, size_t size, Byte *out, Byte *scratch);

#endif
