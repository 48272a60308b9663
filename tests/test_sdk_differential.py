"""Every call of the official SDK, made directly and by way of a backfill, leaves the same project."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mixpanel
import pytest

from mixpanel_http import records
from tests.backfills import Backfills
from tests.sdk_calls import GROUPS, PEOPLE, SteadyMixpanel, direct_consumer, state_of


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
