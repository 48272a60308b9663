"""Functions of the user's own that map records: found by name, called, and held to what they may return."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import itertools
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec

from mixpanel_http.record_syntax import decode_object
from mixpanel_http.verdicts import Reason, RecordRefused
from record_maps.paths import Fields

Function = Callable[[dict[str, Any]], Any]

MOST_RECORDS: Final = 100_000  # made of one: all are held in memory, and a generator may have no end

_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode
_fields: Final = msgspec.json.Decoder(Fields).decode


class FunctionMissing(ValueError):
    """There is no such function, or no such module; the message says which."""


def load_function(name: str, folder: str | None = None) -> Function:
    """Returns the function that `module:function` names.

    Args:
        name: module and function.
        folder: where modules are looked for last from now on, after what is installed.

    Raises:
        FunctionMissing: if it is not there, or its module fails.
    """
    if folder is not None and folder not in sys.path and os.path.isdir(folder):
        sys.path.append(folder)
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's own code may fail in any way
        raise FunctionMissing(
            f"{module_name} cannot be imported: {type(error).__name__}: {error}; it is looked for among what "
            "is installed and beside the configuration"
        ) from None
    function = getattr(module, function_name, None)
    if not callable(function):
        raise FunctionMissing(f"{module_name} has no function {function_name}")
    if not _takes_a_record(function):
        raise FunctionMissing(f"{name} must be callable with one record, and not be async")
    return function  # type: ignore[no-any-return]


def _takes_a_record(function: Callable[..., Any]) -> bool:
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return False
    try:
        inspect.signature(function).bind({})
    except TypeError:
        return False
    except ValueError:
        return True  # one in C that does not tell what it takes
    return True


def folder_of(name: str) -> str | None:
    """Returns the folder in which a function's module, or the package that it is in, was found."""
    top = sys.modules.get(name.partition(":")[0].partition(".")[0])
    path: str | None = getattr(top, "__file__", None)
    if path is None:
        return None
    return os.path.dirname(os.path.dirname(path) if hasattr(top, "__path__") else path)


def fingerprint(name: str) -> str:
    """Returns a hash of the source of a function's module, or what stands for it where there is none."""
    module = importlib.import_module(name.partition(":")[0])
    try:
        source = inspect.getsource(module)
    except (OSError, TypeError):
        return "no source"
    return hashlib.sha256(source.encode()).hexdigest()[:32]


def call(function: Function, name: str, fields: Fields) -> Iterator[Fields]:
    """Yields the records that a function makes of one.

    Raises:
        RecordRefused: if it fails, or returns what is no record; of the error the kind and the place are
            told, and nothing of its words, as they may be data.
    """
    record = _decoded(fields)
    try:
        # Each is taken down as it comes: a generator may yield one dict again and again, and change it.
        records = itertools.islice(_records(function(record), name), MOST_RECORDS + 1)
        taken = [_taken_down(made, name) for made in records]
    except RecordRefused:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, it is about this one record
        message = f"{name} failed: {type(error).__name__}{_place(error, function)}"
        raise RecordRefused(Reason.MAP_FAILED, None, message) from None
    if len(taken) > MOST_RECORDS:
        raise RecordRefused(Reason.MAP_FAILED, None, f"{name} made more than {MOST_RECORDS:,} records of one")
    yield from taken


def _decoded(fields: Fields) -> dict[str, Any]:
    """Returns a record as Python has it; whole numbers keep all their digits."""
    line = _encode(fields)
    try:
        record: dict[str, Any] = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        decode_object(line)
        raise RecordRefused(
            Reason.MAP_FAILED, None, "a number lies beyond what Python's floats hold"
        ) from None
    return record


def _records(made: Any, name: str) -> Iterable[Any]:
    """Returns what a function returned as records: None is none, a dict one."""
    if made is None:
        return ()
    if isinstance(made, dict):
        return (made,)
    if isinstance(made, (str, bytes)) or not isinstance(made, Iterable):
        raise _no_record(name, made)
    return made


def _taken_down(made: Any, name: str) -> Fields:
    """Returns a record that a function made, as JSON."""
    if not isinstance(made, dict):
        raise _no_record(name, made)
    line = _encode(made)
    if b"null" in line and _has_non_finite(made):  # which becomes null, as JSON has no form for it
        raise RecordRefused(Reason.NON_FINITE_NUMBER, None, f"{name} returned NaN or an infinite number")
    return _fields(line)


def _no_record(name: str, made: Any) -> RecordRefused:
    kind = type(made).__name__
    message = f"{name} must return a dict, an iterable of dicts or None, not {kind}"
    return RecordRefused(Reason.MAP_FAILED, None, message)


def _has_non_finite(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(map(_has_non_finite, value.values()))
    return isinstance(value, (list, tuple, set, frozenset)) and any(map(_has_non_finite, value))


def _place(error: BaseException, function: Function) -> str:
    """Returns where in the function's own module an error came from."""
    file = getattr(inspect.getmodule(function), "__file__", None)
    lines = [
        line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == file
    ]
    return f" ({os.path.basename(file)}, line {lines[-1]})" if file is not None and lines else ""
