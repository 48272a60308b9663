"""The quick look at an event never says anything else than the full rules."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpanel_emulator.event_rules import BANNED_IDS, EventRules
from mixpanel_emulator.quick_look import make_quick_look
from mixpanel_emulator.settings import Settings

NOW_MS = 1_795_000_000_000
IDS = st.one_of(
    st.sampled_from(sorted(BANNED_IDS)),
    st.sampled_from(sorted(BANNED_IDS)).map(str.upper),
    st.text(alphabet="abcXYZ019-", max_size=40),
    st.text(max_size=8),
    st.sampled_from(["$device:x", "", "a" * 36, "a" * 37]),
)
TIMES: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(
        [0, 1, 31_535_999, 31_536_000, 31_535_999_999, 31_536_000_000, 1_700_000_000, 1_700_000_000_000]
    ),
    st.integers(-(10**20), 10**20),
    st.integers(NOW_MS - 5_000_000, NOW_MS + 5_000_000),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([None, True, "1700000000", [], {}]),
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
PROPERTIES = st.fixed_dictionaries(
    {"time": TIMES, "distinct_id": IDS | IDS | VALUES, "$insert_id": IDS | IDS | VALUES},
    optional={
        "$user_id": IDS | VALUES,
        "$device_id": IDS | VALUES,
        "$ignore": VALUES,
        "$source": VALUES,
        "x": VALUES,
    },
)
NAMES = st.one_of(st.sampled_from(["Signup", "", " ", "$merge", "$identify"]), st.text(max_size=6), VALUES)


def agree(raw: bytes, chosen: Settings) -> bool:
    """Returns whether the quick look saw something; fails where it saw something else than the rules."""
    rules = EventRules(chosen)
    seen = make_quick_look(chosen, rules.banned)(raw, NOW_MS)
    if seen is None:
        return False
    full: Any = rules.judge(raw, NOW_MS)
    assert (full.name, full.distinct_id, full.time_ms, full.insert_id) == seen[:4]
    for key in ("$user_id", "$device_id", "$ignore", "$source"):
        assert seen.properties.get(key) == full.properties.get(key)
    return True


@pytest.mark.parametrize(
    "chosen", [Settings(), Settings(identity="original"), Settings(banned_extra=("lmy47d",))]
)
def test_ordinary_events_are_recognised(chosen: Settings) -> None:
    plain: dict[str, Any] = {
        "time": 1700000000,
        "distinct_id": "user",
        "$insert_id": "abc-1",
        "text": "é: {[",
    }
    nested = {"a": [{"b": 1}]}

    def quick(**more: Any) -> bool:
        record = {"event": "E", "properties": {**plain, **more}}
        return agree(json.dumps(record, ensure_ascii=False).encode(), chosen)

    assert quick()
    assert quick(text=nested)
    assert not quick(deep=[nested])
    assert not quick(long=[1] * 250)
    assert agree(
        b'{"event":"E","properties":{"time":1700000000,"distinct_id":"u","$insert_id":"i","n":1e400}}', chosen
    )


@settings(max_examples=600, deadline=None)
@given(name=NAMES, properties=PROPERTIES, original=st.booleans(), ascii_only=st.booleans())
def test_any_event_is_judged_alike(name: Any, properties: Any, original: bool, ascii_only: bool) -> None:
    chosen = Settings(identity="original" if original else "simplified", banned_ignore_case=True)
    text = json.dumps({"event": name, "properties": properties}, ensure_ascii=ascii_only)
    agree(text.encode("utf-8", "surrogatepass"), chosen)


@settings(max_examples=600, deadline=None)
@given(place=st.integers(0, 200), piece=st.binary(max_size=4), cut=st.integers(0, 3))
def test_damaged_events_are_judged_alike(place: int, piece: bytes, cut: int) -> None:
    whole = b'{"event":"E","properties":{"time":1700000000,"distinct_id":"u","$insert_id":"i","k":"\\u00e9"}}'
    agree(whole[:place] + piece + whole[place + cut :], Settings())
