"""Writes tests/data/golden_ids.jsonl.gz: records of odd shapes, and the ids that recipe v1 gives them.

Only a new version of the recipe may change the file: whoever moved data with the old ids would otherwise
import it a second time. `python -m tests.golden_ids PATH` writes a new one.
"""

import gzip
import json
import random
import sys
from pathlib import Path
from typing import Any, Final

from mixpanel_http.insert_ids import FieldsMissing, content_id, fields_id, line_id, located

GOLDEN: Final = Path(__file__).parent / "data" / "golden_ids.jsonl.gz"
FIELDS: Final = ("order_id", "items")
FILE: Final = "s3://bucket/part-0.json"
COUNT: Final = 10_000

_WORDS: Final = [
    "a",
    "Purchase",
    "é",
    "é",
    "ß",
    "\u2028",
    "😀",
    "\x00",
    "\x7f",
    '"',
    "\\",
    "/",
    "日本",
    "\ufeff",
]
_NAMES: Final = [
    "a",
    "B",
    "b",
    "order_id",
    "items",
    "$city",
    "é",
    "é",
    "😀",
    "\uffff",
    "$insert_id",
    "properties",
]
_NUMBERS: Final = [
    "0",
    "-0",
    "0.0",
    "-0.0",
    "1",
    "1.0",
    "1.50",
    "1e0",
    "1E+2",
    "1e-5",
    "0.00001",
    "9.9e-6",
    "1e15",
    "1e16",
    "1e21",
    "1e22",
    "1e-7",
    "123456789012345680",
    "1e999",
    "-1e999",
    "1e-999",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775809",
    "12345678901234567890123456",
    "0.1",
    "0.30000000000000004",
    "9007199254740993",
    "9007199254740993.0",
    "5e-324",
    "1.7976931348623157e308",
    "1.50e-3",
    "2.2250738585072014e-308",
    "0.1234567890123456789",
    "-12.5",
    "99.95",
]
_RARE: Final = ["true", "false", "9" * 4299, "9" * 4300, "9" * 4301, "-" + "9" * 4300]


def make_record(dice: random.Random) -> str:
    """Returns an event as one line of JSON, in one of the many ways to write it."""
    properties = [
        ("time", str(1_700_000_000 + dice.randrange(999))),
        ("distinct_id", f'"{dice.randrange(99)}"'),
    ]
    properties += [(dice.choice(_NAMES), _value(dice, 0)) for _ in range(dice.randrange(5))]
    if dice.random() < 0.3:
        dice.shuffle(properties)
    own = _object(dice, [(_text(dice, name), value) for name, value in properties])
    members = [(_text(dice, "event"), _text(dice, dice.choice(_WORDS))), (_text(dice, "properties"), own)]
    if dice.random() < 0.2:
        members.insert(dice.randrange(2), ('"extra"', _value(dice, 0)))
    if dice.random() < 0.2:
        members.reverse()
    return _gap(dice) + _object(dice, members) + _gap(dice)


def ids_of(line: bytes, offset: int) -> dict[str, str | None]:
    """Returns a record's ids by mode, and one that keeps it apart by its place, for each mode in turn."""
    try:
        fields = fields_id(line, FIELDS)
    except FieldsMissing:
        fields = None
    merged = {"content": content_id(line), "line": line_id(line), "fields": fields}
    mode, merging = list(merged.items())[offset % 3]
    return {**merged, "kept_mode": mode, "kept": merging and located(merging, FILE, offset)}


def _value(dice: random.Random, level: int) -> str:
    kind = dice.randrange(9 if level < 3 else 6)
    if kind < 2:
        return _text(dice, dice.choice(_WORDS) * dice.randrange(4))
    if kind < 4:
        return dice.choice(_NUMBERS)
    if kind == 4:
        return str(dice.getrandbits(70)) if dice.random() < 0.5 else repr(1e9 * dice.uniform(-1, 1) ** 9)
    if kind == 5:
        return dice.choice(_RARE) if dice.random() < 0.02 else "null"
    values = [_value(dice, level + 1) for _ in range(dice.randrange(4))]
    if kind == 6:
        return "[" + _gap(dice) + f"{_gap(dice)},".join(values) + "]"
    return _object(dice, [(_text(dice, dice.choice(_NAMES)), value) for value in values])


def _object(dice: random.Random, members: list[tuple[str, str]]) -> str:
    comma, colon = dice.choice([(",", ":"), (", ", ": "), (" ,\t", " :")])
    return "{" + _gap(dice) + comma.join(key + colon + value for key, value in members) + _gap(dice) + "}"


def _gap(dice: random.Random) -> str:
    return dice.choice(["", "", "", "", " ", "\t ", "\r"])


def _text(dice: random.Random, text: str) -> str:
    """Returns a text as JSON; every tenth has nothing but escapes."""
    if dice.random() < 0.1:
        units = text.encode("utf-16-be")
        return '"' + "".join(f"\\u{units[i] << 8 | units[i + 1]:04X}" for i in range(0, len(units), 2)) + '"'
    return json.dumps(text, ensure_ascii=dice.random() < 0.3)


def read_golden() -> list[dict[str, Any]]:
    """Returns the golden records with their offsets and ids."""
    return [json.loads(text) for text in gzip.decompress(GOLDEN.read_bytes()).splitlines()]


def write_golden(path: Path) -> None:
    """Writes the file, the same at any time."""
    dice = random.Random("recipe v1")
    rows = []
    for _ in range(COUNT):
        record, offset = make_record(dice), dice.randrange(10**10)
        row = {"record": record, "offset": offset, **ids_of(record.encode(), offset)}
        rows.append(json.dumps(row, ensure_ascii=False) + "\n")
    path.write_bytes(gzip.compress("".join(rows).encode(), mtime=0))


if __name__ == "__main__":
    write_golden(Path(sys.argv[1]))
