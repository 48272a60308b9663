"""Reads one record's bytes as JSON, or tells why they are none, and where they stop being it."""

from __future__ import annotations

import codecs
import json
import re
from functools import partial
from typing import Any, Final, NoReturn

import msgspec

from mixpanel_http.flaws import LONE_SURROGATE, field_name, non_finite, not_utf8
from mixpanel_http.insert_ids import LONGEST_INTEGER
from mixpanel_http.verdicts import Reason, RecordRefused

_check_syntax: Final = msgspec.json.Decoder(msgspec.Raw).decode  # decodes nothing
_TRUNCATED: Final = "Input data was truncated"  # all that came is JSON
BLANK: Final = b" \t\r"  # may stand around a record on its line; a line of nothing else is no record
CUT_SHORT: Final = f"not JSON: {_TRUNCATED}"
_BACKSLASH, _RETURN, _N, _I = b"\\\rNI"  # one byte is found many times faster than a word
_stands_for_a_byte: Final = re.compile("[\udc80-\udcff]").search  # one that is no UTF-8
raw_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode: Final = msgspec.json.Decoder(float_hook=float).decode  # takes 1e999 too, as infinity
_shorten_numbers: Final = partial(re.compile(rb"([0-9]{%d})[0-9]+" % (LONGEST_INTEGER - 2)).sub, rb"\1")


def decode_value(raw: bytes | msgspec.Raw) -> Any:
    """Returns a JSON value for a rule to look at; a number beyond all bounds stays out of range."""
    try:
        return _decode(raw)
    except msgspec.ValidationError:
        return _decode(_shorten_numbers(bytes(raw)))


def decode_object(line: bytes) -> dict[str, msgspec.Raw]:
    """Returns a record's keys with their undecoded values.

    Raises:
        RecordRefused: if a line is no JSON object.
    """
    try:
        line.decode()
    except UnicodeDecodeError as error:
        refuse_utf8(line, error.start)
    try:
        decode_value(line)  # Raw values are checked for syntax only; this finds lone surrogates and depth
        return raw_object(line)
    except (msgspec.DecodeError, RecursionError) as error:
        _refuse_undecoded(line, error)


def _refuse_undecoded(line: bytes, error: Exception) -> NoReturn:
    """Raises the refusal of what could not be decoded: for its syntax, if that is wrong."""
    problem = syntax_problem(line)
    if problem is not None:
        raise RecordRefused(Reason.INVALID_JSON, None, problem) from None
    if isinstance(error, msgspec.ValidationError):
        raise RecordRefused(Reason.NOT_OBJECT, None, "a record must be a JSON object") from None
    if isinstance(error, RecursionError):
        raise RecordRefused(Reason.TOO_DEEP, None, "nested too deeply to be read") from None
    _refuse_syntax(line, str(error))


def syntax_problem(line: bytes) -> str | None:
    """Returns why a line is no JSON, or None where it takes more than a look at its syntax to tell.

    Without an exception of our own, and with nothing decoded: whole files can be like that.
    """
    try:
        if not line.isascii():
            line.decode()
        _check_syntax(line)
    except msgspec.DecodeError as error:
        said = error.args[0]  # as `str` has it, for a fraction of its time
    except (UnicodeDecodeError, RecursionError):
        return None  # matters of their own
    else:
        return None
    if _BACKSLASH in line and b"\\u" in line:
        return None  # perhaps half a character, which some decoders take
    if said == _TRUNCATED and line[:1] == b"{" and _RETURN not in line:
        return CUT_SHORT
    if (_N in line and b"NaN" in line) or (_I in line and b"Infinity" in line):
        return None
    return _not_json(line, said)


def refuse_utf8(line: bytes, position: int) -> NoReturn:
    """Raises the refusal of bytes that are no UTF-8, naming the property where it can be found."""
    field = None
    try:
        record = json.loads(line.decode("utf-8", "surrogateescape"))
        field = next((field_name(k) for k, v in record["properties"].items() if _is_broken(v)), None)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        field = None
    raise not_utf8(position, field).refusal()


def _is_broken(value: object) -> bool:
    return isinstance(value, str) and _stands_for_a_byte(value) is not None


class _NonFinite(ValueError):
    pass


def _refuse_constant(token: str) -> NoReturn:
    raise _NonFinite(token)


_lenient: Final = json.JSONDecoder(parse_constant=_refuse_constant)


def _hint(line: bytes) -> str:
    """Returns what else to say of a line that is no JSON because of how its file was made."""
    if line.startswith(codecs.BOM_UTF8):
        return "; a byte order mark may only stand at the beginning of a file"
    if _RETURN in line and b"}\r{" in line:
        return "; lines must end in LF or CRLF, not in CR alone"
    if line.startswith(b"\0") and not line.strip(b"\0"):
        return "; the line is all NUL bytes, as a crash of the writer leaves them"
    return ""


def _refuse_syntax(line: bytes, said: str) -> NoReturn:
    """Raises the refusal that tells why a line is not JSON, and where it stops being JSON if known."""
    _refuse_mistaken(line)
    raise RecordRefused(Reason.INVALID_JSON, None, _not_json(line, said))


def _not_json(line: bytes, said: str) -> str:
    return f"not JSON: {said.removeprefix('JSON is malformed: ')}{_hint(line)}"


def _refuse_mistaken(line: bytes) -> None:
    """Raises the refusal of a line that Python's lenient parser reads and JSON's grammar does not."""
    try:
        _lenient.decode(line.decode())
    except _NonFinite as error:
        raise non_finite(str(error)).refusal() from None
    except RecursionError:
        raise RecordRefused(Reason.TOO_DEEP, None, "nested too deeply to be read") from None
    except ValueError:
        return
    if b"\\u" in line:
        raise LONE_SURROGATE.refusal()
