"""The rules of `$identify`, `$create_alias` and `$merge`: who is who, in projects with original identity.

They go to `/import` without time and `$insert_id`; done twice is as good as once. Mixpanel stores those that
break a rule, and leaves out the link without a word; so they are refused here, also where a cluster of ids
would grow beyond what Mixpanel takes, as far as this process has seen it grow.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import msgspec
import xxhash

from mixpanel_http import limits
from mixpanel_http.endpoints import TO_EVENTS
from mixpanel_http.event_rules import IdentityModel, Place
from mixpanel_http.flaws import IDENTITY_EVENT
from mixpanel_http.prepared import PreparedRecords
from mixpanel_http.record_syntax import BLANK, decode_object, decode_value, raw_object
from mixpanel_http.verdicts import Reason, RecordRefused, Rejection

# https://docs.mixpanel.com/docs/tracking-methods/id-management/identifying-users-original
_UUID4: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE
).fullmatch
MOST_KNOWN: Final = 1_000_000  # links remembered, in some 150 MB; beyond, the cap is not checked

_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class IdentityRules:
    """What a run asks of its identity records.

    Attributes:
        model: the project's identity model; a simplified one takes none of these records.
    """

    model: IdentityModel = "original"


class Clusters:
    """Which ids are one user, as far as they have been seen."""

    def __init__(self) -> None:
        """Knows nobody."""
        self._above: dict[int, int] = {}
        self._sizes: dict[int, int] = {}

    def would_be(self, one: str, other: str) -> int:
        """Returns how many ids would be one user if these two were."""
        first, second = self._top(_digest(one)), self._top(_digest(other))
        if first == second:
            return self._sizes.get(first, 1)
        return self._sizes.get(first, 1) + self._sizes.get(second, 1)

    def join(self, one: str, other: str) -> None:
        """Notes that two ids are one user."""
        first, second = self._top(_digest(one)), self._top(_digest(other))
        if first == second or len(self._above) >= MOST_KNOWN:
            return
        self._sizes[first] = self._sizes.get(first, 1) + self._sizes.pop(second, 1)
        self._above[second] = first

    def _top(self, digest: int) -> int:
        while (above := self._above.get(digest)) is not None:
            over = self._above.get(above)
            if over is None:
                return above
            self._above[digest] = over
            digest = over
        return digest


def _digest(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode())


def check_identity(line: bytes, rules: IdentityRules, clusters: Clusters) -> bytes:
    """Returns an identity record as it is to be sent; notes in `clusters` whom it makes one.

    >>> line = b'{"event": "$merge", "properties": {"$distinct_ids": ["a", "b"]}}'
    >>> check_identity(line, IdentityRules(), Clusters()) == line
    True

    Raises:
        RecordRefused: if Mixpanel would refuse the record, or take it without linking anybody.
    """
    record = decode_object(line)
    event = decode_value(record["event"]) if "event" in record else None
    if not isinstance(event, str) or event not in limits.IDENTITY_EVENTS:
        _refuse("event", f"must be one of {', '.join(sorted(limits.IDENTITY_EVENTS))}")
    if rules.model == "simplified":
        raise IDENTITY_EVENT.refusal()
    try:
        properties = raw_object(record["properties"])
    except (KeyError, msgspec.ValidationError):
        _refuse("properties", "must be an object")
    one, other = _ids_of(event, properties)
    if clusters.would_be(one, other) > limits.MAX_CLUSTER_IDS:
        raise RecordRefused(
            Reason.CLUSTER_FULL,
            "properties",
            f"would make more than {limits.MAX_CLUSTER_IDS} ids one user; Mixpanel leaves the link out",
        )
    clusters.join(one, other)
    if "token" not in properties and "$token" not in record:
        return line.strip(b" \t\r\n")
    kept = {name: value for name, value in properties.items() if name != "token"}
    others = {name: value for name, value in record.items() if name != "$token"}
    return _encode({**others, "properties": msgspec.Raw(_encode(kept))})


def _ids_of(event: str, properties: Mapping[str, msgspec.Raw]) -> tuple[str, str]:
    """Returns the two ids that a record makes one."""
    if event == "$merge":
        ids = _value(properties, "$distinct_ids")
        if not isinstance(ids, list) or len(ids) != 2 or not all(isinstance(i, str) and i for i in ids):
            _refuse("properties.$distinct_ids", "must be exactly two strings")
        return ids[0], ids[1]
    if event == "$create_alias":
        return _text(properties, "distinct_id"), _text(properties, "alias")
    known = "$identified_id" if "$identified_id" in properties else "distinct_id"
    anonymous = _text(properties, "$anon_id")
    if not _UUID4(anonymous):
        _refuse("properties.$anon_id", "must be a UUID of version 4; Mixpanel links no other id")
    return _text(properties, known), anonymous


def _text(properties: Mapping[str, msgspec.Raw], name: str) -> str:
    value = _value(properties, name)
    if not isinstance(value, str) or not value:
        _refuse(f"properties.{name}", "must be a string that is not empty")
    if value.lower() in limits.DISALLOWED_IDS:
        raise RecordRefused.of_field(Reason.DISALLOWED_ID, f"properties.{name}", "is a disallowed value")
    return str(value)


def _value(properties: Mapping[str, msgspec.Raw], name: str) -> Any:
    return decode_value(properties[name]) if name in properties else None


def _refuse(field: str, problem: str) -> NoReturn:
    raise RecordRefused.of_field(Reason.BAD_IDENTITY_EVENT, field, problem)


class PrepareIdentity:
    """Prepares blocks of identity records one after the other, and remembers whom they made one."""

    def __init__(self) -> None:
        """Knows nobody."""
        self._clusters = Clusters()

    def __reduce__(self) -> tuple[type[PrepareIdentity], tuple[()]]:
        """A worker starts without memory."""
        return PrepareIdentity, ()

    def __call__(
        self, raw: bytes, rules: IdentityRules, now_s: float, place: Callable[[int], Place] | None = None, /
    ) -> PreparedRecords:
        """Returns a block's records ready to be sent, all of them one after the other."""
        accepted: list[tuple[int, bytes]] = []
        rejections: list[Rejection] = []
        lines = raw.removesuffix(b"\n").split(b"\n") if raw else []
        blank = 0
        for index, line in enumerate(lines):
            if not line.strip(BLANK):
                blank += 1
                continue
            try:
                accepted.append((index, check_identity(line, rules, self._clusters)))
            except RecordRefused as refused:
                rejections.append(refused.rejection(index))
        return PreparedRecords(
            b"\n".join(line for _, line in accepted),
            len(accepted),
            None if len(accepted) == len(lines) else tuple(index for index, _ in accepted),
            tuple(rejections),
            blank,
            keys=array("Q", [0] * len(accepted)).tobytes(),
            routes=bytes([TO_EVENTS]) * len(accepted),
        )
