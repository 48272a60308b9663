"""When updates were made, by a field of theirs: what they are ordered by where the input is in no order.

Plain values; no Beam here. A line that is no object has no time and no fault here: others refuse it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from mixpanel_http.verdicts import Reason, RecordRefused
from record_maps.times import iso_clock, unit_of
from source_formats.lines import RefusedLine

_NS: Final = 1_000_000_000
_US: Final = dt.timedelta(microseconds=1)
_EPOCH: Final = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - clocks are brought to UTC before
_UTC_EPOCH: Final = _EPOCH.replace(tzinfo=dt.timezone.utc)
_END: Final = 1 << 63  # nanoseconds until the year 2262
_convert: Final = msgspec.convert
Moment = int
"""Nanoseconds since the epoch."""


def moments(lines: Sequence[bytes], field: str) -> list[Moment | RefusedLine | None]:
    r"""Returns when each of some updates was made, or why that cannot be told; None for what is no object.

    >>> moments([b'{"at": 1700000000}', b'{"at": "2023-11-14 22:13:20.5Z"}', b"[]"], "at")
    [1700000000000000000, 1700000000500000000, None]

    Args:
        lines: the updates.
        field: the field of each that holds its time.
    """
    decoder = _decoder(field)
    try:
        found = decoder.decode_lines(b"\n".join(lines)) if b"" not in lines else []
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        found = []
    if len(found) != len(lines):  # blank lines are left out
        found = [_decoded(decoder.decode, line) for line in lines]
    return [None if one is None else _moment(index, one.at, field) for index, one in enumerate(found)]


def moment_of(value: object) -> Moment:
    """Returns a time as it stands in a record: ISO 8601, UTC where it names no zone, or a number.

    Numbers count seconds, milliseconds, microseconds or nanoseconds, as their size tells.

    >>> moment_of("1700000000") == moment_of(1700000000000) == moment_of("2023-11-14T23:13:20+01:00")
    True

    Raises:
        RecordRefused: if it is no time.
    """
    if isinstance(value, str):
        return _of_text(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RecordRefused(Reason.BAD_TIME, None, "neither text nor a number")
    if abs(value) >= _END:
        raise RecordRefused(Reason.BAD_TIME, None, "beyond the year 2262")
    return _bounded(int(value * (_NS // unit_of(value))))


@lru_cache(maxsize=16)
def _decoder(field: str) -> msgspec.json.Decoder[Any]:
    at = (("at", Any, msgspec.field(name=field, default=None)),)
    return msgspec.json.Decoder(msgspec.defstruct("Timed", at, gc=False))


def _decoded(decode: Callable[[bytes], Any], line: bytes) -> Any:
    try:
        return decode(line)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return None


def _moment(index: int, value: object, field: str) -> Moment | RefusedLine:
    if value is None or value == "":
        told = "must not be missing, as updates are ordered by it (records.order_by)"
        return _refusal(index, Reason.MISSING_TIME, field, told)
    try:
        return moment_of(value)
    except RecordRefused as refused:
        told = f"must be a time, by which updates are ordered (records.order_by), and is {refused.message}"
        return _refusal(index, Reason.BAD_TIME, field, told)


def _refusal(index: int, reason: Reason, field: str, told: str) -> RefusedLine:
    return RefusedLine(index, reason.value, f"'{field}' is invalid: {told}", field, in_base64=False)


def _of_text(text: str) -> Moment:
    try:
        moment = _convert(text, dt.datetime)
    except msgspec.ValidationError:
        return _of_other_text(text.strip())
    since = moment - (_EPOCH if moment.tzinfo is None else _UTC_EPOCH)
    return _bounded(since // _US * 1000)


def _of_other_text(text: str) -> Moment:
    """Returns a time in a spelling of ISO 8601 that is not RFC 3339, or a number that stands in a text."""
    if text.removeprefix("-").replace(".", "", 1).isdecimal() and text.isascii():
        return moment_of(float(text) if "." in text else int(text))
    try:
        clock, shift, _ = iso_clock(text)
        return _bounded((clock - _EPOCH - (shift or dt.timedelta())) // _US * 1000)
    except RecordRefused:
        raise RecordRefused(Reason.BAD_TIME, None, "neither a time in ISO 8601 nor a number") from None


def _bounded(moment: int) -> Moment:
    if not -_END <= moment < _END:
        raise RecordRefused(Reason.BAD_TIME, None, "beyond the year 2262")
    return moment
