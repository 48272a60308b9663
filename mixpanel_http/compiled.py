"""The C extension, or None where it has not been built: `_native.pyi` says what is in it.

Nothing depends on it but speed.
"""

from __future__ import annotations

from typing import Final

INTERFACE: Final = 3  # in native/module.c: one that was built from other sources is as good as none

try:
    from mixpanel_http import _native as extension
except ImportError:  # no compiler when the project was installed
    extension = None  # type: ignore[assignment]
else:
    if getattr(extension, "INTERFACE", None) != INTERFACE:
        extension = None  # type: ignore[assignment]

__all__ = ["extension"]
