"""Lists of names with globs, and what they make of a name, worked out once for each name there is."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

from record_maps.paths import NULL_VALUE

T = TypeVar("T")

# Remembered at once; names that are data (a column for each user) would fill memory.
MOST_NAMES: Final = 65_536


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


IDS: Final = ("$user_id", "$device_id")
"""By these Mixpanel joins what somebody did before and after logging in: they say who did it."""


class NameRules:
    """What a property is called in the end, by rules on its name."""

    def __init__(
        self, keep: Iterable[str] = (), drop: Iterable[str] = (), rename: Mapping[str, str] | None = None
    ) -> None:
        """Takes globs of what to keep, if not all, and of what to drop, by new names; and the new names."""
        self._drop_globs = tuple(drop)
        self._keep, self._drop, self._rename = NameList(keep), NameList(self._drop_globs), rename or {}

    def applied(self, name: str) -> str | None:
        """Returns the new name, or None where the property is left out."""
        new = self._rename.get(name, name)
        is_kept = not self._keep or new in IDS or new in self._keep
        return new if is_kept and new not in self._drop else None

    @property
    def renamed(self) -> Iterable[str]:
        """The names that get new ones, in their order."""
        return self._rename.keys()

    def plain(self) -> tuple[frozenset[str], dict[str, str]] | None:
        """Returns which names are left out and what the others become; None where globs have to be tried."""
        if self._keep or any(_HAS_GLOB(glob) for glob in self._drop_globs):
            return None
        left_out = {old for old in self._rename if self.applied(old) is None}
        renamed = {old: new for old, new in self._rename.items() if old not in left_out}
        return frozenset({*self._drop_globs, *left_out} - renamed.keys()), renamed


def _add(found: dict[str, T], moved: Iterable[tuple[str, T]]) -> None:
    for new, value in moved:
        if value != NULL_VALUE or new not in found:
            found[new] = value


_HAS_GLOB: Final = re.compile(r"[*?\[]").search


class FieldNames:
    """From the fields of an object to properties: which are left out, and what the others are called.

    Where several get one name, a field that had another name before wins over one that has it from the
    beginning, and the later new name over the earlier; but nothing wins by being null. In which order the
    fields stand does not matter.
    """

    def __init__(
        self, rules: NameRules, prefix: str = "", suffix: str = "", without: frozenset[str] = frozenset()
    ) -> None:
        """Takes what becomes of a name, once something is put around it, and the fields that are left out."""
        self._known = _Known(rules, prefix, suffix, without)
        plain = None if prefix or suffix else rules.plain()
        self._left_out = without | plain[0] if plain else None
        self._renamed = plain[1] if plain else {}
        inner = slice(len(prefix), -len(suffix) or None)
        around = (old for old in rules.renamed if old.startswith(prefix) and old.endswith(suffix))
        self._moving = {old[inner]: None for old in around}  # fields that get other names, in their order

    def properties(self, fields: dict[str, T]) -> dict[str, T]:
        """Returns an object's properties; where there are no globs, names are not looked at one by one."""
        if self._left_out is None:
            return self._one_by_one(fields)
        found = fields.copy()
        for name in self._left_out & fields.keys():
            del found[name]
        if self._renamed:
            moved = [(new, found.pop(old)) for old, new in self._renamed.items() if old in found]
            _add(found, moved)
        return found

    def _one_by_one(self, fields: dict[str, T]) -> dict[str, T]:
        moving, known = self._moving, self._known
        found = {
            new: value
            for name, value in fields.items()
            if name not in moving and (new := known[name]) is not None
        }
        if moving:
            moved = ((known[name], fields[name]) for name in moving if name in fields)
            _add(found, ((new, value) for new, value in moved if new is not None))
        return found

    def of(self, name: str) -> str | None:
        """Returns what a field's property is called, or None if it has none."""
        return self._known[name]


class _Known(dict[str, str | None]):
    """What fields' properties are called, worked out once for each name, as it is asked for."""

    def __init__(self, rules: NameRules, prefix: str, suffix: str, without: frozenset[str]) -> None:
        super().__init__()
        self._rules, self._prefix, self._suffix, self._without = rules, prefix, suffix, without

    def __missing__(self, name: str) -> str | None:
        if len(self) >= MOST_NAMES:
            self.clear()
        new = None if name in self._without else self._rules.applied(f"{self._prefix}{name}{self._suffix}")
        self[name] = new
        return new
