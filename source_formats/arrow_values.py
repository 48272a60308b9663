"""What columns of Arrow hold, as values that JSON can say; nothing is rounded on the way."""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from source_formats.field_types import json_or_text, time_or_text
from source_formats.row_lines import PROPERTIES, TEXTS, TIME

_PER_SECOND: Final = {"s": 1, "ms": 1000, "us": 1_000_000, "ns": 1_000_000_000}


def column_of(array: Any) -> list[Any]:
    """Returns the values of an array; null is None.

    Numbers stay exact, decimals token for token; what is no number becomes null. Times become ISO 8601, those
    of a zone in UTC. Binary is text where it is UTF-8, else base64.

    >>> column_of(pa.array([1.5, None])), column_of(pa.array([b"a", bytes([255])]))
    ([1.5, None], ['a', '/w=='])
    """
    kind = array.type
    convert = next((make for holds, make in _CONVERSIONS if holds(kind)), None)
    if convert is not None:
        return convert(array)
    try:
        values: list[Any] = array.to_pylist()
    except UnicodeDecodeError:
        return _from_binary(array.cast(pa.large_binary()))
    return values


def event_column(array: Any, name: str) -> list[Any]:
    """Returns the values of a column of a flat table of events: ids are texts, `time` is milliseconds."""
    kind, plain = array.type, name.removeprefix(f"{PROPERTIES}.")
    if plain in TEXTS and pa.types.is_integer(kind):
        return [value if value is None else str(value) for value in array.to_pylist()]
    if plain == TIME and (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        moments: list[Any] = array.cast(pa.timestamp("ms"), safe=False).cast(pa.int64()).to_pylist()
        return moments
    values = column_of(array)
    if plain == TIME and _is_text(kind):
        return [time_or_text(value) if value else value for value in values]
    if name == PROPERTIES and _is_text(kind):
        return [json_or_text(value) if value else value for value in values]
    return values


def _is_text(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_binary(kind: Any) -> bool:
    types = pa.types
    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_binary_view(kind)
    )


def _is_list(kind: Any) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _from_binary(array: Any) -> list[Any]:
    return [None if value is None else _text_of(value) for value in array.to_pylist()]


def _text_of(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()


def _from_float32(array: Any) -> list[Any]:
    # As a double it would have digits that nobody wrote: 0.1 would be 0.10000000149011612.
    shortest = array.cast(pa.string()).to_pylist()
    return [None if text is None else float(text) for text in shortest]


def _from_decimal(array: Any) -> list[Any]:
    tokens = array.cast(pa.string()).to_pylist()
    return [None if token is None else msgspec.Raw(token.encode()) for token in tokens]


def _from_timestamp(array: Any) -> list[Any]:
    kind = array.type
    moments = array.cast(pa.timestamp(kind.unit)).to_numpy(zero_copy_only=False)
    texts = np.datetime_as_string(moments, unit=kind.unit).tolist()
    zone = "Z" if kind.tz else ""
    if kind.unit != "s":
        texts = [_with_fraction(text) for text in texts]
    valid = array.is_valid().to_pylist()
    return [text + zone if there else None for text, there in zip(texts, valid, strict=True)]


def _with_fraction(text: str) -> str:
    """Returns a time with a fraction of six digits, of nine if they count, or none if it is a whole second.

    >>> _with_fraction("2024-02-29T12:30:15.250"), _with_fraction("2024-02-29T12:30:15.000")
    ('2024-02-29T12:30:15.250000', '2024-02-29T12:30:15')
    """
    whole, _, fraction = text.partition(".")
    digits = fraction.rstrip("0")
    return f"{whole}.{digits:0<{6 if len(digits) <= 6 else 9}}" if digits else whole


def _from_date(array: Any) -> list[Any]:
    return [None if day is None else day.isoformat() for day in array.cast(pa.date32()).to_pylist()]


def _from_time(array: Any) -> list[Any]:
    whole = array.cast(pa.time64("us"), safe=False)
    times: list[dt.time | None] = whole.to_pylist()
    return [None if time is None else time.isoformat() for time in times]


def _from_duration(array: Any) -> list[Any]:
    per_second = _PER_SECOND[array.type.unit]
    counts = array.cast(pa.int64()).to_pylist()
    return [None if count is None else count / per_second for count in counts]


def _from_dictionary(array: Any) -> list[Any]:
    return column_of(array.dictionary_decode())


def _from_extension(array: Any) -> list[Any]:
    if array.type.extension_name == "arrow.uuid":
        return [None if value is None else str(value) for value in array.to_pylist()]
    return column_of(array.storage)


def _from_list(array: Any) -> list[Any]:
    values = column_of(array.flatten())
    # Arrow's own fill_null would import pandas, where that is installed, for the sake of one 0.
    lengths = [length or 0 for length in pc.list_value_length(array).to_pylist()]
    return _in_pieces(values, lengths, array)


def _from_map(array: Any) -> list[Any]:
    array = array.take(pa.array(range(len(array))))  # a slice would keep all that it was cut from
    keys = [key if isinstance(key, str) else _key(key) for key in column_of(array.keys)]
    lengths = [end - start for start, end in pairwise(array.offsets.to_pylist())]
    pairs = _in_pieces(list(zip(keys, column_of(array.items), strict=True)), lengths, array)
    return [None if pair is None else dict(pair) for pair in pairs]


def _key(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _in_pieces(values: Sequence[Any], lengths: Sequence[int], array: Any) -> list[Any]:
    bounds = accumulate(lengths, initial=0)
    valid = array.is_valid().to_pylist()
    return [values[a:b] if there else None for (a, b), there in zip(pairwise(bounds), valid, strict=True)]


def _from_struct(array: Any) -> list[Any]:
    names = [array.type.field(index).name for index in range(array.type.num_fields)]
    columns = [column_of(child) for child in array.flatten()]
    rows: Iterator[tuple[Any, ...]] = zip(*columns, strict=True) if columns else iter([()] * len(array))
    valid = array.is_valid().to_pylist()
    return [
        dict(zip(names, row, strict=True)) if there else None for row, there in zip(rows, valid, strict=True)
    ]


_CONVERSIONS: Final[tuple[tuple[Callable[[Any], bool], Callable[[Any], list[Any]]], ...]] = (
    (_is_binary, _from_binary),
    (lambda kind: kind in (pa.float32(), pa.float16()), _from_float32),
    (pa.types.is_decimal, _from_decimal),
    (pa.types.is_timestamp, _from_timestamp),
    (pa.types.is_date, _from_date),
    (pa.types.is_time, _from_time),
    (pa.types.is_duration, _from_duration),
    (pa.types.is_dictionary, _from_dictionary),
    (_is_list, _from_list),
    (pa.types.is_map, _from_map),
    (pa.types.is_struct, _from_struct),
    (lambda kind: isinstance(kind, pa.BaseExtensionType), _from_extension),
)
