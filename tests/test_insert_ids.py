"""Ids from the data alone: the same for the same record, wherever and however it is read."""

import json
import math
import os
import random
import re
import subprocess
import sys
from collections import Counter
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpanel_http.event_rules import EventRules, make_id
from mixpanel_http.id_sample import IdSample
from mixpanel_http.insert_ids import (
    FieldsMissing,
    InsertIdMode,
    InsertIdPolicy,
    canonical,
    content_id,
    fields_id,
    line_id,
    located,
)
from tests.events import GONE, NOW, event, line
from tests.files import COMPRESS, ROOMY, parts_of, read_blocks
from tests.golden_ids import COUNT, FIELDS, FILE, ids_of, make_record, read_golden
from tests.processes import PATIENCE_S
from transforms.dead_letters import sent_insert_id
from transforms.prepare_records import prepare_block
from transforms.segment_reader import BlockLimits

GOLDEN = read_golden()
HEX = re.compile("[0-9a-f]{32}").fullmatch
MODES: list[InsertIdMode] = ["content", "line", "fields"]


def policy(mode: InsertIdMode, keep: bool = False) -> InsertIdPolicy:
    return InsertIdPolicy(mode, FIELDS if mode == "fields" else (), "keep" if keep else "merge")


# --- the golden file --------------------------------------------------------------------------------------


def test_ten_thousand_records_have_the_ids_they_always_had() -> None:
    wrong = [row for row in GOLDEN if ids_of(row["record"].encode(), row["offset"]).items() - row.items()]

    assert not wrong, "a changed id imports history twice: this needs a new version of the recipe"


def test_the_golden_file_covers_every_mode() -> None:
    assert len(GOLDEN) == COUNT
    assert Counter(row["kept_mode"] for row in GOLDEN).keys() == set(MODES)
    assert sum(row["fields"] is None for row in GOLDEN) > 1000
    assert len({row["content"] for row in GOLDEN}) > 0.95 * COUNT


@pytest.mark.parametrize("mode", MODES)
def test_rules_stamp_the_golden_ids(mode: InsertIdMode) -> None:
    for row in GOLDEN[:1000]:
        if row[mode]:
            assert make_id(row["record"].encode(), policy(mode), (FILE, row["offset"])) == row[mode]
        if row["kept"] and row["kept_mode"] == mode:
            kept = make_id(row["record"].encode(), policy(mode, keep=True), (FILE, row["offset"]))
            assert kept == row["kept"]


def test_every_id_is_32_hex_digits() -> None:
    ids = [row[name] for row in GOLDEN for name in (*MODES, "kept") if row[name]]

    assert all(map(HEX, ids))


# --- the recipe as docs/insert-ids.md tells it ------------------------------------------------------------


def naive_canonical(value: Any) -> str:
    if isinstance(value, dict):
        members = (f"{naive_canonical(key)}:{naive_canonical(value[key])}" for key in sorted(value))
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(naive_canonical, value)) + "]"
    if isinstance(value, float):
        return naive_float(value)
    return json.dumps(value, ensure_ascii=False)


def naive_float(value: float) -> str:
    mantissa, _, exponent = repr(value).partition("e")
    if exponent == "-05":  # the one power of ten for which Python and the recipe differ
        return ("-" if value < 0 else "") + "0.0000" + mantissa.lstrip("-").replace(".", "")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def naive_parse(text: str) -> Any:
    def whole(token: str) -> Any:
        return int(token) if len(token) <= 4300 else f"number:{token}"

    def broken(token: str) -> Any:
        return float(token) if math.isfinite(float(token)) else f"number:{token}"

    return json.loads(text, parse_int=whole, parse_float=broken)


def xxh3(text: str) -> str:
    return xxhash.xxh3_128(text.encode(), seed=0).digest().hex()


def test_the_documented_recipe_makes_the_golden_ids() -> None:
    for row in GOLDEN:
        record = naive_parse(row["record"])
        fields = [record["properties"].get(name, {"$missing": True}) for name in FIELDS]

        assert row["content"] == xxh3(naive_canonical(record))
        assert row["line"] == xxh3(row["record"].strip(" \t\r\n"))
        assert row["fields"] in (None, xxh3(naive_canonical(fields)))
        assert row["kept"] in (None, xxh3(f"{row[row['kept_mode']]}\0{FILE}\0{row['offset']}"))


@settings(max_examples=500)
@given(st.floats(allow_nan=False, allow_infinity=False) | st.floats(1e-6, 1e-3))
def test_any_float_is_written_as_documented(value: float) -> None:
    assert canonical(repr(value).encode()).decode() == naive_float(value)


@settings(max_examples=300)
@given(st.text())
def test_any_text_is_written_as_documented(text: str) -> None:
    given = json.dumps(text).encode()

    assert canonical(given).decode() == json.dumps(text, ensure_ascii=False)


# --- what an id depends on, and what not ------------------------------------------------------------------


def respelled(value: Any, dice: random.Random) -> str:
    """The same content as other JSON: keys in any order, any white space, any escapes."""
    if isinstance(value, dict):
        members = [f"{respelled(k, dice)} : {respelled(v, dice)}" for k, v in value.items()]
        dice.shuffle(members)
        return "{ " + dice.choice([",", " ,\t", "\r, "]).join(members) + "}"
    if isinstance(value, list):
        return "[" + " , ".join(respelled(item, dice) for item in value) + " ]"
    return json.dumps(value, ensure_ascii=dice.random() < 0.5)


def test_content_ids_do_not_know_key_order_white_space_or_escapes() -> None:
    dice = random.Random(7)
    for row in GOLDEN[:2000]:
        record = naive_parse(row["record"])
        if (
            "number:" not in row["record"]
            and "1e999" not in row["record"]
            and "9" * 4000 not in row["record"]
        ):
            assert content_id(respelled(record, dice).encode()) == row["content"]


def test_line_ids_know_everything_but_white_space_around_the_record() -> None:
    assert line_id(b' \t{"a":1}\r\n') == line_id(b'{"a":1}')
    assert line_id(b'{"a": 1}') != line_id(b'{"a":1}')


def test_field_ids_know_the_fields_and_their_order_only() -> None:
    record, other = line(event(order_id=1, items=[2], x=1)), line(event(x=2, items=[2], order_id=1))

    assert fields_id(record, FIELDS) == fields_id(other, FIELDS)
    assert fields_id(record, FIELDS) != fields_id(record, FIELDS[::-1])
    assert fields_id(record, ("event",)) == fields_id(line({"event": "Signup", "properties": {}}), ("event",))


def test_a_field_that_is_missing_is_not_one_that_is_null() -> None:
    missing, null = line(event(order_id=1)), line(event(order_id=1, items=None))

    assert fields_id(missing, FIELDS) != fields_id(null, FIELDS)
    with pytest.raises(FieldsMissing, match="order_id, items"):
        fields_id(line(event()), FIELDS)


DIFFERENT = [("1", "2"), ("1", "1.0"), ("1", '"1"'), ("null", "false"), ("[]", "{}"), ("[1,2]", "[2,1]")]
DIFFERENT += [("1e999", "-1e999"), ("1e999", "1e998"), ('"é"', '"e\u0301"'), ("0.1", "0.11"), ("-0.0", "0.0")]
DIFFERENT += [("9" * n, "9" * (n - 1) + "8") for n in (19, 20, 21, 4299, 4300, 4301, 5000)]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_values_have_different_ids(one: str, other: str) -> None:
    assert content_id(b'{"a":%b}' % one.encode()) != content_id(b'{"a":%b}' % other.encode())


@pytest.mark.parametrize(
    ("one", "other"),
    [("1.5", "1.50"), ("1e2", "100.0"), ("-0", "0"), ('"\\u0061\\/"', '"a/"'), ("1E5", "1e+05")],
)
def test_spellings_of_one_value_have_one_id(one: str, other: str) -> None:
    assert content_id(b'{"a":%b}' % one.encode()) == content_id(b'{"a":%b}' % other.encode())


def test_a_number_is_written_the_same_whatever_stands_beside_it() -> None:
    longest, longer = b"9" * 4300, b"9" * 4301

    assert canonical(b"[%b]" % longest) == b"[%b]" % longest
    assert canonical(b"[%b,%b,1e999]" % (longest, longer)) == b'[%b,"number:%b","number:1e999"]' % (
        longest,
        longer,
    )


def test_the_last_of_two_values_of_a_key_counts() -> None:
    assert content_id(b'{"a":1,"a":2}') == content_id(b'{"a":2}')


def test_a_place_is_a_file_and_an_offset() -> None:
    places = {located("0" * 32, file, offset) for file in ("a", "b", "a\x001") for offset in (0, 1, 10)}

    assert len(places) == 9


@pytest.mark.parametrize("mode", ["content", "line"])
def test_fields_go_with_their_mode_only(mode: InsertIdMode) -> None:
    with pytest.raises(ValueError, match="mode: fields"):
        InsertIdPolicy(mode, ("a",))
    with pytest.raises(ValueError, match="mode: fields"):
        InsertIdPolicy("fields")


@pytest.mark.parametrize("seed", ["0", "1", "4711"])
def test_ids_do_not_know_the_seed_of_pythons_hashes(seed: str) -> None:
    script = (
        "from tests.golden_ids import *\n"
        "for row in read_golden()[:300]: print(ids_of(row['record'].encode(), row['offset'])['content'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )

    assert done.stdout.split() == [row["content"] for row in GOLDEN[:300]]


# --- the same ids however a file is stored and read -------------------------------------------------------


@pytest.fixture(scope="module")
def records() -> bytes:
    dice = random.Random(3)
    rows = [make_record(dice).encode() for _ in range(300)]
    rows += [line(event(**{"$insert_id": GONE}, order_id=n % 40)) for n in range(300)]
    dice.shuffle(rows)
    return b"\n".join(rows) + b"\n"


def stamped(
    path: Path, rules: EventRules, limits: BlockLimits = ROOMY, cuts: tuple[int, ...] = ()
) -> list[str]:
    """Ids of a file's records in order, as a run stamps them."""
    found = []
    for part in parts_of(path, cuts):
        for block in read_blocks([part], limits):
            sent = prepare_block(block, rules, NOW).records.body.split(b"\n")
            found += [sent_insert_id(record) or "" for record in sent if record]
    return found


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_ids_do_not_know_compression_splits_or_blocks(
    mode: InsertIdMode, keep: bool, records: bytes, tmp_path: Path
) -> None:
    rules = EventRules(policy(mode, keep))
    for suffix, compress in COMPRESS.items():
        (tmp_path / f"part-0.json{suffix}").write_bytes(compress(records))
    plain = tmp_path / "part-0.json"
    ids = stamped(plain, rules)

    assert len(ids) > 250
    for suffix in COMPRESS:
        assert stamped(tmp_path / f"part-0.json{suffix}", rules, BlockLimits(17, 5000)) == ids
    for cuts in [(1,), (len(records) // 2,), (1000, 1001, 1002, 40_000), tuple(range(7, len(records), 9973))]:
        assert stamped(plain, rules, BlockLimits(50, 10_000), cuts) == ids


def test_kept_rows_have_ids_of_their_own(records: bytes, tmp_path: Path) -> None:
    (tmp_path / "one.json").write_bytes(records)
    (tmp_path / "two.json").write_bytes(records)
    keep = EventRules(policy("content", keep=True))
    merge = EventRules(policy("content"))

    assert stamped(tmp_path / "one.json", merge) == stamped(tmp_path / "two.json", merge)
    made = [i for name in ("one.json", "two.json") for i in stamped(tmp_path / name, keep)]
    assert len(made) - len(set(made)) < 5  # records that came with a valid id of their own
    assert len(set(stamped(tmp_path / "one.json", merge))) < len(set(stamped(tmp_path / "one.json", keep)))


# --- how many rows are identical --------------------------------------------------------------------------


def ids(numbers: range) -> list[str]:
    return [xxh3(str(n)) for n in numbers]


def test_below_its_size_a_sample_is_exact() -> None:
    sample = IdSample(size=1000)
    sample.add(ids(range(1000)))
    sample.add(ids(range(250)))
    sample.add(ids(range(10)))

    assert sample.exact
    assert sample.identical_rows() == 260


def test_above_its_size_a_sample_estimates_within_ten_percent() -> None:
    for copies in (10_000, 50_000, 200_000):
        sample = IdSample()
        sample.add(ids(range(200_000)))
        sample.add(ids(range(copies)))

        assert not sample.exact
        assert sample.identical_rows() == pytest.approx(copies, rel=0.1)
        assert len(sample.counts) <= sample.size


def test_a_sample_may_keep_all_of_few_ids_and_fewer_than_these_of_many() -> None:
    sample = IdSample(size=100, whole=1000)
    sample.add(ids(range(1000)))
    sample.add(ids(range(10)))
    assert (sample.exact, sample.identical_rows(), len(sample.counts)) == (True, 10, 1000)

    sample.add(ids(range(1000, 1001)))
    assert not sample.exact
    assert 0 < len(sample.counts) <= 100


def test_without_identical_rows_the_estimate_is_zero() -> None:
    sample = IdSample(size=100)
    sample.add(ids(range(10_000)))

    assert (sample.identical_rows(), sample.exact) == (0, False)


@given(st.lists(st.lists(st.integers(0, 60), max_size=60), min_size=1, max_size=4))
def test_samples_of_parts_add_up_to_the_sample_of_the_whole_in_any_order(parts: list[list[int]]) -> None:
    def sample_of(numbers: list[int]) -> IdSample:
        sample = IdSample(size=16)
        sample.add([xxh3(str(n)) for n in numbers])
        return sample

    whole = sample_of([n for part in parts for n in part])
    for order in permutations(map(sample_of, parts)):
        total = IdSample(size=16)
        for sample in order:
            total.merge(sample.level, sample.counts)
        assert (total.level, total.counts) == (whole.level, whole.counts)


# --- collisions -------------------------------------------------------------------------------------------


def halves_of_synthetic_ids(count: int) -> Any:
    """The first 64 bits of each id; different ids differ in them, too, for any number that is tested here."""
    events = (
        b'{"event":"e","properties":{"time":1700000000,"distinct_id":"u","n":%d}}' % n for n in range(count)
    )
    return np.fromiter((int(content_id(text)[:16], 16) for text in events), dtype=np.uint64, count=count)


def test_a_million_records_have_a_million_ids() -> None:
    assert np.unique(halves_of_synthetic_ids(1_000_000)).size == 1_000_000


@pytest.mark.soak
def test_ten_million_records_have_ten_million_ids() -> None:
    assert np.unique(halves_of_synthetic_ids(10_000_000)).size == 10_000_000
