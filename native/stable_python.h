/* Python's stable interface of 3.10, so that one build serves all later versions. */
#ifndef MIXPANEL_STABLE_PYTHON_H
#define MIXPANEL_STABLE_PYTHON_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030A0000
#include <Python.h>
#include <structmember.h>

#endif
