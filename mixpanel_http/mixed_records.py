"""Records that carry their own kind: events, updates of users and groups, and identity records in one source.

A line is `["people", {…}]` or `people::{…}`, with the endpoints' names in the official SDK (events, people,
groups, imports), or an object that tells by its keys. The messages in it are judged by the rules of their
kind; whatever token they carry is left out.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec
import xxhash
from msgspec import structs

from mixpanel_http import limits
from mixpanel_http.endpoints import TO_EVENTS
from mixpanel_http.event_blocks import prepare_events
from mixpanel_http.event_rules import EventRules, Place
from mixpanel_http.identity_rules import IdentityRules, PrepareIdentity
from mixpanel_http.prepared import PreparedRecords
from mixpanel_http.profile_blocks import prepare_updates
from mixpanel_http.profile_rules import OPERATIONS, ProfileRules
from mixpanel_http.record_syntax import BLANK, raw_object
from mixpanel_http.verdicts import Reason, Rejection

Sort: TypeAlias = Literal["events", "people", "groups", "identity"]
UNKNOWN: Final = "unknown"

_ARRAY: Final = re.compile(rb'[ \t]*\[[ \t]*"([a-z]+)"[ \t]*,').match
_LOGGED: Final = re.compile(rb"[ \t]*([a-z]+)::").match
_SORTS: Final[dict[bytes, Sort]] = {
    b"events": "events",
    b"imports": "events",
    b"people": "people",
    b"groups": "groups",
}
_TOKEN: Final = re.compile(rb'"(\$?token)"[ \t]*:[ \t]*"(?:[^"\\]|\\.)*"')
_encode: Final = msgspec.json.Encoder().encode
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Shape(msgspec.Struct, gc=False):
    event: Any = msgspec.UNSET
    group_key: Any = msgspec.field(name="$group_key", default=msgspec.UNSET)
    group_id: Any = msgspec.field(name="$group_id", default=msgspec.UNSET)
    distinct_id: Any = msgspec.field(name="$distinct_id", default=msgspec.UNSET)


_shape: Final = msgspec.json.Decoder(_Shape).decode


@dataclass(frozen=True, slots=True)
class MixedRules:
    """What a run asks of records of each kind."""

    events: EventRules = field(default_factory=EventRules)
    people: ProfileRules = field(default_factory=ProfileRules)
    groups: ProfileRules = field(default_factory=lambda: ProfileRules(groups=True))
    identity: IdentityRules = field(default_factory=IdentityRules)


class Message(NamedTuple):
    """What a line holds: a message, and what kind it is of; None where that cannot be told."""

    sort: Sort | None
    body: bytes


def message_of(line: bytes) -> Message:
    """Returns the message of a line, and its kind.

    >>> message_of(b'people::{"$distinct_id": "u"}')
    Message(sort='people', body=b'{"$distinct_id": "u"}')
    """
    if (array_ := _ARRAY(line)) and line.rstrip(BLANK)[-1:] == b"]":
        body = line[array_.end() :].rstrip(BLANK)[:-1].strip(b" \t")
        sort = _SORTS.get(array_[1])
    elif logged := _LOGGED(line):
        body = line[logged.end() :].strip(BLANK)
        sort = _SORTS.get(logged[1])
    else:
        return _by_shape(line)
    if sort == "events" and _is_identity(body):
        sort = "identity"
    return Message(sort, body)


def _by_shape(line: bytes) -> Message:
    """Returns the kind of an object that does not say it: by the keys that only one kind has."""
    try:
        shape = _shape(line)
    except _UNREADABLE:
        return Message("events", line)  # whose rules say best why a line cannot be read
    if shape.event is not msgspec.UNSET:
        return Message("identity" if shape.event in tuple(limits.IDENTITY_EVENTS) else "events", line)
    if shape.group_key is not msgspec.UNSET or shape.group_id is not msgspec.UNSET:
        return Message("groups", line)
    if shape.distinct_id is not msgspec.UNSET or not OPERATIONS.isdisjoint(raw_object(line)):
        return Message("people", line)
    return Message(None, line)


def _is_identity(body: bytes) -> bool:
    if not any(name.encode() in body for name in limits.IDENTITY_EVENTS):
        return False
    return _by_shape(body).sort == "identity"


def without_token(line: bytes) -> bytes:
    """Returns a line without the project's token, wherever the SDK writes it; as JSON where it can be read.

    >>> without_token(b'people::{"$token":"T","$distinct_id":"u"}')
    b'["people",{"$distinct_id":"u"}]'
    """
    told = _ARRAY(line) or _LOGGED(line)
    try:
        if not told:
            return _without_top(line) if b'"$token"' in line else line
        message = _without_top(message_of(line).body, deep=True)
        return b'["%b",%b]' % (told[1], message)
    except _UNREADABLE:
        return _TOKEN.sub(rb'"\1":""', line)


def _without_top(body: bytes, deep: bool = False) -> bytes:
    record = raw_object(body)
    record.pop("$token", None)
    if deep and "properties" in record and b'"token"' in bytes(record["properties"]):
        properties = raw_object(record["properties"])
        properties.pop("token", None)
        record["properties"] = msgspec.Raw(_encode(properties))
    return _encode(record)


class PrepareMixed:
    """Prepares blocks of records of all kinds, each by the rules of its own."""

    def __init__(self) -> None:
        """Knows nobody."""
        self._identity = PrepareIdentity()

    def __reduce__(self) -> tuple[type[PrepareMixed], tuple[()]]:
        """A worker starts without memory."""
        return PrepareMixed, ()

    def __call__(
        self, raw: bytes, rules: MixedRules, now_s: float, place: Callable[[int], Place] | None = None, /
    ) -> PreparedRecords:
        """Returns a block's records ready to be sent, in their order, with the route of each."""
        mixture = _Mixture()
        sorts: dict[Sort, list[tuple[int, bytes]]] = {}
        for index, line in enumerate(raw.removesuffix(b"\n").split(b"\n") if raw else ()):
            if not line.strip(BLANK):
                mixture.blank += 1
                continue
            sort, body = message_of(line)
            if sort is None or not body:
                mixture.refuse_unknown(index)
                continue
            if b'"token"' in body or b'"$token"' in body:
                body = _readable_without_token(body)
            sorts.setdefault(sort, []).append((index, body))
        for sort, messages in sorts.items():
            lines = [index for index, _ in messages]
            body = b"\n".join(message for _, message in messages) + b"\n"
            mixture.add(sort, lines, self._prepare(sort, body, rules, now_s, _moved(place, lines)))
        return mixture.finished()

    def _prepare(
        self, sort: Sort, body: bytes, rules: MixedRules, now_s: float, place: Callable[[int], Place] | None
    ) -> PreparedRecords:
        if sort == "events":
            return prepare_events(body, rules.events, now_s, place)
        if sort == "identity":
            return self._identity(body, rules.identity, now_s)
        return prepare_updates(body, rules.people if sort == "people" else rules.groups)


def _readable_without_token(body: bytes) -> bytes:
    try:
        return _without_top(body, deep=True)
    except _UNREADABLE:
        return body  # the rules say why it cannot be read


def _moved(place: Callable[[int], Place] | None, lines: Sequence[int]) -> Callable[[int], Place] | None:
    return None if place is None else lambda index: place(lines[index])


class _Mixture:
    """Puts what became of a block's kinds together again, in the order of its lines."""

    def __init__(self) -> None:
        self.blank = 0
        self._accepted: list[tuple[int, bytes, int, int]] = []  # line, record, key, route
        self._rejections: list[Rejection] = []
        self._ids: list[str] = []
        self._alterations: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()

    def refuse_unknown(self, line: int) -> None:
        message = 'must be ["endpoint", {…}], endpoint::{…}, an event, or an update of a user or group'
        self._rejections.append(Rejection(line, Reason.UNKNOWN_KIND.value, None, message))
        self._refused[UNKNOWN] += 1

    def add(self, sort: Sort, lines: Sequence[int], records: PreparedRecords) -> None:
        """Adds the records of a kind, which came from some lines."""
        bodies = records.body.split(b"\n") if records.count else []
        keys = array("Q", records.keys) if records.keys else [_digest(body) for body in bodies]
        routes = records.routes or bytes([TO_EVENTS]) * records.count
        kept = range(records.count) if records.kept is None else records.kept
        for own, body, key, route in zip(kept, bodies, keys, routes, strict=True):
            self._accepted.append((lines[own], body, key, route))
        for rejection in records.rejections:
            self._rejections.append(structs.replace(rejection, index=lines[rejection.index]))
        self._refused[_ENDPOINT_OF[sort]] += len(records.rejections)
        self._ids += records.stamped_ids
        self._alterations.update(records.alterations)

    def finished(self) -> PreparedRecords:
        """Returns the block."""
        accepted = sorted(self._accepted)
        return PreparedRecords(
            b"\n".join(body for _, body, _, _ in accepted),
            len(accepted),
            tuple(line for line, _, _, _ in accepted),
            tuple(sorted(self._rejections, key=lambda rejection: rejection.index)),
            self.blank,
            stamped_ids=tuple(self._ids),
            alterations=self._alterations,
            keys=array("Q", [key for _, _, key, _ in accepted]).tobytes(),
            routes=bytes(route for _, _, _, route in accepted),
            refused=+self._refused,
        )


_ENDPOINT_OF: Final[dict[Sort, str]] = {
    "events": "events",
    "identity": "events",
    "people": "people",
    "groups": "groups",
}
_digest: Final = xxhash.xxh3_64_intdigest
