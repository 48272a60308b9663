"""Configurations: the shipped ones load, and what is given to them is what it looks like."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.config_reading import load_run, with_beam_options
from tests.configurations import LOCAL, REMOTE, ROOT, Load


@pytest.mark.parametrize("path", sorted((ROOT / "configs").iterdir()), ids=lambda path: path.name)
def test_every_shipped_configuration_loads(path: Path) -> None:
    assert load_run(str(path)).destinations


def test_two_keys_are_enough(load: Load) -> None:
    config = load(LOCAL)

    assert config.source.uris == ["x.json"]
    assert config.records.kind == "events"
    assert config.limits.records_per_request == 2000
    assert config.beam.runner == "DirectRunner"


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("limits.in_flight=8", "limits.in_flight", 8),
        ("limits.events_per_second=1e4", "limits.events_per_second", 10_000.0),
        ("source.uri=[a.json, b.json]", "source.uri", ["a.json", "b.json"]),
        ("source.uri=s3://b/dt={date}/*", "source.uri", "s3://b/dt={date}/*"),
        ("source.storage_options.anon=true", "source.storage_options", {"anon": True}),
        ("run.id=20240401", "run.id", "20240401"),
        ("run.id=007", "run.id", "007"),
        ("run.max_errors=null", "run.max_errors", None),
        ("run.allow_dead_letters=1%", "run.allow_dead_letters", "1%"),
        ("records.insert_id={mode: fields, fields: [a]}", "records.insert_id.fields", ["a"]),
    ],
)
def test_an_override_replaces_one_value(load: Load, override: str, path: str, value: object) -> None:
    found: object = load(LOCAL, override)
    for name in path.split("."):
        found = getattr(found, name)

    assert found == value


def test_the_last_of_two_overrides_counts(load: Load) -> None:
    assert load(LOCAL, "run.id=a", "run.id=b").run.id == "b"


def test_an_override_fills_a_section_that_is_empty(load: Load) -> None:
    assert load("source: {uri: x}\ndestination:\n", "destination.emulator=true").destination.emulator


@pytest.mark.parametrize(
    "encode", [lambda t: "\ufeff" + t, lambda t: t.replace("\n", "\r\n")], ids=["BOM", "CRLF"]
)
def test_files_from_windows_load(load: Load, encode: Callable[[str], str]) -> None:
    assert load(encode(LOCAL)).destination.emulator


def test_dates_and_numbers_are_what_they_look_like(load: Load) -> None:
    text = """
source: {uri: 'x/{date}/*', dates: {from: 2024-02-29, to: "2024-03-01"}}
destination:
  credentials:
    service_account: {username: env:A, secret: file:/run/secrets/mixpanel}
    project_id: 1234567
limits: {events_per_second: 1e3, bytes_per_minute: 1.5e6}
run: {allow_dead_letters: 0.1%, max_errors: 100}
"""
    config = load(text)

    assert config.source.dates is not None
    assert (config.source.dates.from_, config.source.dates.to) == (dt.date(2024, 2, 29), dt.date(2024, 3, 1))
    assert config.destination.credentials is not None
    assert config.destination.credentials.project_id == "1234567"
    assert (config.limits.events_per_second, config.limits.bytes_per_minute) == (1000.0, 1_500_000.0)
    assert (config.run.allow_dead_letters, config.run.max_errors) == ("0.1%", 100)


def test_the_endpoint_is_the_regions_unless_another_is_meant(load: Load) -> None:
    other = "destination.endpoint=https://proxy.example"

    assert load(REMOTE).destination.to_destination().base_url == "https://api.mixpanel.com"
    assert load(REMOTE, "destination.region=in").destination.to_destination().base_url == (
        "https://api-in.mixpanel.com"
    )
    allowed = load(REMOTE, other, "destination.allow_any_endpoint=true")
    assert allowed.destination.to_destination().base_url == "https://proxy.example"


def test_options_of_the_command_line_stand_above_those_of_the_file(load: Load) -> None:
    config = load(LOCAL + "beam: {options: {direct_num_workers: 2, job_name: x}}\n")
    beam = with_beam_options(config, {"direct_num_workers": 3}).beam
    assert (beam.runner, beam.options) == ("DirectRunner", {"direct_num_workers": 3, "job_name": "x"})
