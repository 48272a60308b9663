"""JSON in which quotes and brackets are missing: what is not damaged is read, and no record is made up."""

from __future__ import annotations

import json
import random
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, NamedTuple

import pytest

from source_formats.json_salvage import whole_records
from source_formats.json_shapes import Shapes
from source_formats.json_structure import scan
from tests.test_json_records import read

# Texts with all that is structure outside of them, in pairs and alone.
TEXTS = [
    *("a b c", "x, y", "[hm]", "a ] b", "b } c", "{ q", '"quoted"', "it's [", "]]", "},{", "\\", '{"id": 1}'),
    *("]}", "[{", ": {", 'say "', "}]"),
]
MANY = 20_000  # some MiB of text, which is more than is looked at together


def record(dice: random.Random, number: int) -> dict[str, Any]:
    """Returns a record with objects in it that begin as it does itself."""
    made = {
        "id": number,
        "event": "E",
        "text": dice.choice(TEXTS),
        "more": {"d": [number, dice.choice(TEXTS)], "t": dice.choice(TEXTS)},
    }
    if dice.random() < 0.7:
        made["items"] = [
            {"id": -10 * number - n - 1, "t": dice.choice(TEXTS)} for n in range(dice.randrange(4))
        ]
    if dice.random() < 0.5:
        made["user"] = {"id": -number - 1}
    if dice.random() < 0.3:
        made[dice.choice(["opt", "other"])] = dice.choice(TEXTS)
    return made


class Damaged(NamedTuple):
    """A text in which something is missing, its records as they were, and which of them are damaged."""

    text: bytes
    records: list[dict[str, Any]]
    hit: set[int]
    in_doubt: set[int]  # a closing bracket too many stands behind them, or before the next one


def damage(dice: random.Random, count: int, hits: int) -> Damaged:
    """Returns a text from which some quotes and brackets were taken, or to which some were added."""
    records = [record(dice, number) for number in range(count)]
    indent = dice.choice([None, None, 1, 4])
    texts = [json.dumps(one, indent=indent).encode() for one in records]
    hit = set(dice.sample(range(count), hits))
    for index in hit:
        texts[index] = spoiled(dice, texts[index])
    in_doubt = {index - 1 for index in hit if texts[index].startswith(b"}")}
    if dice.random() < 0.5:
        return Damaged(b"[" + dice.choice([b",", b",\n  "]).join(texts) + b"]", records, hit, in_doubt)
    return Damaged((b"\n" if indent else b"").join(texts), records, hit, in_doubt)


def spoiled(dice: random.Random, text: bytes) -> bytes:
    """Returns a record without one of its quotes or brackets, or with one more."""
    brackets = scan(text).at.tolist()
    quotes = [at for at, byte in enumerate(text) if byte == ord('"') and text[at - 1] != ord("\\")]
    if dice.random() < 0.8:
        at = dice.choice(quotes if dice.random() < 0.5 else brackets)
        return text[:at] + text[at + 1 :]
    at = dice.choice(brackets)
    return text[:at] + dice.choice([b'"', b"{", b"[", b"}", b"]"]) + text[at:]


def check(damaged: Damaged) -> None:
    lines, offsets, _ = read(damaged.text)
    found = [value for line in lines if (value := decoded(line))]  # what is refused stands in base64
    by_id = {one["id"]: one for one in damaged.records}

    assert len(lines) == len(offsets)
    assert len(found) == len({value["id"] for value in found})
    assert all(by_id.get(value["id"]) == value or value["id"] in damaged.hit for value in found)
    lost = by_id.keys() - {value["id"] for value in found} - damaged.hit - damaged.in_doubt
    # Of a few between two damaged ones nothing may tell what they are.
    assert all(damaged.hit & {*range(n - 4, n)} and damaged.hit & {*range(n + 1, n + 5)} for n in lost)


def any_value(dice: random.Random, depth: int) -> Any:
    kind = dice.random()
    if depth > 2 or kind < 0.4:
        return dice.choice([1, -2.5, None, True, "", "é", '\\"q"', "e\\", *TEXTS])
    if kind < 0.7:
        return {
            dice.choice(["id", "a", "b", "t"]): any_value(dice, depth + 1) for _ in range(dice.randrange(4))
        }
    return [any_value(dice, depth + 1) for _ in range(dice.randrange(4))]


def any_record(dice: random.Random, number: int, alike: int) -> dict[str, Any]:
    """Returns a record, of which parts look like records or not."""
    if alike == 0:
        keys = dice.sample(["a", "b", "c", "d"], dice.randrange(1, 4))
        return {"id": number, **{key: any_value(dice, 1) for key in keys}}
    if alike == 1:
        items = [{"sku": n, "t": dice.choice(TEXTS)} for n in range(dice.randrange(4))]
        return {"event": "E", "properties": {"id": number, "items": items, "user": {"id": 7}}}
    return {**{dice.choice(["id", "a", "b"]): any_value(dice, 0) for _ in range(3)}, "u": number}


def parts_of(value: Any) -> Iterator[Any]:
    """Yields the objects inside of a value."""
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(inner, dict):
            yield inner
        yield from parts_of(inner)


def laid_out(dice: random.Random, records: list[dict[str, Any]]) -> tuple[bytes, list[int]]:
    """Returns a text of records, and where each of them ends."""
    indent = dice.choice([None, None, 1, 4])
    texts = [json.dumps(one, indent=indent, ensure_ascii=dice.random() < 0.5) for one in records]
    layouts = [("[", ",", "]"), ("[\n  ", ",\n  ", "\n]\n"), ("", "", ""), ("", "\n", "")]
    start, between, end = dice.choice(layouts)
    sizes = [len((between + one).encode()) for one in texts]
    ends = [size + len(start) - len(between) for size in accumulate(sizes)]
    return (start + between.join(texts) + end).encode(), ends


def with_one_byte_wrong(dice: random.Random, text: bytes) -> bytes:
    at = dice.randrange(len(text))
    if dice.random() < 0.4:
        return text[:at] + text[at + 1 :]
    if dice.random() < 0.5:
        return text[:at] + bytes([text[at] ^ (1 << dice.randrange(8))]) + text[at + 1 :]
    return text[:at] + dice.choice([b'"', b"{", b"[", b"}", b"]", b",", b"\\"]) + text[at:]


def check_nothing_is_made_up(seed: int) -> None:
    """Checks that no end that comes early and no wrong byte makes a record of a part of one."""
    dice = random.Random(seed)
    alike = dice.randrange(3)
    count = dice.choice([1, 1, 2, 3, 6, 20])
    numbers = range(1000, 1000 + 11 * count, 11)  # one wrong digit makes none of them of another
    records = [any_record(dice, number, alike) for number in numbers]
    whole = [json.dumps(one) for one in records]
    parts = {json.dumps(part) for one in records for part in parts_of(one)} - set(whole)
    pieces = [{(key, json.dumps(value)) for key, value in one.items()} for one in records]
    text, ends = laid_out(dice, records)

    for cut in range(len(text)) if len(text) < 600 else dice.sample(range(len(text)), 300):
        found = [json.dumps(value) for line in read(text[:cut])[0] if (value := decoded(line)) is not None]
        assert found == whole[: bisect_right(ends, cut)], text[:cut]
    for _ in range(100):
        damaged = with_one_byte_wrong(dice, text)
        for line in read(damaged)[0]:
            value = decoded(line)
            if value is not None and json.dumps(value) not in whole and not has_a_key_twice(line):
                assert json.dumps(value) not in parts, damaged
                here = {(key, json.dumps(inner)) for key, inner in value.items()}
                assert not any(here < piece for piece in pieces), damaged


def has_a_key_twice(line: bytes) -> bool:
    found: list[bool] = []
    json.loads(line, object_pairs_hook=lambda pairs: found.append(len(dict(pairs)) < len(pairs)))
    return any(found)


def decoded(line: bytes) -> dict[str, Any] | None:
    """Returns the record in a line, if there is one."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


@pytest.mark.parametrize("seed", range(60))
def test_where_one_record_is_damaged_only_that_one_is_lost(seed: int) -> None:
    check(damage(random.Random(seed), 30, 1))


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_in_twenty_thousand_texts_only_damaged_records_are_lost() -> None:
    for seed in range(20_000):
        check(damage(random.Random(seed), 30, 1))


@pytest.mark.parametrize("seed", range(12))
def test_no_part_of_a_record_is_taken_for_one(seed: int) -> None:
    check_nothing_is_made_up(seed)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_no_part_of_a_record_is_taken_for_one_in_five_hundred_thousand_texts() -> None:
    for seed in range(12, 2_000):
        check_nothing_is_made_up(seed)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(12))
def test_in_long_texts_with_many_damages_only_damaged_records_are_lost(seed: int) -> None:
    check(damage(random.Random(seed), MANY, MANY // 100))


def test_where_the_first_record_is_damaged_those_behind_it_tell_what_records_look_like() -> None:
    dice = random.Random(4)
    records = [record(dice, number) for number in range(60)]
    texts = [json.dumps(one).encode() for one in records]
    hit = {0, 20, 40}
    for index in hit:
        texts[index] = texts[index].replace(b'"event', b"event")
    check(Damaged(b"[" + b",\n".join(texts) + b"]", records, hit, set()))


def test_where_no_record_is_known_a_part_of_one_that_the_end_cuts_short_is_not_taken_for_one() -> None:
    text = b'[{"k": 0, "a": ["x", {"y": 1, "z": 2}, {"y'

    assert whole_records(text, 1, len(text), Shapes(), final=True).records == []


@pytest.mark.parametrize(
    ("text", "part"),
    [
        # Two that look like records stand in an array inside of a third, and one in an array of arrays.
        (
            b'[{"id":1,"b":0},{"id":2,"b":0},{"id":3,"a":[{\n{"t":1},{"id":4,"b":0},{"id":5,"b":0}]},{"id":6,"b":0}]',
            [4, 5],
        ),
        (b'{"a":0,"u":1}\n{"a":0,"u":2}\n{"a":{"b":Z]},"u":[["x",{"a":"y"}],{}]}\n{"a":0,"u":3}', ["y"]),
    ],
)
def test_objects_of_an_array_that_goes_on_behind_them_are_parts(text: bytes, part: list[Any]) -> None:
    found = [value for line in read(text)[0] if (value := decoded(line)) is not None]

    assert len(found) == 3
    assert not any(value.get("id") in part or value.get("a") in part for value in found)


def test_a_wrong_byte_in_the_place_of_the_last_bracket_costs_no_record() -> None:
    text = b'[{"k":0,"a":1},{"k":1,"b":2},{"k":01},{"k":3,"c":1},{"k":4,"d":{"e":1}}U\n'
    found = [value for line in read(text)[0] if (value := decoded(line)) is not None]

    assert [value["k"] for value in found] == [0, 1, 3, 4]
