"""Prepares whole blocks of updates: the fast path, which clears most of them without a look at each.

A block is decoded once, into only what the rules need, and keeps its source bytes; stamps are spliced in
behind the brace of each line. What cannot be cleared that way goes line by line through
`profile_rules.check_update`, which is the judge. A property test holds both to one verdict and one record.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, Final

import msgspec
import xxhash

from mixpanel_http.block_checks import disallowed_ids, is_utf8
from mixpanel_http.endpoints import TO_GROUPS, TO_PEOPLE, TO_PEOPLE_ONCE
from mixpanel_http.event_pieces import pieces_of
from mixpanel_http.event_rules import DEFAULTED_IP, Place
from mixpanel_http.prepared import PreparedRecords
from mixpanel_http.profile_rules import (
    KEPT_LAST_SEEN,
    MODIFIERS,
    NOT_IDEMPOTENT,
    ProfileRules,
    check_update,
    profile_key,
)
from mixpanel_http.record_syntax import BLANK
from mixpanel_http.verdicts import RecordRefused, Rejection

# A shorter line cannot hold more properties than a profile may have, nor a value that is too large.
_SHORT: Final = 10_000
_JUDGED_BYTES: Final = 1 << 12  # of a piece that is not clean: below, line by line; above, by halves
_UNSET: Final = msgspec.UNSET
_digest: Final = xxhash.xxh3_64_intdigest


class _Object(msgspec.Struct, gc=False):
    """Any object; nothing in it is looked at."""


class _Update(msgspec.Struct, gc=False):
    distinct_id: str | msgspec.UnsetType = msgspec.field(name="$distinct_id", default=_UNSET)
    group_key: str | msgspec.UnsetType = msgspec.field(name="$group_key", default=_UNSET)
    group_id: str | msgspec.UnsetType = msgspec.field(name="$group_id", default=_UNSET)
    token: Any = msgspec.field(name="$token", default=_UNSET)
    ip: Any = msgspec.field(name="$ip", default=_UNSET)
    ignore_time: Any = msgspec.field(name="$ignore_time", default=_UNSET)
    set: _Object | msgspec.UnsetType = msgspec.field(name="$set", default=_UNSET)
    set_once: _Object | msgspec.UnsetType = msgspec.field(name="$set_once", default=_UNSET)
    remove: _Object | msgspec.UnsetType = msgspec.field(name="$remove", default=_UNSET)
    append: _Object | msgspec.UnsetType = msgspec.field(name="$append", default=_UNSET)
    add: dict[str, int | float] | msgspec.UnsetType = msgspec.field(name="$add", default=_UNSET)
    union: dict[str, list[Any]] | msgspec.UnsetType = msgspec.field(name="$union", default=_UNSET)
    unset: list[str] | msgspec.UnsetType = msgspec.field(name="$unset", default=_UNSET)
    delete: Any = msgspec.field(name="$delete", default=_UNSET)


_decoder: Final = msgspec.json.Decoder(_Update)
_row_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode: Final = msgspec.json.Encoder().encode
_OBJECTS: Final = frozenset({"$set", "$set_once", "$append", "$remove"})  # whose value is a row as it stands


def prepare_updates(
    raw: bytes, rules: ProfileRules, now_s: float = 0.0, place: Callable[[int], Place] | None = None
) -> PreparedRecords:
    """Returns a block's updates ready to be sent, with the route and the profile's key of each.

    Args:
        raw: whole lines, the last with or without its newline.
        rules: what the run asks.
        now_s: not used: no rule of updates knows the time.
        place: not used: no id is stamped.
    """
    if not raw:
        return PreparedRecords(b"", 0, kept=())
    assembly = _Assembly(rules)
    body = raw.removesuffix(b"\n")
    for piece in pieces_of(body):
        assembly.add(piece)
    return assembly.finished()


class _Assembly:
    """Puts the pieces of a block together, each by the fast path where it is clean and else line by line."""

    def __init__(self, rules: ProfileRules) -> None:
        self._rules = rules
        self._lines = 0
        self._blank = 0
        self._out: list[bytes] = []
        self._kept: list[range] = []
        self._rejections: list[Rejection] = []
        self._keys = array("Q")
        self._routes: list[bytes] = []
        self._alterations: Counter[str] = Counter()
        stamps = b'"$ip":0,' if rules.default_ip and not rules.groups else b""
        if rules.ignore_time and not rules.groups:
            stamps += b'"$ignore_time":true,'
        if rules.groups and rules.group_key is not None:
            stamps = b'"$group_key":%b,' % _encode(rules.group_key)
        self._stamps = stamps

    def finished(self) -> PreparedRecords:
        """Returns the block."""
        count = sum(map(len, self._kept))
        every = count == self._lines
        return PreparedRecords(
            b"\n".join(self._out),
            count,
            None if every else tuple(index for run in self._kept for index in run),
            tuple(self._rejections),
            self._blank,
            alterations=self._alterations,
            keys=self._keys.tobytes(),
            routes=b"".join(self._routes),
        )

    def add(self, piece: bytes) -> None:
        """Adds lines: as a whole where they are clean, else by halves, and at last line by line."""
        if self._add_clean(piece):
            return
        middle = piece.find(b"\n", len(piece) // 2) if len(piece) > _JUDGED_BYTES else -1
        if middle < 0:
            for line in piece.split(b"\n"):
                self._judge(line)
            return
        self.add(piece[:middle])
        self.add(piece[middle + 1 :])

    def _add_clean(self, piece: bytes) -> bool:
        """Adds lines if they all are clean, and returns whether they are."""
        # Chosen here: kept as a bound method the choice would hold its own object, and so the block's bytes,
        # until the garbage collector comes.
        return self._add_operations(piece) if self._rules.id_field is None else self._add_rows(piece)

    def _add_operations(self, piece: bytes) -> bool:
        """Adds clean updates, with what is missing stamped; returns whether they all are clean."""
        updates = _decode(piece)
        if updates is None or not _are_clean(updates, self._rules):
            return False
        if self._stamps and not _have_nothing_stamped(updates, self._rules):
            return False
        stamped = self._stamped(piece, len(updates))
        self._take(_keys(updates, self._rules), _routes(updates, self._rules), stamped)
        return True

    def _add_rows(self, piece: bytes) -> bool:
        """Adds flat rows that hold nothing but an id and properties; returns whether they all do."""
        rows = _decode_rows(piece, self._rules)
        if rows is None:
            return False
        field, opening = str(self._rules.id_field), b'{"$distinct_id":%b,"' + self._rules.operation.encode()
        ids = [bytes(row.pop(field)) for row in rows]
        if not _are_plain_ids(ids):
            return False
        line = opening + b'":%b}'
        lines = [line % (own, _encode(row)) for own, row in zip(ids, rows, strict=True)]
        route = bytes([_route(self._rules, self._rules.operation not in NOT_IDEMPOTENT)])
        stamped = self._stamped(b"\n".join(lines), len(lines))
        self._take([_digest(own[1:-1]) for own in ids], route * len(lines), stamped)
        return True

    def _take(self, keys: list[int], routes: bytes, lines: bytes) -> None:
        self._keys.extend(keys)
        self._routes.append(routes)
        self._out.append(lines)
        self._kept.append(range(self._lines, self._lines + len(keys)))
        self._lines += len(keys)

    def _stamped(self, piece: bytes, count: int) -> bytes:
        """Returns updates with what the run stamps, none of which have it already."""
        if not self._stamps:
            return piece
        for name, applies in (
            (DEFAULTED_IP, self._rules.default_ip),
            (KEPT_LAST_SEEN, self._rules.ignore_time),
        ):
            if applies and not self._rules.groups:
                self._alterations[name] += count
        return b"{" + self._stamps + piece[1:].replace(b"\n{", b"\n{" + self._stamps)

    def _judge(self, line: bytes) -> None:
        index = self._lines
        self._lines += 1
        if not line.strip(BLANK):
            self._blank += 1
            return
        try:
            accepted = check_update(line, self._rules)
        except RecordRefused as refused:
            self._rejections.append(refused.rejection(index))
            return
        self._alterations.update(accepted.alterations)
        self._keys.append(accepted.key)
        self._routes.append(bytes([_route(self._rules, accepted.repeatable)]))
        self._out.append(accepted.line)
        self._kept.append(range(index, index + 1))


def _decode(piece: bytes) -> list[_Update] | None:
    """Returns a piece's updates, or None where a line is not certainly one of them."""
    if not _are_short_objects(piece):
        return None
    try:
        updates: list[_Update] = _decoder.decode_lines(piece)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return None
    return updates if len(updates) == piece.count(b"\n") + 1 else None


def _are_short_objects(piece: bytes) -> bool:
    """Returns whether each line goes from `{` to `}`, and is too short to break a limit."""
    if piece[:1] != b"{" or piece[-1:] != b"}" or piece.count(b"}\n{") != piece.count(b"\n"):
        return False
    return is_utf8(piece) and (len(piece) < _SHORT or max(map(len, piece.split(b"\n"))) < _SHORT)


def _decode_rows(piece: bytes, rules: ProfileRules) -> list[dict[str, msgspec.Raw]] | None:
    """Returns a piece's rows, or None where one is not certainly an id with properties, for a plain object.

    Values are not decoded, so that nothing would be said of half a character as an escape.
    """
    if rules.groups or rules.operation not in _OBJECTS or b"\\u" in piece or not _are_short_objects(piece):
        return None
    try:
        rows: list[dict[str, msgspec.Raw]] = _row_decoder.decode_lines(piece)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return None
    if len(rows) != piece.count(b"\n") + 1 or not all(rules.id_field in row for row in rows):
        return None
    return rows if all(map(MODIFIERS.isdisjoint, rows)) else None


def _are_plain_ids(ids: Sequence[bytes]) -> bool:
    """Returns whether ids are texts without escapes that Mixpanel takes."""
    if b"\\" in b"".join(ids) or any(own[:1] != b'"' for own in ids):
        return False
    texts = [own[1:-1].decode() for own in ids]
    return "" not in texts and not disallowed_ids(texts)


def _are_clean(updates: Sequence[_Update], rules: ProfileRules) -> bool:
    """Returns whether no rule speaks against any of some updates."""
    if any(u.token is not _UNSET for u in updates) or any(_operations(u) != 1 for u in updates):
        return False
    if any(u.union == {} or u.unset == [] for u in updates):
        return False
    if any([] in u.union.values() for u in updates if isinstance(u.union, dict)):
        return False
    if rules.groups:
        named = all(u.group_id and (u.group_key or rules.group_key is not None) for u in updates)
        return named and all(u.add is _UNSET and u.append is _UNSET for u in updates)
    ids = [u.distinct_id for u in updates]
    return _UNSET not in ids and "" not in ids and not disallowed_ids(ids)  # type: ignore[arg-type]


def _have_nothing_stamped(updates: Sequence[_Update], rules: ProfileRules) -> bool:
    """Returns whether none of some updates has what the run stamps on those without it."""
    if rules.groups:
        return all(u.group_key is _UNSET for u in updates)
    return all(u.ip is _UNSET and u.ignore_time is _UNSET for u in updates)


def _operations(u: _Update) -> int:
    return (
        (u.set is not _UNSET)
        + (u.set_once is not _UNSET)
        + (u.remove is not _UNSET)
        + (u.append is not _UNSET)
        + (u.add is not _UNSET)
        + (u.union is not _UNSET)
        + (u.unset is not _UNSET)
        + (u.delete is not _UNSET)
    )


def _keys(updates: Sequence[_Update], rules: ProfileRules) -> list[int]:
    if rules.groups:
        return [profile_key(str(u.group_id), str(u.group_key or rules.group_key)) for u in updates]
    return [_digest(str(u.distinct_id).encode()) for u in updates]


def _routes(updates: Sequence[_Update], rules: ProfileRules) -> bytes:
    if rules.groups or not any(u.add is not _UNSET or u.append is not _UNSET for u in updates):
        return bytes(repeat(_route(rules, repeatable=True), len(updates)))
    return bytes(_route(rules, u.add is _UNSET and u.append is _UNSET) for u in updates)


def _route(rules: ProfileRules, repeatable: bool) -> int:
    if rules.groups:
        return TO_GROUPS
    return TO_PEOPLE if repeatable else TO_PEOPLE_ONCE
