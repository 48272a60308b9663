"""mixpanel-headless, as published, reading back what was sent."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mixpanel_emulator.process import EmulatorProcess
from tests.emulator.talk import JSON, basic, call, event, send

headless = pytest.importorskip(
    "mixpanel_headless", reason="mixpanel-headless is not installed: it is not run against the emulator"
)
START = 1700006400  # 2023-11-15 00:00 UTC


@pytest.fixture
def workspace(emulator: EmulatorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    account = {
        "HOME": str(tmp_path),
        "MP_API_BASE_URL": emulator.url,
        "MP_USERNAME": "user",
        "MP_SECRET": "secret",
        "MP_PROJECT_ID": "1",
        "MP_REGION": "us",
    }
    for name, value in account.items():
        monkeypatch.setenv(name, value)
    opened = headless.Workspace()
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def sent(emulator: EmulatorProcess) -> list[dict[str, Any]]:
    events = [
        {**event(n, time=START + n % 2 * 86400 + n, plan="pro" if n % 4 else "free"), "event": f"E{n % 2}"}
        for n in range(40)
    ]
    for _ in range(2):  # what is sent twice is counted once in reports and exported twice
        assert send(emulator.url, events).status == 200
    return events


def test_events_are_streamed_with_every_copy(workspace: Any, sent: list[dict[str, Any]]) -> None:
    rows = list(workspace.stream_events(from_date="2023-11-15", to_date="2023-11-16", raw=True))
    ids = sorted(row["properties"]["$insert_id"] for row in rows)
    assert ids == sorted(2 * [one["properties"]["$insert_id"] for one in sent])


def test_events_are_streamed_by_name_expression_and_limit(workspace: Any) -> None:
    days = {"from_date": "2023-11-15", "to_date": "2023-11-16"}
    some = list(workspace.stream_events(**days, events=["E1"], where='properties["plan"]=="pro"', limit=7))
    assert len(some) == 7
    assert {row["event_name"] for row in some} == {"E1"}


def test_profiles_are_streamed_over_several_pages(workspace: Any, emulator: EmulatorProcess) -> None:
    for first in (0, 1200):
        updates = [
            {"$token": "t", "$distinct_id": f"u{n}", "$set": {"n": n, "plan": "pro"}}
            for n in range(first, first + 1200)
        ]
        body = json.dumps(updates).encode()
        assert call(emulator.url, "POST", "/engage", body, {"Content-Type": JSON}).body == b"1"
    rows = list(workspace.stream_profiles())
    assert {row["distinct_id"] for row in rows} == {f"u{n}" for n in range(2400)}
    assert len(list(workspace.stream_profiles(where='user["n"] < 10'))) == 10


def test_event_counts_are_those_of_distinct_events(workspace: Any) -> None:
    counted = workspace.event_counts(events=["E0", "E1"], from_date="2023-11-15", to_date="2023-11-16")
    assert counted.series == {
        "E0": {"2023-11-15": 20, "2023-11-16": 0},
        "E1": {"2023-11-15": 0, "2023-11-16": 20},
    }


def test_segmentation_splits_by_a_property(workspace: Any) -> None:
    asked = {"event": "E0", "from_date": "2023-11-15", "to_date": "2023-11-15"}
    assert workspace.segmentation(**asked).total == 20
    split = workspace.segmentation(**asked, on="plan")
    assert {segment: sum(days.values()) for segment, days in split.series.items()} == {"free": 10, "pro": 10}


def test_lexicon_schemas_are_listed(workspace: Any, emulator: EmulatorProcess) -> None:
    definition = {"description": "d", "properties": {"plan": {"type": "string"}}}
    entry = {"entityType": "event", "name": "E0", "schemaJson": definition}
    body = json.dumps({"entries": [entry]}).encode()
    call(emulator.url, "POST", "/api/app/projects/1/schemas", body, {"Authorization": basic("t")})
    (listed,) = workspace.lexicon_schemas(entity_type="event")
    assert listed.name == "E0"
    assert workspace.lexicon_schemas(entity_type="profile") == []


def test_event_names_are_listed(workspace: Any) -> None:
    assert set(workspace.events(from_date="2023-11-15", to_date="2023-11-16")) == {"E0", "E1"}
