"""The official Python SDK, as published, against the emulator."""

import json
import time
from typing import Any

import pytest

from mixpanel_emulator.process import EmulatorProcess
from tests.emulator.conftest import StartEmulator

mixpanel = pytest.importorskip(
    "mixpanel", reason="the official SDK is not installed: it is not run against the emulator"
)


def consumer(emulator: EmulatorProcess, kind: str = "Consumer", **more: Any) -> Any:
    """Returns an SDK consumer; `api_host` would always get https, so every address is given whole."""
    addresses = {
        "events_url": emulator.url + "/track",
        "people_url": emulator.url + "/engage",
        "groups_url": emulator.url + "/groups",
        "import_url": emulator.url + "/import",
    }
    return getattr(mixpanel, kind)(**addresses, **more)


def client(emulator: EmulatorProcess, **more: Any) -> Any:
    return mixpanel.Mixpanel("PROJECT_TOKEN", consumer=consumer(emulator, **more))


def events(emulator: EmulatorProcess) -> list[dict[str, Any]]:
    return [json.loads(raw) for raw in emulator.records()]


def profiles(emulator: EmulatorProcess, kind: str = "profiles") -> dict[str, dict[str, Any]]:
    rows = [json.loads(raw) for raw in emulator.records(kind=kind)]
    return {row.get("$distinct_id") or row["$group_id"]: row["$properties"] for row in rows}


def test_track_arrives(emulator: EmulatorProcess) -> None:
    client(emulator).track("user-1", "Signup", {"plan": "pro"})
    (stored,) = events(emulator)
    assert stored["event"] == "Signup"
    assert stored["properties"]["plan"] == "pro"
    assert stored["properties"]["token"] == "PROJECT_TOKEN"


def test_import_data_arrives_however_old(emulator: EmulatorProcess) -> None:
    client(emulator).import_data(
        api_key="key", distinct_id="user-1", event_name="Old", timestamp=1420070400, api_secret="secret"
    )
    account = mixpanel.ServiceAccountCredentials("user", "secret", "1")
    sdk = mixpanel.Mixpanel("PROJECT_TOKEN", consumer=consumer(emulator, credentials=account))
    sdk.import_data(None, "user-1", "Older", 1400000000)
    assert [stored["event"] for stored in events(emulator)] == ["Old", "Older"]


def test_every_people_call_changes_the_profile(emulator: EmulatorProcess) -> None:
    sdk = client(emulator)
    sdk.people_set("u", {"a": 1, "gone": 1, "list": ["x", "y"]})
    sdk.people_set_once("u", {"a": 2, "b": 2})
    sdk.people_increment("u", {"n": 3})
    sdk.people_append("u", {"log": "first"})
    sdk.people_union("u", {"list": ["y", "z"]})
    sdk.people_remove("u", {"list": "x"})
    sdk.people_unset("u", ["gone"])
    sdk.people_track_charge("u", 9.5, {"sku": "s"})
    sdk.people_update({"$distinct_id": "u", "$set": {"c": 3}})
    stored = profiles(emulator)["u"]
    assert {key: stored[key] for key in ("a", "b", "c", "n")} == {"a": 1, "b": 2, "c": 3, "n": 3}
    assert stored["list"] == ["y", "z"]
    assert stored["log"] == ["first"]
    assert "gone" not in stored
    assert stored["$transactions"][0]["$amount"] == 9.5
    sdk.people_clear_charges("u")
    assert "$transactions" not in profiles(emulator)["u"]
    sdk.people_delete("u")
    assert profiles(emulator) == {}


def test_every_group_call_changes_the_group_profile(emulator: EmulatorProcess) -> None:
    sdk = client(emulator)
    sdk.group_set("company", "acme", {"a": 1, "gone": 1, "list": ["x"]})
    sdk.group_set_once("company", "acme", {"a": 2, "b": 2})
    sdk.group_union("company", "acme", {"list": ["y"]})
    sdk.group_remove("company", "acme", {"list": "x"})
    sdk.group_unset("company", "acme", ["gone"])
    sdk.group_update({"$group_key": "company", "$group_id": "acme", "$set": {"c": 3}})
    assert profiles(emulator, "groups")["acme"] == {"a": 1, "b": 2, "c": 3, "list": ["y"]}
    sdk.group_delete("company", "acme")
    assert profiles(emulator, "groups") == {}


def test_alias_and_merge_join_identities(start: StartEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    project = start(identity="original")
    # `alias` makes a consumer of its own, with the public addresses, whatever consumer the client was given.
    ours = consumer(project)
    monkeypatch.setattr(mixpanel, "Consumer", lambda: ours)
    sdk = mixpanel.Mixpanel("PROJECT_TOKEN", consumer=ours)
    sdk.alias("alias-1", "user-1")
    sdk.merge("key", "user-1", "user-2", api_secret="secret")
    assert [stored["event"] for stored in events(project)] == ["$create_alias", "$merge"]


def test_merge_is_refused_by_a_simplified_project(emulator: EmulatorProcess) -> None:
    with pytest.raises(mixpanel.MixpanelException):
        client(emulator).merge("key", "user-1", "user-2", api_secret="secret")
    assert emulator.stats()["stored"] == 0


def test_the_buffered_consumer_sends_everything_in_batches(emulator: EmulatorProcess) -> None:
    buffered = consumer(emulator, "BufferedConsumer", max_size=20)
    sdk = mixpanel.Mixpanel("PROJECT_TOKEN", consumer=buffered)
    for number in range(50):
        sdk.track("user-1", "Signup", {"n": number})
        sdk.people_set("user-1", {"n": number})
    buffered.flush()
    counts = emulator.stats()
    assert counts["requests_by_path"] == {"/engage": 3, "/track": 3}
    assert counts["distinct"] == 50
    assert profiles(emulator)["user-1"]["n"] == 49


def test_the_sdk_retries_an_outage_and_nothing_is_stored_twice_in_reports(emulator: EmulatorProcess) -> None:
    outage = {"name": "outage", "path": "/track", "when": {"times": 2}, "do": {"status": 503, "commit": True}}
    emulator.faults([outage])
    sender = consumer(emulator, retry_backoff_factor=0.01)
    # The SDK retries over https only; the emulator speaks plain http.
    sender._session.mount("http://", sender._session.get_adapter("https://"))
    sdk = mixpanel.Mixpanel("PROJECT_TOKEN", consumer=sender)
    sdk.track("user-1", "Signup", {"time": int(time.time())})
    counts = emulator.stats()
    assert counts["faults"] == {"outage": 2}
    assert (counts["stored"], counts["distinct"], counts["duplicates_that_differ"]) == (3, 1, 0)


def test_the_sdk_raises_when_the_emulator_refuses(emulator: EmulatorProcess) -> None:
    sdk = mixpanel.Mixpanel("", consumer=consumer(emulator))
    with pytest.raises(mixpanel.MixpanelException):
        sdk.track("user-1", "Signup")
    assert emulator.stats()["refused"] == 1
