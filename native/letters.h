/* Dead letters: lines that are not imported, in JSON. */
#ifndef MIXPANEL_LETTERS_H
#define MIXPANEL_LETTERS_H

#include "stable_python.h"

/* `letters`, as `_native.pyi` describes it. */
PyObject *module_letters(PyObject *module, PyObject *arguments);

#endif
