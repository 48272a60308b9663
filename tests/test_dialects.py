"""Dialects, under one contract: each line of each sample becomes what is written down, and nothing leaks."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpanel_http.event_rules import EventRules
from record_maps.known_dialects import DIALECTS
from record_maps.mapper import NO_RECORD, MappedLines, Mapper
from record_maps.paths import Path as Path_
from record_maps.spec import Const, Spread, Value
from tests.backfills import Backfills
from transforms.elements import Block, Span
from transforms.map_records import map_block
from transforms.prepare_records import prepare_block

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "sample" / "dialects"
EXPECTED = Path(__file__).parent / "data" / "dialects"
PAGES = ROOT / "docs" / "dialects"
INTERNAL = "canary-internal"  # what stands in the samples where a vendor has its own, or somebody's, data
NOW = 1_750_000_000.0
NAMES = sorted(DIALECTS)
# Rules that the map leaves to the judge: what no user of the dialect would have to know.
LATER = {"mixpanel": {"identity_event"}}

# Fields that a dialect's own step reads, so that they are imported under other names.
TAKEN_APART = {"batch", "events", "contexts", "derived_contexts", "event", "event_name", "event_type", "type"}

each_dialect = pytest.mark.parametrize("name", NAMES)


@cache
def lines_of(name: str) -> tuple[bytes, ...]:
    (path,) = SAMPLES.glob(f"{name}.*")
    return tuple(path.read_bytes().splitlines())


@cache
def mapper_of(name: str) -> Mapper:
    return Mapper(DIALECTS[name].spec)


def mapped(name: str, *lines: bytes) -> MappedLines:
    return mapper_of(name).map_lines(lines)


def outcomes(name: str, line: bytes) -> list[Any]:
    found = mapped(name, line)
    return [
        *map(json.loads, found.lines),
        *(f"filtered: {reason}" for _, reason in found.filtered),
        *(f"dead letter: {rejection.reason}" for rejection in found.rejections),
    ]


@each_dialect
def test_each_line_of_the_sample_becomes_what_is_written_down(name: str) -> None:
    expected = [json.loads(line) for line in (EXPECTED / f"{name}.jsonl").read_text().splitlines()]

    assert [outcomes(name, line) for line in lines_of(name)] == expected


@each_dialect
def test_a_sample_has_records_of_every_fate(name: str) -> None:
    found = mapped(name, *lines_of(name))

    assert found.lines
    assert found.rejections
    assert {reason for _, reason in found.filtered} <= {r for r, _ in DIALECTS[name].filtered} | {NO_RECORD}


@each_dialect
def test_what_is_the_vendors_own_does_not_leak(name: str) -> None:
    assert INTERNAL not in b"\n".join(mapped(name, *lines_of(name)).lines).decode()


@each_dialect
def test_columns_that_nobody_knows_are_kept(name: str) -> None:
    for line in lines_of(name):
        if not line.startswith(b"{") or line.startswith(b'{"batch"'):
            continue  # messages of a batch take nothing from around them
        record = json.loads(line)
        (record["properties"] if name == "mixpanel" else record)["brand_new"] = {"kept": 1.0}
        found = mapped(name, json.dumps(record).encode())
        assert all(json.loads(made)["properties"]["brand_new"] == {"kept": 1.0} for made in found.lines)


@each_dialect
def test_mixpanel_takes_what_a_dialect_makes(name: str) -> None:
    records = prepare_block(block_of(name, lines_of(name)), EventRules(), NOW).records

    assert records.count
    assert {rejection.reason for rejection in records.rejections} == LATER.get(name, set())


@each_dialect
def test_ids_are_the_same_however_a_sample_is_cut(name: str) -> None:
    whole = ids_of(name, len(lines_of(name)))

    assert ids_of(name, 1) == whole
    assert len(set(whole)) == len(whole)


def block_of(name: str, lines: tuple[bytes, ...]) -> Block:
    raw = b"".join(line + b"\n" for line in lines)
    block = Block("0", "a", 0, raw, (Span(0, "f", len(lines), len(raw), 1, 0),))
    return map_block(block, mapper_of(name))


def ids_of(name: str, cut: int) -> list[str]:
    lines = lines_of(name)
    bodies = [
        prepare_block(block_of(name, lines[i : i + cut]), EventRules(), NOW).records.body
        for i in range(0, len(lines), cut)
    ]
    sent = [line for body in bodies for line in body.split(b"\n") if line]
    return [json.loads(line)["properties"]["$insert_id"] for line in sent]


# Anything but what the vendor documents.

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 2**70)
    | st.text(max_size=4)
    | st.just("2024-03-05T00:00:00Z"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["key", "value", "data"]), inner)
    ),
    max_leaves=6,
)


@each_dialect
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_each_record_has_its_outcomes_whatever_is_in_it(name: str, data: st.DataObject) -> None:
    known = sorted({key for line in lines_of(name) if line[:1] == b"{" for key in json.loads(line)})
    record = data.draw(st.dictionaries(st.sampled_from(known), VALUES, max_size=6))
    found = mapped(name, json.dumps(record).encode(), b"{}")

    made = len(found.lines) + len(found.filtered) + len(found.rejections)
    assert made == 2 + len(found.expanded)


# Pages.


def sources(value: Value | Spread) -> str:
    if isinstance(value, Spread):
        return "every other field" if not value.path else f"each field of `{'.'.join(map(str, value.path))}`"
    return ", else ".join(
        f"`{source.json.decode()}`" if isinstance(source, Const) else f"`{as_written(source)}`"
        for source in value
    )


def as_written(path: Path_) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)[1:]


def table(name: str) -> str:
    """Returns what a dialect makes of what, as a Markdown table."""
    spec = DIALECTS[name].spec
    rows = [("event", spec.event), ("`time`", spec.time.value), ("`distinct_id`", spec.distinct_id)]
    rows += [("`$insert_id`", spec.insert_id)] if spec.insert_id else []
    properties = [(f"`{key}`", value) for key, value in spec.properties]
    lines = [f"| {key} | {sources(value)} |" for key, value in [*rows, *properties]]
    return "\n".join(["| in Mixpanel | from |", "| --- | --- |", *lines, *not_imported(name)])


def not_imported(name: str) -> list[str]:
    """Returns what a dialect says of fields that it leaves out, each with a line of its own."""
    spec = DIALECTS[name].spec
    spreads = [source for _, source in spec.properties if isinstance(source, Spread)]
    used = {str(path[-1]) for path in paths_of(name)} | TAKEN_APART
    lines = []
    for source in spreads:
        left = sorted(source.without - used)
        where = f"Of `{'.'.join(map(str, source.path))}` not" if source.path else "Not"
        lines += ["", f"{where} imported: {', '.join(f'`{field}`' for field in left)}."] if left else []
    if spec.drop:
        lines += ["", f"Not imported: {', '.join(f'`{glob}`' for glob in sorted(spec.drop))}."]
    return lines


def paths_of(name: str) -> list[tuple[str | int, ...]]:
    """Returns the paths of all that a dialect takes, also of what it takes apart first."""
    spec = DIALECTS[name].spec
    values = [spec.event, spec.time.value, spec.distinct_id, spec.insert_id]
    values += [value for _, value in spec.properties if not isinstance(value, Spread)]
    paths = [source for value in values for source in value if not isinstance(source, Const)]
    paths += [source.path for _, source in spec.properties if isinstance(source, Spread)]
    return [path[:1] for path in paths if path] + [path for path in paths if path]


@each_dialect
def test_a_page_says_what_becomes_of_what(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text()

    assert table(name) in page
    left_out = dict(DIALECTS[name].filtered)
    assert all(f"`{reason}`" in page for reason in left_out)


def test_each_dialect_has_its_page_and_its_sample_and_no_other_has() -> None:
    assert [path.stem for path in sorted(PAGES.glob("*.md"))] == NAMES
    assert sorted(path.stem for path in SAMPLES.iterdir()) == NAMES
    listed = re.findall(r"\(dialects/(\w+)\.md\)", (ROOT / "docs" / "mapping.md").read_text())
    assert sorted(set(listed)) == NAMES


# Whole runs.


@each_dialect
def test_a_sample_arrives_and_the_books_close(name: str, backfills: Backfills) -> None:
    (path,) = SAMPLES.glob(f"{name}.*")
    found = mapped(name, *lines_of(name))

    outcome = backfills.run(str(path), {"records.map": {"dialect": name}, "source.format": "ndjson"})

    assert outcome.books["balanced"]
    assert outcome.books["read"] == len(lines_of(name))
    assert outcome.books["expanded"] == len(found.expanded)
    assert outcome.books["filtered"] == len(found.filtered)
    assert outcome.books["imported"] + len(LATER.get(name, ())) == len(found.lines)


@pytest.mark.parametrize(
    "others",
    [
        "",
        '5,"x",null,[],',
        '{"key":"a"},{"value":{"int_value":1}},{"key":"b","value":"text"},{"key":"c","value":null},',
        '{"key":"d","value":[],"key":"e","value":{"int_value":"7"}},',
    ],
    ids=["none", "no objects", "no values", "a key twice"],
)
def test_what_is_no_parameter_of_google_does_not_touch_those_that_are(others: str) -> None:
    plan = '{"key":"plan","value":{"string_value":"\\u00e9","int_value":null}}'
    good = plan + ',{"key":null,"value":{"double_value":1.50}}'
    line = f'{{"event_name":"e","event_timestamp":"1709627400123456","event_params":[{others}{good}]}}'
    (made,) = mapped("ga4", line.encode()).lines
    properties = json.loads(made, parse_float=str)["properties"]

    twice = {"e": 7} if '"e"' in others else {}
    assert {k: v for k, v in properties.items() if k != "time"} == {"plan": "é", "null": "1.50"} | twice
