"""What a text in a table means: by the type that its column is declared to have, or by how it is spelled."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import msgspec

FieldType = Literal["string", "integer", "number", "boolean", "json", "timestamp"]

# Beyond 15 digits a double is not exact, and a long number is mostly an id; so is one with a leading zero.
_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,14})").fullmatch
_DECIMAL: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,14})\.[0-9]{1,15}").fullmatch
_EXACT_CHARACTERS: Final = 16  # a decimal of so many has 15 digits at most
_NUMBER: Final = r"(?:-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,15})?)?"  # or nothing
_NUMBERS: Final = re.compile(rf"{_NUMBER}(?:\n{_NUMBER})*").fullmatch
_ANY_INTEGER: Final = re.compile(r"[+-]?[0-9]+").fullmatch
_ANY_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?").fullmatch
_EPOCH: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]+)?").fullmatch
_ISO: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?)?"
    r" ?(Z|UTC|[+-][0-9]{2}:?[0-9]{2}|[+-][0-9]{2})?"
).fullmatch
_TELLING: Final = frozenset(["", *"-0123456789tTfF"])  # what is no string begins with one of these
_BOOLEANS: Final = {"true": True, "false": False}
_UNIX: Final = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
_check_json: Final = msgspec.json.Decoder(msgspec.Raw).decode
_LONG: Final = 15
_SAMPLE: Final = 64
_REPEATED: Final = 4  # so often on average, and it pays to parse each text only once


def infer(text: str) -> Any:
    """Returns what a text that is not empty means by its spelling alone.

    It is a number only where a number keeps all that the text says: neither a leading zero nor more than 15
    digits, nor an exponent. So `007`, `1e5` and ids of 20 digits stay texts.

    >>> infer("12"), infer("007"), infer("1.50"), infer("TRUE"), infer("1e5")
    (12, '007', 1.5, True, '1e5')
    """
    if text[:1] not in _TELLING:
        return text
    if text.isdigit() and text.isascii() and text[0] != "0" and len(text) <= _LONG:
        return int(text)
    if "." in text:
        return float(text) if len(text) <= _EXACT_CHARACTERS and _DECIMAL(text) else text
    if text == "0" or (text[0] == "-" and _INTEGER(text)):
        return int(text)
    return _BOOLEANS.get(text.lower(), text) if len(text) <= len("false") else text


def parser_of(kind: FieldType) -> Callable[[str], Any]:
    """Returns what says what a text that is not empty means in a column of a type.

    It raises a ValueError for what is none of that type.
    """
    return _PARSERS[kind]


def milliseconds(text: str) -> Any:
    """Returns a time in milliseconds since 1970; a number is taken to be one already, and stays as it is.

    Without a zone it is in UTC.

    >>> milliseconds("2024-02-29T12:00:00.5+01:00"), milliseconds("1709204400")
    (1709204400500, 1709204400)

    Raises:
        ValueError: if it is no time that exists.
    """
    if text.isdigit() and text.isascii() and len(text) <= _LONG:
        return int(text)
    if _EPOCH(text):
        return _number(text)
    match = _ISO(text)
    if match is None:
        raise ValueError("a time in ISO 8601, or a number")
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    day_of = dt.datetime(int(year), int(month), int(day), tzinfo=_zone(zone))
    whole = day_of.replace(hour=int(hour or 0), minute=int(minute or 0), second=int(second or 0))
    thousandths = int((fraction or "0")[:3].ljust(3, "0"))
    return int((whole - _UNIX).total_seconds()) * 1000 + thousandths


def time_or_text(text: str) -> Any:
    """Returns a time in milliseconds since 1970, or what is none as it is, to be refused for that."""
    try:
        return milliseconds(text)
    except ValueError:
        return text


def json_or_text(text: str) -> Any:
    """Returns what JSON says, or what is none as it is, to be refused for that."""
    try:
        return _json(text)
    except ValueError:
        return text


def _zone(text: str | None) -> dt.tzinfo:
    if text is None or text in ("Z", "UTC"):
        return dt.timezone.utc
    minutes = int(text[1:3]) * 60 + int(text[-2:] if len(text) > 3 else 0)
    return dt.timezone(dt.timedelta(minutes=-minutes if text[0] == "-" else minutes))


def _integer(text: str) -> Any:
    if not _ANY_INTEGER(text):
        raise ValueError("an integer")
    sign, digits = "-" if text[0] == "-" else "", text.lstrip("+-").lstrip("0") or "0"
    return _number(sign + digits)


def _number(text: str) -> Any:
    """Returns a number; one that a double may not hold keeps its token."""
    if not _ANY_NUMBER(text):
        raise ValueError("a number")
    return int(text) if len(text) <= _LONG and text.lstrip("-").isdigit() else msgspec.Raw(text.encode())


def _boolean(text: str) -> bool:
    value = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}.get(text.lower())
    if value is None:
        raise ValueError("true or false")
    return value


def _json(text: str) -> Any:
    try:
        return _check_json(text)
    except (msgspec.DecodeError, RecursionError):
        raise ValueError("JSON") from None


_PARSERS: Final[dict[str, Callable[[str], Any]]] = {
    "string": str,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "json": _json,
    "timestamp": milliseconds,
}


def column_values(texts: Sequence[str], parse: Callable[[str], Any], empty: Any) -> Sequence[Any]:
    """Returns what a column's texts mean; `empty` stands for those that are.

    Raises:
        ValueError: if one has no meaning.
    """
    if parse is str:
        return [text or empty for text in texts] if "" in texts else texts
    if len(set(texts[:_SAMPLE])) * _REPEATED <= _SAMPLE:
        return _repeated(texts, parse, empty)
    if parse is infer:
        if _are_numbers(texts):
            return [(float(text) if "." in text else int(text)) if text else empty for text in texts]
        # Most texts need no call to be told for what they are.
        return [text if text[:1] not in _TELLING else parse(text) if text else empty for text in texts]
    return [parse(text) if text else empty for text in texts]


def _repeated(texts: Sequence[str], parse: Callable[[str], Any], empty: Any) -> Sequence[Any]:
    """Returns what texts mean of which there are few, each parsed once."""
    meanings = {text: parse(text) if text else empty for text in set(texts)}
    if all(meaning is text for text, meaning in meanings.items()):
        return texts
    return list(map(meanings.__getitem__, texts))


def _are_numbers(texts: Sequence[str]) -> bool:
    """Returns whether all texts, apart from empty ones, are numbers by `infer`; told by one call for all."""
    joined = "\n".join(texts)
    return (
        _NUMBERS(joined) is not None
        and joined.count("\n") == len(texts) - 1
        and max(map(len, texts)) <= _EXACT_CHARACTERS
    )
