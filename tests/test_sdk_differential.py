"""Every call of the official SDK, made directly and by way of a backfill, leaves the same project."""

from __future__ import annotations

import inspect
import json
import random
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mixpanel
import pytest

from mixpanel_emulator.process import start_emulator
from mixpanel_http import records
from mixpanel_spool.consumer import SpoolConsumer
from tests.backfills import Backfills
from tests.sdk_calls import (
    EVENTS,
    GROUPS,
    IDENTITY,
    PEOPLE,
    SteadyMixpanel,
    direct_consumer,
    random_calls,
    state_of,
)


class Constructors:
    """Calls that look like the SDK's, and keep the records that `mixpanel_http.records` makes."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return partial(self._make, getattr(records, name))

    def _make(self, constructor: Callable[..., dict[str, Any]], *arguments: Any, **more: Any) -> None:
        self.made.append(constructor(*arguments, **more))


def test_the_calls_are_all_that_the_sdk_has() -> None:
    calls = {name for name, _ in inspect.getmembers(mixpanel.Mixpanel, inspect.isfunction)}
    source = (Path(__file__).parent / "sdk_calls.py").read_text()

    wanted = {name for name in calls if name.startswith(("people_", "group_"))}
    assert not [
        name for name in wanted | {"track", "import_data", "alias", "merge"} if f"sdk.{name}(" not in source
    ]


@pytest.mark.parametrize(("kind", "calls"), [("profiles", PEOPLE), ("groups", GROUPS)])
def test_records_made_by_constructors_leave_what_the_sdk_leaves(
    backfills: Backfills, kind: str, calls: tuple[Callable[[Any], object], ...]
) -> None:
    sdk = SteadyMixpanel(1_709_627_400.0, direct_consumer(backfills.emulator))
    for call in calls:
        call(sdk)
    directly = state_of(backfills.emulator)
    assert directly[kind]
    backfills.emulator.reset()
    constructors = Constructors()
    for call in calls:
        call(constructors)
    backfills.write("updates.ndjson", [json.dumps(record).encode() for record in constructors.made])

    outcome = backfills.run(backfills.everything, {"records.kind": kind})

    assert outcome.code == 0, outcome.report
    assert outcome.books["imported"] == len(calls)
    assert state_of(backfills.emulator) == directly


def spool_calls(folder: Path, now: float, calls: Iterable[Callable[[Any], object]], keep_token: bool) -> None:
    with SpoolConsumer(folder, keep_token=keep_token) as spool:
        sdk = SteadyMixpanel(now, spool)
        for call in calls:
            call(sdk)


def assert_the_same(backfills: Backfills, calls: Sequence[Callable[[Any], object]], **how: Any) -> None:
    """Makes calls directly, and by way of a spool and a backfill, and compares what both leave."""
    now = time.time() - 3600  # /track takes what is five days old at most
    sdk = SteadyMixpanel(now, direct_consumer(backfills.emulator))
    for call in calls:
        call(sdk)
    directly = state_of(backfills.emulator)
    backfills.emulator.reset()
    spool_calls(backfills.folder / "input", now, calls, keep_token=bool(how.pop("keep_token", False)))
    how = {"records.kind": "mixed", "records.default_ip": None, **how}

    outcome = backfills.run(str(backfills.folder / "input" / "dt={date}" / "*.jsonl.gz"), how)

    assert outcome.code == 0, outcome.report
    assert outcome.books["imported"] == outcome.books["read"] == len(calls)
    assert state_of(backfills.emulator) == directly


@pytest.mark.parametrize("seed", [1, *(pytest.param(n, marks=pytest.mark.soak) for n in range(2, 12))])
def test_many_calls_in_any_order_leave_what_they_leave_directly(backfills: Backfills, seed: int) -> None:
    assert_the_same(backfills, random_calls(random.Random(seed), 250))


@pytest.mark.parametrize(("identity", "keep_token"), [("simplified", True), ("original", False)])
def test_every_call_by_way_of_the_spool_leaves_what_it_leaves_directly(
    backfills: Backfills, monkeypatch: pytest.MonkeyPatch, identity: str, keep_token: bool
) -> None:
    calls = (*PEOPLE, *GROUPS, *EVENTS, *(IDENTITY if identity == "original" else ()))
    with start_emulator(settings={"identity": identity}) as project:
        backfills.emulator = project
        consumer = direct_consumer(project)
        monkeypatch.setattr(mixpanel, "Consumer", lambda **_: consumer)  # which `alias` makes for itself

        assert_the_same(backfills, calls, keep_token=keep_token, **{"destination.identity": identity})

        left = state_of(project)
        assert left["profiles"]
        assert left["groups"]
        assert len(left["events"]) == len(calls) - len(PEOPLE) - len(GROUPS)
        assert bool(left["identities"]) is (identity == "original")


MAP = """
import datetime as dt
from mixpanel_http import records

def split(row):
    when = dt.datetime.fromisoformat(row["at"])
    yield records.event(row["user"], "Order Paid", when, {"total": row["total"]}, insert_id=row["id"])
    yield records.people_set(row["user"], {"last_order": when})
    yield records.people_track_charge(row["user"], row["total"])
    yield records.group_union("company", row["company"], {"buyers": [row["user"]]})
"""


def test_a_mapping_function_makes_records_of_all_kinds_from_a_row(backfills: Backfills) -> None:
    (backfills.folder / "orders_of_the_differential_test.py").write_text(MAP)
    day = "2024-03-05T08:30:00+00:00"
    rows = [
        {"at": day, "user": f"u-{n % 2}", "total": n + 0.5, "id": f"o-{n}", "company": "acme"}
        for n in range(4)
    ]
    backfills.write("orders.ndjson", rows)
    function = {"records.map": {"function": "orders_of_the_differential_test:split"}}

    outcome = backfills.run(backfills.everything, {"records.kind": "mixed", **function})

    assert outcome.code == 0, outcome.report
    left = state_of(backfills.emulator)
    assert left["profiles"] == {
        f"u-{n}": {
            "last_order": "2024-03-05T08:30:00",
            "$transactions": [{"$amount": n + 0.5}, {"$amount": n + 2.5}],
        }
        for n in range(2)
    }
    assert left["groups"] == {"company acme": {"buyers": ["u-0", "u-1"]}}
    assert [event["properties"]["time"] for event in left["events"]] == [1_709_627_400] * 4
