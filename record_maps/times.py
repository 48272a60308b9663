"""Reads an event's time, as it is written in the source, into what Mixpanel takes. Nothing is guessed."""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from collections.abc import Callable
from functools import lru_cache
from typing import Final, NoReturn

import msgspec

from mixpanel_http.verdicts import Reason, RecordRefused
from record_maps.spec import TIME_FORMATS, TimeSpec

FIELD: Final = "properties.time"
Moment = tuple[msgspec.Raw, float]
"""A time as it is sent, in seconds or milliseconds, and the same in seconds."""

Read = Callable[[msgspec.Raw], Moment]
FromNumber = Callable[[float, "msgspec.Raw | None"], Moment]
"""Takes a number, and how it was written if that may be sent."""

_UTC_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
_EPOCH: Final = _UTC_EPOCH.replace(tzinfo=None)
_MS: Final = dt.timedelta(milliseconds=1)
_iso: Final = msgspec.json.Decoder(dt.datetime).decode
_encode: Final = msgspec.json.Encoder().encode
_scalar: Final[Callable[[msgspec.Raw], str | int | float]] = msgspec.json.Decoder(str | int | float).decode
# What exports write beside RFC 3339: no time of day, no seconds, a comma, any fraction, UTC in letters.
_ISO: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)"
    r"(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)?"
    r" ?(?:([Zz]|UTC|GMT)|([+-])(\d\d):?(\d\d)?)?"
).fullmatch
_NUMBER: Final = re.compile(r"-?\d{1,20}(\.\d+)?").fullmatch
_HOURS: Final = 24
_MINUTES: Final = 60
# Units of `auto`, by size: up to the year 5138 in each, from 1973 on.
_AUTO_MS: Final = 1e11
_AUTO_US: Final = 1e14
_AUTO_NS: Final = 1e17
_AUTO_END: Final = 1e20
_PER_SECOND: Final = {"seconds": 1, "milliseconds": 1000, "microseconds": 1_000_000}


def compile_time(spec: TimeSpec) -> Read:
    """Returns the function from a time as it came to what is sent; it raises RecordRefused for what is none.

    A whole number of seconds or milliseconds stays as it came. Everything else becomes whole milliseconds.
    """
    zone = None if spec.zone == "UTC" else zoneinfo.ZoneInfo(spec.zone)
    send = _sending(round(spec.offset_s * 1000))
    if "%" in spec.format:  # a day like 20240305 may be a number
        return lambda raw: send(_of_pattern(str(_value(raw)), spec.format, zone))
    if spec.format == "iso8601":
        return _reading_iso(zone, send, None)
    from_number = _reading_numbers(spec, zone, send)
    return (
        _reading_iso(zone, send, from_number) if spec.format == "auto" else _reading_unit(spec, from_number)
    )


def _sending(add_ms: int) -> Callable[[int], Moment]:
    """Returns the function from milliseconds since the epoch to what is sent, some milliseconds later."""

    def send(ms: int) -> Moment:
        total = ms + add_ms
        if abs(total) < _AUTO_MS:  # Mixpanel takes so few milliseconds for seconds
            return msgspec.Raw(_encode(total / 1000 if total % 1000 else total // 1000)), total / 1000
        return msgspec.Raw(b"%d" % total), total / 1000

    return send


def _reading_iso(
    zone: zoneinfo.ZoneInfo | None, send: Callable[[int], Moment], from_number: FromNumber | None
) -> Read:
    """Returns what reads ISO 8601, and numbers if something reads them; RFC 3339 is decoded in one call."""

    def read(raw: msgspec.Raw) -> Moment:
        try:
            moment = _iso(raw)
        except msgspec.DecodeError:
            pass
        else:
            return send(_ms_of(moment, zone))
        value = _value(raw)
        if isinstance(value, str):
            if from_number is not None and _NUMBER(value):
                return from_number(_number(value), None)
            return send(_of_iso(value, zone))
        if from_number is None:
            _refuse("a number, where text is expected")
        return from_number(value, raw)

    return read


def _reading_unit(spec: TimeSpec, from_number: FromNumber) -> Read:
    """Returns what reads numbers of one unit, also those that stand in texts."""

    def read(raw: msgspec.Raw) -> Moment:
        value = _value(raw)
        if not isinstance(value, str):
            return from_number(value, raw)
        if not _NUMBER(value):
            _refuse(f"text that is no number of {spec.format}")
        return from_number(_number(value), None)

    return read


def _reading_numbers(
    spec: TimeSpec, zone: zoneinfo.ZoneInfo | None, send: Callable[[int], Moment]
) -> FromNumber:
    """Returns what reads a number, in the unit that is declared or else by its size."""
    declared = _PER_SECOND.get(spec.format)
    may_stay = not round(spec.offset_s * 1000) and not spec.wall_clock

    def from_number(value: float, raw: msgspec.Raw | None) -> Moment:
        by_size = unit_of(value)
        per_second = declared or by_size
        if may_stay and raw is not None and per_second == by_size and per_second <= 1000:
            return raw, value / per_second
        ms = value * 1000 // per_second
        if spec.wall_clock and zone is not None:
            ms = _ms_of(_clock(int(ms)), zone)
        return send(int(ms))

    return from_number


def _number(text: str) -> float:
    return float(text) if "." in text else int(text)


def check_time_format(given: str) -> str:
    """Returns the name of a format or a pattern, or raises a ValueError that says what there is."""
    if given in TIME_FORMATS:
        return given
    if "%" not in given:
        raise ValueError(f"must be one of {', '.join(TIME_FORMATS)}, or a pattern like %d.%m.%Y %H:%M:%S")
    directives = set(_DIRECTIVES(given))
    unknown = sorted(directives - _KNOWN_DIRECTIVES)
    if unknown:
        raise ValueError(f"{unknown[0]} stands for nothing in a pattern; one looks like %d.%m.%Y %H:%M:%S")
    if not directives & _YEARS:
        raise ValueError(f"a pattern without a year (%Y) makes no time of {given!r}")
    return given


_DIRECTIVES: Final = re.compile(r"%.?", re.DOTALL).findall
# https://docs.python.org/3/library/datetime.html#format-codes
_KNOWN_DIRECTIVES: Final = frozenset(f"%{code}" for code in "aAwdbBmyYHIpMSfzZjUWcxXGuV%")
_YEARS: Final = frozenset({"%Y", "%y", "%c", "%x", "%G"})


@lru_cache(maxsize=1024)
def day_start(day: dt.date) -> float:
    """Returns when a day begins in UTC, in seconds since the epoch.

    >>> day_start(dt.date(1970, 1, 2))
    86400.0
    """
    return (day - _UTC_EPOCH.date()).total_seconds()


def _value(raw: msgspec.Raw) -> str | int | float:
    try:
        return _scalar(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        _refuse("neither text nor a number")


def unit_of(value: float) -> int:
    """Returns how many of a number's units are a second, by its size."""
    size = abs(value)
    if size < _AUTO_MS:
        return 1
    if size < _AUTO_US:
        return 1000
    if size < _AUTO_NS:
        return 1_000_000
    if size >= _AUTO_END:
        _refuse("a number too large for a time")
    return 1_000_000_000


def _of_iso(text: str, zone: zoneinfo.ZoneInfo | None) -> int:
    """Returns a moment in milliseconds since the epoch."""
    clock, shift, utc = iso_clock(text)
    return _ms(clock - _EPOCH - shift) if shift is not None else _ms_of(clock, None if utc else zone)


def iso_clock(text: str) -> tuple[dt.datetime, dt.timedelta | None, bool]:
    """Returns what a clock showed, by how much it was ahead of UTC, if that is said, and if it was UTC's.

    Raises:
        RecordRefused: if a text is no time in ISO 8601.
    """
    match = _ISO(text.strip())
    if match is None:
        _refuse("no time in ISO 8601")
    year, month, day, hour, minute, second, fraction, utc, sign, hours, minutes = match.groups()
    try:
        date = dt.date(int(year), int(month), int(day))
        micros = int((fraction or "0").ljust(6, "0")[:6])
        clock = dt.datetime.combine(date, dt.time(int(hour or 0), int(minute or 0), int(second or 0), micros))
    except ValueError:
        _refuse("a time that does not exist")
    if not sign:
        return clock, None, bool(utc)
    if int(hours) >= _HOURS or int(minutes or 0) >= _MINUTES:
        _refuse("a time with an offset that does not exist")
    shift = dt.timedelta(hours=int(hours), minutes=int(minutes or 0))
    return clock, shift if sign == "+" else -shift, False


def _of_pattern(text: str, pattern: str, zone: zoneinfo.ZoneInfo | None) -> int:
    try:
        moment = dt.datetime.strptime(text, pattern)  # noqa: DTZ007 - the zone comes next
    except ValueError as error:
        is_no_day = str(error).startswith("day ")  # the 31st of a month that has 30, or the 366th of a year
        _refuse("a time that does not exist" if is_no_day else f"no time in the format {pattern}")
    return _ms_of(moment, zone)


def _clock(ms: int) -> dt.datetime:
    try:
        return _EPOCH + ms * _MS
    except OverflowError:
        _refuse("a number too large for a time")


def _ms_of(moment: dt.datetime, zone: zoneinfo.ZoneInfo | None) -> int:
    """Returns a moment in milliseconds since the epoch.

    Of a local time that the clocks showed twice, when they went back, the first is taken. One that they
    leapt over never was, and is refused.
    """
    if moment.tzinfo is not None:
        return _ms(moment - _UTC_EPOCH)
    if zone is None:
        return _ms(moment - _EPOCH)
    shift = zone.utcoffset(moment)
    assert shift is not None
    since = moment - _EPOCH - shift
    there = zone.utcoffset(moment.replace(fold=1))
    if shift != there and _shown(zone, since) != moment:
        _refuse(f"a time that the clocks of {zone.key} leapt over")
    return _ms(since)


def _ms(since: dt.timedelta) -> int:
    # A division of timedeltas takes three times as long.
    return since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000


def _shown(zone: zoneinfo.ZoneInfo, since: dt.timedelta) -> dt.datetime:
    """Returns what the clocks of a zone showed at a moment."""
    return (_UTC_EPOCH + since).astimezone(zone).replace(tzinfo=None)


def _refuse(what: str) -> NoReturn:
    raise RecordRefused.of_field(Reason.BAD_TIME, FIELD, f"it is {what}")
