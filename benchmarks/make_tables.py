"""Makes the same rows, one benchmark event each, as NDJSON, CSV, Parquet and Avro.

python -m benchmarks.make_tables FOLDER ROWS
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.generate import made_once, make_lines

VERSION: Final = 2  # part of a cached folder's name: raise it with every change of what is made
_BATCH: Final = 50_000
_NESTED: Final = "items"


def make_tables(cache: Path, rows: int) -> Path:
    """Return a folder with the same rows in a file of each format, made unless it is there."""

    def fill(unfinished: Path) -> None:
        columns = list(dict.fromkeys(key for row in islice(_rows(rows), 20_000) for key in row))
        _write_text(unfinished, columns, rows)
        _write_binary(unfinished, columns, rows)

    return made_once(cache / f"tables-v{VERSION}-{rows}", fill)


def _rows(count: int) -> Iterator[dict[str, Any]]:
    for line in make_lines(count, with_ids=True):
        record = json.loads(line)
        yield {"event": record["event"], **record["properties"]}


def _write_text(folder: Path, columns: Sequence[str], rows: int) -> None:
    with (
        (folder / "t.json").open("w") as lines,
        (folder / "t.ndjson").open("w") as events,
        (folder / "t.csv").open("w", newline="") as fields,
    ):
        writer = csv.writer(fields)
        writer.writerow(columns)
        for row in _rows(rows):
            present = {key: value for key, value in row.items() if value is not None}
            lines.write(_json(present) + "\n")
            events.write(_json(_event(present)) + "\n")
            writer.writerow(_text(present.get(name)) for name in columns)


def _text(value: Any) -> Any:
    if isinstance(value, (list, bool)):
        return _json(value)
    return value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _event(row: dict[str, Any]) -> dict[str, Any]:
    """Returns a row as an event with a number for an id, so that it is taken apart and written anew."""
    properties = {**row, "distinct_id": int(row["distinct_id"].removeprefix("u-"))}
    return {"event": properties.pop("event"), "properties": properties}


def _write_binary(folder: Path, columns: Sequence[str], rows: int) -> None:
    source = _rows(rows)
    writer: Any = None
    batches = []
    while batch := list(islice(source, _BATCH)):
        filled = [{name: row.get(name) for name in columns} for row in batch]
        arrow = pa.Table.from_pylist(filled, schema=writer.schema if writer else None)
        writer = writer or pq.ParquetWriter(folder / "t.parquet", _without_nulls(arrow.schema))
        writer.write_table(arrow.cast(writer.schema))
        batches.append(filled)
    writer.close()
    schema = {"type": "record", "name": "Row", "fields": [_avro_field(field) for field in writer.schema]}
    with (folder / "t.avro").open("wb") as file:
        fastavro.writer(file, schema, (_avro_row(row) for filled in batches for row in filled), "deflate")


def _without_nulls(schema: Any) -> Any:
    """Returns a schema in which a column of nulls alone is one of text."""
    text = {field.name: pa.field(field.name, pa.string()) for field in schema if field.type == pa.null()}
    return pa.schema([text.get(field.name, field) for field in schema])


def _avro_row(row: dict[str, Any]) -> dict[str, Any]:
    nested = row[_NESTED] and json.dumps(row[_NESTED])
    return {_avro_name(key): value for key, value in {**row, _NESTED: nested}.items()}


def _avro_name(name: str) -> str:
    return name.replace("$", "")


def _avro_field(field: Any) -> dict[str, Any]:
    kinds = {pa.int64(): "long", pa.float64(): "double", pa.bool_(): "boolean"}
    return {"name": _avro_name(field.name), "type": ["null", kinds.get(field.type, "string")]}


if __name__ == "__main__":
    print(make_tables(Path(sys.argv[1]), int(sys.argv[2])))
