"""Named places at which a test ends the process as a power failure would: at once, with nothing tidied up.

`BACKFILL_CRASH_AT=name` ends it there with `os._exit`, `name:3` at the third arrival. Unset, a point costs
one comparison.
"""

from __future__ import annotations

import itertools
import os
from typing import Final

VARIABLE: Final = "BACKFILL_CRASH_AT"
CRASHED: Final = 99  # the exit code, so that a test knows that its point was reached

_name, _, _count = os.environ.get(VARIABLE, "").partition(":")
_arrivals: Final = itertools.count(1)


def crash_point(name: str) -> None:
    """Ends the process if it is to end here."""
    if name == _name and next(_arrivals) == int(_count or 1):
        os._exit(CRASHED)


def crash_amid(name: str, file: int, content: bytes) -> None:
    """Ends the process, if it is to end here, after half of the content is written to an open file."""
    if name == _name and next(_arrivals) == int(_count or 1):
        os.write(file, content[: len(content) // 2])
        os._exit(CRASHED)
