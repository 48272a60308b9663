"""Lists of names with globs, and what they make of a name, worked out once for each name there is."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from typing import Final

MOST_NAMES: Final = (
    65_536  # remembered at once; names that are data (a column for each user) would fill memory
)


class NameList:
    """Globs: `*` for any characters, `?` for one, `[ab]` for one of some."""

    def __init__(self, globs: Iterable[str], *, any_case: bool = False) -> None:
        """Takes the globs; with `any_case` capital and small letters are the same."""
        patterns = "|".join(fnmatch.translate(glob) for glob in globs)
        self._match = re.compile(patterns, re.IGNORECASE if any_case else 0).match if patterns else None

    def __contains__(self, name: str) -> bool:
        return self._match is not None and self._match(name) is not None

    def __bool__(self) -> bool:
        return self._match is not None


class Names(dict[str, str | None]):
    """From a name to what it is called in the end, or None where it is left out."""

    def __init__(self, keep: Iterable[str], drop: Iterable[str], rename: Mapping[str, str]) -> None:
        """Takes globs of what to keep, if not all, and of what to drop, by new names, and the new names."""
        super().__init__()
        self._keep, self._drop, self._rename = NameList(keep), NameList(drop), rename

    def __missing__(self, name: str) -> str | None:
        if len(self) >= MOST_NAMES:
            self.clear()
        new = self._rename.get(name, name)
        kept = new not in self._drop and (not self._keep or new in self._keep)
        self[name] = found = new if kept else None
        return found
