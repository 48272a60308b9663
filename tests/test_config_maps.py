"""Maps in configurations: what is wrong with one is told at once."""

from pathlib import Path

import pytest

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
