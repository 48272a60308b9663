"""The C extension, or None where it has not been built: `_native.pyi` says what is in it.

Nothing depends on it but speed.
"""

from __future__ import annotations

try:
    from mixpanel_http import _native as extension
except ImportError:  # no compiler when the project was installed
    extension = None  # type: ignore[assignment]

__all__ = ["extension"]
