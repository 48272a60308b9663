"""Files of every format, made by dice, and a simple slow reader that says what each of them holds.

The reader takes a file as a whole, with the libraries that everybody uses; it shares nothing with the one
that it is held against.
"""

from __future__ import annotations

import base64
import bz2
import csv
import datetime as dt
import decimal
import gzip
import io
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

BAD: Final = "bad"
TEXTS: Final = [
    "",
    "a",
    "ä",
    "007",
    "12",
    "1.50",
    "true",
    "1e5",
    'q"q',
    "x,y",
    "l\nm",
    "{[",
    "]}",
    "\\",
    "\u2028",
]
COMPRESS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
WORDS: Final = {
    "json": [b'{"k":nope}', b'{"k":01}', b"nope", b"NaN"],
    "csv": [b"1,2,3,4,5,6", b"\xff,\xfe", b"1"],
}


@dataclass(frozen=True)
class Made:
    """A file.

    Attributes:
        name: what it is called.
        content: what is in it, before it is compressed.
        records: what each record of it says, in order; `BAD` for what is none.
        ends: behind which byte of the content each record ends, where that is known.
        suffix: of the compression.
    """

    name: str
    content: bytes
    records: list[Any]
    ends: list[int]
    suffix: str

    @property
    def stored(self) -> bytes:
        """The file's bytes."""
        return COMPRESS[self.suffix](self.content)


def make_file(seed: int) -> Made:
    """Returns the file of a seed."""
    dice = random.Random(seed)
    made = dice.choice([_ndjson, _json, _json, _csv, _csv, _parquet, _avro])(dice)
    suffix = "" if made.name.endswith(".parquet") else dice.choice(["", "", *COMPRESS])
    return Made(made.name + suffix, made.content, made.records, made.ends, suffix)


def _scalar(dice: random.Random) -> Any:
    return dice.choice(
        [
            None,
            True,
            dice.randrange(-5, 100),
            dice.getrandbits(dice.choice([20, 63])),
            dice.random(),
            dice.choice(TEXTS),
            dice.choice(TEXTS) * dice.randrange(30),
        ]
    )


def _nested(dice: random.Random, depth: int = 3) -> Any:
    kind = dice.randrange(6) if depth else 2
    if kind == 0:
        return [_nested(dice, depth - 1) for _ in range(dice.randrange(4))]
    if kind == 1:
        return {key: _nested(dice, depth - 1) for key in dice.sample(TEXTS, dice.randrange(4))}
    return dice.getrandbits(80) if kind == 5 else _scalar(dice)


def _objects(dice: random.Random) -> list[dict[str, Any]]:
    return [{"k": n, **{t: _nested(dice) for t in dice.sample(TEXTS, 2)}} for n in range(dice.randrange(12))]


def _ndjson(dice: random.Random) -> Made:
    objects = _objects(dice) or [{"k": 0}]
    lines = [json.dumps(one, ensure_ascii=dice.random() < 0.5).encode() for one in objects]
    records: list[Any] = list(objects)
    if dice.random() < 0.3:
        at = dice.randrange(1, len(lines) + 1)
        lines.insert(at, dice.choice(WORDS["json"]))
        records.insert(at, BAD)
    return _joined("x.json", lines, records, b"", dice.choice([b"\n", b"\r\n"]), b"")


def _json(dice: random.Random) -> Made:
    objects = _objects(dice)
    indent = dice.choice([None, None, 1, 4])
    texts = [json.dumps(one, indent=indent, ensure_ascii=dice.random() < 0.5).encode() for one in objects]
    records: list[Any] = list(objects)
    in_array = dice.random() < 0.6 or len(texts) < 2
    if in_array and texts and dice.random() < 0.3:
        at = dice.randrange(1, len(texts) + 1)
        texts.insert(at, dice.choice(WORDS["json"]))
        records.insert(at, BAD)
    if in_array:
        begin = dice.choice([b"[", b"\xef\xbb\xbf[\n", b" [  "])
        between = dice.choice([b",", b",\n", b" ,\r\n  "])
        return _joined("x.json", texts, records, begin, between, dice.choice([b"]", b"\n]\n", b" ] "]))
    return _joined("x.json", texts, records, b"", dice.choice([b"", b"\n\n", b" "]) if indent else b"", b"")


def _joined(
    name: str, texts: Sequence[bytes], records: list[Any], begin: bytes, between: bytes, end: bytes
) -> Made:
    content, ends = begin, []
    for index, text in enumerate(texts):
        content += (between if index else b"") + text
        ends.append(len(content))
    return Made(name, content + end, records, ends, "")


def _csv(dice: random.Random) -> Made:
    names = ["a", "b", "c"]
    delimiter = dice.choice(",;\t|")
    ending = dice.choice(["\n", "\r\n"])
    content = (delimiter.join(names) + ending).encode()
    ends: list[int] = []
    records: list[Any] = []
    for _ in range(dice.randrange(12)):
        if dice.random() < 0.1:
            content += dice.choice(WORDS["csv"]).replace(b",", delimiter.encode()) + ending.encode()
            records.append(BAD)
        else:
            fields = [dice.choice([*TEXTS, str(dice.getrandbits(70)), repr(dice.random())]) for _ in names]
            fields[0] = fields[0] or "z"
            content += _written(fields, delimiter, ending)
            said = {name: _spelled(field) for name, field in zip(names, fields, strict=True) if field}
            records.append(said)
        ends.append(len(content))
    return Made("x.csv", content, records, ends, "")


def _written(fields: Sequence[str], delimiter: str, ending: str) -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=ending).writerow(fields)
    return text.getvalue().encode()


def _spelled(text: str) -> Any:
    """What a field means by its spelling: the rule of docs/formats.md in other words."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = json.loads(text)
    except ValueError:
        return text
    digits = sum(character.isdigit() for character in text)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number and "e" not in text.lower() and digits <= 15 and text[0] not in "+" else text


MOMENT: Final = dt.datetime(2024, 2, 29, 12, tzinfo=dt.timezone.utc)
ARROW: Final[dict[str, Any]] = {
    "n": pa.int64(),
    "f": pa.float64(),
    "t": pa.string(),
    "b": pa.bool_(),
    "when": pa.timestamp("us", "UTC"),
    "d": pa.decimal128(20, 3),
    "raw": pa.binary(),
    "l": pa.list_(pa.struct([("x", pa.int32()), ("y", pa.string())])),
    "m": pa.map_(pa.string(), pa.float64()),
}


def _parquet(dice: random.Random) -> Made:
    rows = [_typed_row(dice) for _ in range(dice.randrange(60))]
    file = io.BytesIO()
    table = pa.Table.from_pylist(rows, schema=pa.schema(list(ARROW.items())))
    options = {
        "row_group_size": dice.choice([1, 7, 1000]),
        "compression": dice.choice(["none", "snappy", "gzip", "zstd"]),
        "use_dictionary": dice.random() < 0.5,
        "write_page_checksum": True,
    }
    pq.write_table(table, file, **options)
    said = [_without_nulls(_said(row)) for row in pq.read_table(io.BytesIO(file.getvalue())).to_pylist()]
    return Made("x.parquet", file.getvalue(), said, [], "")


def _typed_row(dice: random.Random) -> dict[str, Any]:
    row = {
        "n": dice.getrandbits(63) - 2**62,
        "f": dice.random() * 10 ** dice.randrange(-9, 20),
        "t": dice.choice(TEXTS),
        "b": dice.random() < 0.5,
        "when": MOMENT + dt.timedelta(microseconds=dice.choice([0, 250_000, 1, 10**15])),
        "d": decimal.Decimal(dice.getrandbits(50)).scaleb(-3),
        "raw": dice.choice([b"text", b"\xff\x00", b""]),
        "l": [{"x": n, "y": dice.choice([None, *TEXTS])} for n in range(dice.randrange(3))],
        "m": {key: dice.random() for key in dice.sample(TEXTS, 2)},
    }
    return {key: value if dice.random() < 0.9 else None for key, value in row.items()}


def _avro(dice: random.Random) -> Made:
    names = ["n", "f", "t", "b", "when", "raw"]
    kinds = {
        "n": "long",
        "f": "double",
        "t": "string",
        "b": "boolean",
        "when": {"type": "long", "logicalType": "timestamp-micros"},
        "raw": "bytes",
    }
    fields = [{"name": name, "type": ["null", kinds[name]]} for name in names]
    rows = [
        {name: row[name] for name in names} for row in (_typed_row(dice) for _ in range(dice.randrange(60)))
    ]
    file = io.BytesIO()
    schema = {"type": "record", "name": "R", "fields": fields}
    codec, interval = dice.choice(["null", "deflate", "bzip2", "xz"]), dice.choice([1, 200, 16_000])
    fastavro.writer(file, schema, rows, codec=codec, sync_interval=interval, sync_marker=dice.randbytes(16))
    said = [
        _without_nulls(_said(row, always_base64=True)) for row in fastavro.reader(io.BytesIO(file.getvalue()))
    ]
    return Made("x.avro", file.getvalue(), said, [], "")


def _without_nulls(row: Any) -> Any:
    return {key: value for key, value in row.items() if value is not None}


def _said(value: Any, *, always_base64: bool = False) -> Any:
    """What a value of a library becomes in JSON, by the tables of docs/formats.md."""
    if isinstance(value, dict):
        return {key: _said(inner, always_base64=always_base64) for key, inner in value.items()}
    if isinstance(value, list):
        pairs = [item for item in value if isinstance(item, tuple)]
        if pairs:
            return {key: _said(inner) for key, inner in pairs}
        return [_said(inner, always_base64=always_base64) for inner in value]
    if isinstance(value, bytes):
        try:
            return base64.b64encode(value).decode() if always_base64 else value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    if isinstance(value, dt.datetime):
        return value.isoformat().replace("+00:00", "Z")
    return value
