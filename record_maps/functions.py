"""Functions of the user's own that map records: found by name, called, and held to what they may return."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec

from mixpanel_http.record_syntax import decode_object
from mixpanel_http.verdicts import Reason, RecordRefused
from record_maps.paths import Fields

Function = Callable[[dict[str, Any]], Any]

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
    except Exception as error:  # noqa: BLE001 - the user's own code may fail in any way
        raise FunctionMissing(
            f"{module_name} cannot be imported: {type(error).__name__}: {error}; it is looked for among what "
            "is installed and beside the configuration"
        ) from None
    function = getattr(module, function_name, None)
    if not callable(function):
        raise FunctionMissing(f"{module_name} has no function {function_name}")
    return function  # type: ignore[no-any-return]


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
        RecordRefused: if it fails; of the error the kind is told, and nothing of its words, as they may be
            data.
    """
    record = _decoded(fields)
    try:
        yield from [_fields(_encode(made)) for made in _records(function(record))]
    except Exception as error:  # noqa: BLE001 - whatever it is, it is about this one record
        raise RecordRefused(Reason.MAP_FAILED, None, f"{name} failed: {type(error).__name__}") from None


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


def _records(made: Any) -> Iterable[dict[str, Any]]:
    """Returns what a function returned as records: None is none, a dict one."""
    if made is None:
        return ()
    return (made,) if isinstance(made, dict) else list(made)
