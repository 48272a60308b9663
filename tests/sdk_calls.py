"""Every call of the official SDK that changes a project, and the state that a project is left in."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import mixpanel

from mixpanel_emulator.process import EmulatorProcess

Sdk = Any
WHEN = 1_709_627_400
UUID = "0b1f6c3e-7a55-4c9e-9d0e-3b3f5f3f2a11"

# In this order; of each profile, every operation finds something to work on.
PEOPLE: tuple[Callable[[Sdk], object], ...] = (
    lambda sdk: sdk.people_set("u", {"a": 1, "gone": 1, "list": ["x", "y"], "é": "ü"}),
    lambda sdk: sdk.people_set_once("u", {"a": 2, "b": 2}),
    lambda sdk: sdk.people_increment("u", {"n": 3, "m": -0.5}),
    lambda sdk: sdk.people_increment("u", {"n": 4}),
    lambda sdk: sdk.people_append("u", {"log": "first"}),
    lambda sdk: sdk.people_append("u", {"log": "second"}),
    lambda sdk: sdk.people_union("u", {"list": ["y", "z"]}),
    lambda sdk: sdk.people_remove("u", {"list": "x"}),
    lambda sdk: sdk.people_unset("u", ["gone"]),
    lambda sdk: sdk.people_track_charge("u", 9.5, {"sku": "s"}),
    lambda sdk: sdk.people_track_charge("v", 1),
    lambda sdk: sdk.people_clear_charges("v"),
    lambda sdk: sdk.people_update({"$distinct_id": "u", "$set": {"c": 3}}, meta={"$ignore_alias": True}),
    lambda sdk: sdk.people_set("w", {"a": 1}),
    lambda sdk: sdk.people_delete("w"),
)
GROUPS: tuple[Callable[[Sdk], object], ...] = (
    lambda sdk: sdk.group_set("company", "acme", {"a": 1, "gone": 1, "list": ["x"]}),
    lambda sdk: sdk.group_set_once("company", "acme", {"a": 2, "b": 2}),
    lambda sdk: sdk.group_union("company", "acme", {"list": ["y"]}),
    lambda sdk: sdk.group_remove("company", "acme", {"list": "x"}),
    lambda sdk: sdk.group_unset("company", "acme", ["gone"]),
    lambda sdk: sdk.group_update({"$group_key": "company", "$group_id": "acme", "$set": {"c": 3}}),
    lambda sdk: sdk.group_set("company", "old", {"a": 1}),
    lambda sdk: sdk.group_delete("company", "old"),
)
EVENTS: tuple[Callable[[Sdk], object], ...] = (
    lambda sdk: sdk.track("u", "Signed Up", {"plan": "pro", "n": 1.5}),
    lambda sdk: sdk.track("u", "Seen", {"deep": {"a": [1, None]}}),
    lambda sdk: sdk.import_data("KEY", "u", "Old", WHEN, {"total": 79.0}, api_secret="SECRET"),
)
IDENTITY: tuple[Callable[[Sdk], object], ...] = (
    lambda sdk: sdk.alias("alias-1", "u"),
    lambda sdk: sdk.alias("alias-2", "alias-1"),
    lambda sdk: sdk.merge("KEY", "u", "v", api_secret="SECRET"),
    lambda sdk: sdk.track("u", "$identify", {"$identified_id": "u", "$anon_id": UUID}),
)


def random_calls(chance: random.Random, count: int) -> list[Callable[[Sdk], object]]:
    """Returns calls over a few profiles and groups, whose order decides what is left of each."""

    def one() -> Callable[[Sdk], object]:
        who, name, number = f"p-{chance.randrange(6)}", chance.choice("abc"), chance.randrange(5)
        group = ("company", f"g-{chance.randrange(3)}")
        return chance.choice(
            [
                lambda sdk: sdk.people_set(who, {name: number}),
                lambda sdk: sdk.people_set_once(who, {name: number}),
                lambda sdk: sdk.people_increment(who, {"n": number}),
                lambda sdk: sdk.people_append(who, {"list": number}),
                lambda sdk: sdk.people_union(who, {"list": [number, name]}),
                lambda sdk: sdk.people_remove(who, {"list": number}),
                lambda sdk: sdk.people_unset(who, [name]),
                lambda sdk: sdk.people_delete(who),
                lambda sdk: sdk.people_track_charge(who, number),
                lambda sdk: sdk.people_clear_charges(who),
                lambda sdk: sdk.group_set(*group, {name: number}),
                lambda sdk: sdk.group_union(*group, {"list": [number]}),
                lambda sdk: sdk.group_remove(*group, {"list": number}),
                lambda sdk: sdk.group_delete(*group),
                lambda sdk: sdk.track(who, "Seen", {name: number}),
            ]
        )

    return [one() for _ in range(count)]


STAMPED = ("token", "$last_seen", "$import")


class SteadyMixpanel(mixpanel.Mixpanel):  # type: ignore[misc]
    """The SDK with a clock and ids that are the same each time, so that two runs of calls can be compared."""

    def __init__(self, now: float, consumer: Any) -> None:
        super().__init__("PROJECT_TOKEN", consumer=consumer)
        self._steady_now = now
        self._calls = 0

    def _now(self) -> float:
        return self._steady_now

    def _make_insert_id(self) -> str:
        self._calls += 1
        return f"id-{self._calls:06d}"

    def alias(self, alias_id: str, original: str, meta: Any = None) -> None:
        """Leaves an alias to a consumer that can take it, as docs/spool.md says; else the SDK sends it."""
        if hasattr(self._consumer, "alias"):
            self._consumer.alias(alias_id, original, meta)
        else:
            super().alias(alias_id, original, meta)


def direct_consumer(emulator: EmulatorProcess) -> Any:
    """Returns the SDK's own consumer, which sends each call at once."""
    return mixpanel.Consumer(
        events_url=emulator.url + "/track",
        people_url=emulator.url + "/engage",
        groups_url=emulator.url + "/groups",
        import_url=emulator.url + "/import",
    )


def state_of(emulator: EmulatorProcess) -> dict[str, Any]:
    """Returns what a project holds, apart from the token and from when it was written."""

    def rows(kind: str) -> list[dict[str, Any]]:
        return [json.loads(raw) for raw in emulator.records(kind=kind)]

    return {
        "profiles": {row["$distinct_id"]: _without_stamps(row["$properties"]) for row in rows("profiles")},
        "groups": {
            f"{row['$group_key']} {row['$group_id']}": _without_stamps(row["$properties"])
            for row in rows("groups")
        },
        "events": sorted(map(_event, rows("events")), key=lambda event: json.dumps(event, sort_keys=True)),
        "identities": {row["id"]: row["canonical"] for row in rows("identities")},
    }


def _event(row: dict[str, Any]) -> dict[str, Any]:
    properties = _without_stamps(row["properties"])
    if row["event"] in ("$create_alias", "$merge", "$identify"):
        # The SDK gives them neither time nor id, which /import wants.
        properties = {k: v for k, v in properties.items() if k not in ("time", "$insert_id", "distinct_id")}
    return {**row, "properties": properties}


def _without_stamps(properties: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if name not in STAMPED}
