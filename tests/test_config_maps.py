"""Maps in configurations: what is wrong with one is told at once."""

import json
from pathlib import Path

import pytest

from record_maps.mapper import Mapper
from tests.configurations import LOCAL, Load, errors_of

MAPPED = LOCAL + "records:\n  map:\n"


def test_all_that_is_wrong_with_a_map_is_told_at_once(load: Load) -> None:
    text = (
        MAPPED
        + """
    event: [name, {const: x, constant: y}]
    time: {from: a..b, zone: Europe/Berlyn, format: epoch}
    distinct_id: ''
    properties: {a: [], "b*": c, d: 7}
    flatten: {depth: 0}
    personal_data: {hash: {keys: [email], patterns: [mail]}}
    function: not a name
    dialect: mixpanl
    dates: {from: 2024-02-30, to: 2024-03-01}
    tags: {a: 1}
    rename: [a]
    drp: [a]
"""
    )

    errors = errors_of(load, text)
    assert [error.partition(":")[0] for error in errors] == [
        *("records.map.dialect", "records.map.function", "records.map.event", "records.map.time.from"),
        *("records.map.time.format", "records.map.time.zone", "records.map.distinct_id"),
        *("records.map.properties", "records.map.rename", "records.map.flatten.depth"),
        *("records.map.personal_data.hash.patterns.0", "records.map.dates.from", "records.map.drp"),
    ]
    told = "\n".join(errors)
    assert "'a..b' is no path from character 3 on" in told
    assert "'Europe/Berlyn' is no time zone" in told
    assert "a: an empty list names no source; b*: 'b*': a name with *" in told
    assert "did you mean drop?" in told


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("    personal_data: {hash: {keys: [a]}}\n", "hash and salt go together"),
        ("    personal_data: {hash: {keys: [a]}, salt: plain}\n", "by reference only"),
        ("    event: $.name\n", "a path begins with a key of the record, without $"),
        ("    event: {const: 7}\n", "a constant name must be text"),
        ("    event: n\n    rename: {at: time}\n", "rename: time has a key of its own, records.map.time"),
        ("    event: n\n    properties: {$insert_id: id}\n", "records.map.$insert_id"),
        ("    event: n\n    tags: {distinct_id: x}\n", "tags: distinct_id has a key of its own"),
        ("    event: n\n    tags: {a: {b: {c: {d: {}}}}}\n", "must not nest deeper than 3 levels"),
        ("    event: n\n    rename: {a: ' '}\n", "must not be blank"),
        ("    event: n\n    rename: {a: b}\n    drop: [a]\n", "a is renamed to b, and drop takes new names"),
        ("    event: n\n    time: {format: '%d.%m.'}\n", "a pattern without a year"),
        ("    event: n\n    time: {offset: 1.0e30}\n", "records.map.time.offset"),
        (
            "    properties: {plan: user.plan}\n",
            "properties: plan: without event, records have Mixpanel's shape",
        ),
        ("    properties: {'*': '*'}\n", "all properties are properties.*"),
        ("    distinct_id: user\n", "event is required, unless the records have Mixpanel's shape"),
        ("    function: no_such_module_here:f\n", "no_such_module_here cannot be imported"),
        ("    dialect: snowplow\n", "reads the lines itself; give source.format: ndjson"),
        ("    tags: {a: 1}\n  kind: profiles\n", "with records.kind profiles it may hold a function alone"),
    ],
)
def test_a_map_that_cannot_be_meant_is_refused(load: Load, text: str, words: str) -> None:
    (error,) = errors_of(load, MAPPED + text)

    assert words in error


def test_a_function_is_found_beside_the_configuration(load: Load, tmp_path: Path) -> None:
    (tmp_path / "beside_the_configuration.py").write_text("def f(record): return record\n")

    declared = load(MAPPED + "    function: beside_the_configuration:f\n").records.map
    assert declared is not None
    assert declared.to_spec().function == "beside_the_configuration:f"


def test_a_map_without_event_keeps_mixpanels_shape(load: Load) -> None:
    declared = load(MAPPED + "    time: {zone: Europe/Berlin}\n").records.map

    assert declared is not None
    assert declared.to_spec().time.value == (("properties", "time"),)
    assert declared.to_spec().time.zone == "Europe/Berlin"


def test_fields_that_are_called_as_mixpanel_calls_them_need_not_be_named(load: Load) -> None:
    declared = load(MAPPED + "    event: name\n    time: {format: '%d.%m.%Y'}\n").records.map
    assert declared is not None

    (line,) = (
        Mapper(declared.to_spec())
        .map_lines([b'{"name":"a","time":"05.03.2024","distinct_id":7,"$insert_id":"i_1","x":1}'])
        .lines
    )
    made = json.loads(line)["properties"]
    assert (made["time"], made["distinct_id"], made["x"]) == (1709596800000, "7", 1)
    assert len(made["$insert_id"]) == 32


def test_dates_hold_also_where_the_time_is_not_named(load: Load) -> None:
    days = "    dates: {from: 2024-03-05, to: 2024-03-05}\n"
    declared = load(MAPPED + "    event: name\n" + days).records.map
    assert declared is not None

    mapped = Mapper(declared.to_spec()).map_lines(
        [
            b'{"name":"a","time":1709683200,"distinct_id":"u"}',
            b'{"name":"a","time":1709683199,"distinct_id":"u"}',
        ]
    )
    assert mapped.filtered == [(0, "date")]


@pytest.mark.parametrize("text", ["def f(): return None", "async def f(record): return record"])
def test_a_function_that_cannot_take_a_record_is_refused(load: Load, tmp_path: Path, text: str) -> None:
    module = f"takes_none_{len(text)}"
    (tmp_path / f"{module}.py").write_text(text + "\n")

    (error,) = errors_of(load, MAPPED + f"    function: {module}:f\n")
    assert "must be callable with one record, and not be async" in error
