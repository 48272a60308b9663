"""Constructors of records: what each makes is what the official SDK would have sent."""

import datetime as dt
import inspect
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import mixpanel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_http import records

NOON = dt.datetime(2024, 3, 5, 12, 0, 7, 999_999, tzinfo=dt.timezone(dt.timedelta(hours=2)))
STAMPED_BY_THE_SDK = ("token", "$token", "$time", "time", "$insert_id", "mp_lib", "$lib_version")
PROPERTIES = {"a": 1, "when": NOON, "deep": {"dates": [NOON, (1, None)], "flag": True}, "f": 1.5}
META = {"$ip": "0", "at": NOON}
GROUP = ("company", "acme")

# Each call with the same arguments for the SDK and for ours.
CALLS: dict[str, tuple[Any, ...]] = {
    "people_set": ("u", PROPERTIES),
    "people_set_once": ("u", PROPERTIES),
    "people_increment": ("u", {"n": -2, "m": 0.5}),
    "people_append": ("u", {"log": "x", "at": NOON}),
    "people_union": ("u", {"list": ["x", NOON]}),
    "people_remove": ("u", {"list": "x"}),
    "people_unset": ("u", ["a", "b"]),
    "people_delete": ("u",),
    "people_track_charge": ("u", 9.5, {"sku": "s", "$time": NOON}),
    "people_clear_charges": ("u",),
    "people_update": ({"$distinct_id": "u", "$set": PROPERTIES, "$ignore_time": True},),
    "group_set": (*GROUP, PROPERTIES),
    "group_set_once": (*GROUP, PROPERTIES),
    "group_union": (*GROUP, {"list": ["x"]}),
    "group_remove": (*GROUP, {"list": "x"}),
    "group_unset": (*GROUP, ["a"]),
    "group_delete": GROUP,
    "group_update": ({"$group_key": "company", "$group_id": "acme", "$set": PROPERTIES},),
}


class Capture:
    """A consumer that keeps what it is given."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def send(self, endpoint: str, json_message: str, *_: object) -> None:
        self.messages.append(_without_stamps(json.loads(json_message)))


def _without_stamps(message: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in message.items() if key not in STAMPED_BY_THE_SDK}
    if "properties" in kept:
        kept["properties"] = _without_stamps(kept["properties"])
    return kept


def _sent_by_the_sdk(call: Callable[[Any], object]) -> dict[str, Any]:
    capture = Capture()
    call(mixpanel.Mixpanel("TOKEN", consumer=capture))
    (message,) = capture.messages
    return message


@pytest.mark.parametrize("meta", [None, META], ids=["plain", "with meta"])
@pytest.mark.parametrize("name", CALLS)
def test_a_record_is_what_the_sdk_sends_without_its_stamps(name: str, meta: dict[str, Any] | None) -> None:
    arguments = CALLS[name]
    by_sdk = _sent_by_the_sdk(lambda sdk: getattr(sdk, name)(*_copied(arguments), meta=meta))

    assert getattr(records, name)(*arguments, meta=meta) == by_sdk


def _copied(arguments: tuple[Any, ...]) -> list[Any]:
    # people_track_charge of the SDK writes into what it is given
    return [dict(each) if isinstance(each, dict) else each for each in arguments]


def test_every_call_of_the_sdk_that_updates_a_profile_has_its_constructor() -> None:
    calls = {name for name, _ in inspect.getmembers(mixpanel.Mixpanel, inspect.isfunction)}

    assert {name for name in calls if name.startswith(("people_", "group_"))} == set(CALLS)
    assert all(callable(getattr(records, name)) for name in (*CALLS, "event", "alias", "merge", "identify"))


@pytest.mark.parametrize("meta", [None, META], ids=["plain", "with meta"])
def test_an_event_is_what_track_and_import_data_send(meta: dict[str, Any] | None) -> None:
    made = _without_stamps(records.event("u", "Paid", 1709627400, PROPERTIES, meta=meta))

    assert made == _sent_by_the_sdk(lambda sdk: sdk.track("u", "Paid", PROPERTIES, meta=meta))
    assert made == _sent_by_the_sdk(
        lambda sdk: sdk.import_data(None, "u", "Paid", 1709627400, PROPERTIES, meta=meta)
    )


def test_an_event_has_the_time_that_it_is_given() -> None:
    utc = dt.datetime(2024, 3, 5, 10, 0, 7, tzinfo=dt.timezone.utc)

    def time_of(moment: float | dt.datetime) -> float:
        return float(records.event("u", "Paid", moment)["properties"]["time"])

    assert time_of(1709632807) == time_of(utc) == time_of(utc.replace(tzinfo=None)) == 1709632807
    assert time_of(NOON) == 1709632807.999999


def test_an_event_has_no_id_but_one_that_it_is_given() -> None:
    assert "$insert_id" not in records.event("u", "Paid", 1)["properties"]
    assert records.event("u", "Paid", 1, insert_id="i-1")["properties"]["$insert_id"] == "i-1"


def test_properties_win_over_arguments_as_in_the_sdk() -> None:
    assert records.event("u", "Paid", 1, {"time": 2, "distinct_id": "v"})["properties"] == {
        "distinct_id": "v",
        "time": 2,
    }


def test_identity_records_are_what_the_sdk_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = Capture()
    monkeypatch.setattr(mixpanel, "Consumer", lambda: capture)  # alias sends by itself
    sdk = mixpanel.Mixpanel("TOKEN", consumer=capture)
    sdk.alias("a", "u", meta=META)
    sdk.merge(None, "u", "v", meta=META)

    assert [records.alias("a", "u", meta=META), records.merge("u", "v", meta=META)] == capture.messages


def test_nothing_that_is_given_is_changed() -> None:
    charge, meta = {"sku": "s"}, {"$ip": "0"}
    records.people_track_charge("u", 1.0, charge, meta)

    assert (charge, meta) == ({"sku": "s"}, {"$ip": "0"})


@pytest.mark.parametrize("value", [Decimal("1.5"), dt.date(2024, 3, 5), {1, 2}, b"x", object()])
def test_what_json_has_no_form_for_is_refused_as_by_the_sdk(value: object) -> None:
    with pytest.raises(TypeError):
        _sent_by_the_sdk(lambda sdk: sdk.people_set("u", {"deep": [value]}))
    with pytest.raises(TypeError, match=f"a {type(value).__name__} has no form in JSON"):
        records.people_set("u", {"deep": [value]})


def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="is text, not int"):
        records.people_set("u", {"deep": {1: "x"}})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_any_properties_become_what_the_sdk_makes_of_them(properties: dict[str, Any]) -> None:
    by_sdk = _sent_by_the_sdk(lambda sdk: sdk.people_set("u", properties))

    assert json.loads(json.dumps(records.people_set("u", properties))) == by_sdk
