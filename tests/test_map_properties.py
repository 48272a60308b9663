"""Maps: which properties a record gets, under which names, and how deep they may lie."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_http.event_rules import check_container
from record_maps.spec import (
    MIXPANEL_SHAPE,
    Flatten,
    parse_property,
    parse_value,
    refine,
)
from tests.maps import FLAT, event_of, mapped, row


def test_a_field_that_was_taken_is_no_property_too() -> None:
    spec = refine(FLAT, {"properties": (("plan", parse_value("p")),)})

    assert event_of(spec, row(p="pro", i="i-1", d="d", z=1)) == {
        "event": "Order",
        "properties": {
            "plan": "pro",
            "d": "d",  # behind the source that counts
            "z": 1,
            "time": 1_709_627_400,
            "distinct_id": "u-1",
            "$insert_id": "i-1",
        },
    }


def test_a_constant_needs_no_field() -> None:
    spec = refine(FLAT, {"event": parse_value({"const": "Row"})})

    assert event_of(spec, row())["event"] == "Row"


def test_what_is_the_events_own_is_not_taken_from_an_object_that_is_spread() -> None:
    spec = refine(FLAT, {"properties": (("*", parse_property("*", "traits.*")),)})
    traits = {"time": 5, "distinct_id": "other", "$insert_id": "other", "a": 1}

    (line,) = mapped(spec, {"e": "Order", "traits": traits}).lines
    assert json.loads(line)["properties"] == {"a": 1}


# Properties.


def test_a_named_property_wins_over_one_of_an_object() -> None:
    spec = refine(
        FLAT, {"properties": (("plan", parse_value({"const": 1})), ("*", parse_property("*", "traits.*")))}
    )

    assert event_of(spec, row(traits={"plan": "x", "age": 3}))["properties"]["plan"] == 1


def test_an_object_that_is_none_has_no_fields() -> None:
    spec = refine(FLAT, {"properties": (("t_*", parse_property("t_*", "traits.*")),)})

    assert "t_a" not in event_of(spec, row(traits=[{"a": 1}]))["properties"]


def test_names_are_matched_after_they_are_renamed() -> None:
    spec = refine(FLAT, {"rename": (("a", "b"),), "drop": ("b", "x?")})

    assert set(event_of(spec, row(a=1, x1=1, x22=1))["properties"]) == {"x22", "time", "distinct_id"}


@pytest.mark.parametrize("globs", [(), ("zz*",)])
def test_of_two_with_one_new_name_the_later_counts_unless_it_is_null(globs: tuple[str, ...]) -> None:
    spec = refine(FLAT, {"rename": (("a", "c"), ("b", "c")), "drop": globs})

    def c(**fields: Any) -> Any:
        made, turned = (
            event_of(spec, {**row(), **dict(items)})["properties"]
            for items in (fields.items(), reversed(fields.items()))
        )
        assert made == turned
        return made["c"]

    assert c(a=1, b=2) == 2
    assert c(a=1, b=None) == 1
    assert c(a=1, c=3) == 1
    assert c(c=3, a=None) == 3
    assert c(a=None) is None


@pytest.mark.parametrize("globs", [(), ("zz*",)])
def test_names_can_be_swapped(globs: tuple[str, ...]) -> None:
    spec = refine(FLAT, {"rename": (("a", "b"), ("b", "a")), "drop": globs})

    properties = event_of(spec, row(a=1, b=2))["properties"]
    assert (properties["a"], properties["b"]) == (2, 1)


def test_no_object_wins_over_another_by_a_null() -> None:
    spec = refine(FLAT, {"properties": (("*", parse_property("*", "traits.*")),)})

    assert event_of(spec, row(plan="pro", traits={"plan": None, "age": None}))["properties"]["plan"] == "pro"
    assert event_of(spec, row(plan="pro", traits={"plan": "x"}))["properties"]["plan"] == "x"


def test_a_property_with_a_name_of_its_own_wins_over_a_flattened_one() -> None:
    spec = refine(FLAT, {"flatten": Flatten()})

    for fields in ({"a": {"b": 1}, "a.b": 2}, {"a.b": 2, "a": {"b": 1}}):
        assert event_of(spec, row(**fields))["properties"]["a.b"] == 2


def test_only_what_is_to_be_kept_is_kept_and_the_event_itself() -> None:
    spec = refine(FLAT, {"keep": ("a*",)})

    assert set(event_of(spec, row(ab=1, b=1, i="i"))["properties"]) == {
        *("ab", "time", "distinct_id", "$insert_id")
    }


def test_nulls_are_dropped_only_where_that_is_asked_for() -> None:
    assert event_of(FLAT, row(a=None))["properties"]["a"] is None
    assert "a" not in event_of(refine(FLAT, {"drop_nulls": True}), row(a=None))["properties"]


def test_objects_deeper_than_the_depth_stay_objects() -> None:
    spec = refine(FLAT, {"flatten": Flatten("/", 1)})

    properties = event_of(spec, row(a={"b": {"c": 1}, "d": {}}, l=[{"x": 1}]))["properties"]
    assert {k: v for k, v in properties.items() if k[0] in "al"} == {
        "a/b": {"c": 1},
        "a/d": {},
        "l": [{"x": 1}],
    }


def test_what_mixpanel_would_find_too_deep_becomes_text_where_that_is_asked_for() -> None:
    deep = {"a": [{"b": [{"c": 1.50}], "d": [], "e": "[[[[{"}]}
    spec = refine(FLAT, {"deep_as_text": True})

    assert event_of(FLAT, row(x=deep))["properties"]["x"] == deep
    assert event_of(spec, row(x=deep))["properties"]["x"] == {
        "a": [{"b": '[{"c": 1.5}]', "d": "[]", "e": "[[[[{"}]
    }


@given(
    st.recursive(
        st.none() | st.integers() | st.text("[{]}\\"), lambda i: st.lists(i) | st.dictionaries(st.text(), i)
    )
)
def test_what_was_made_shallow_is_not_too_deep_and_says_the_same(value: Any) -> None:
    (line,) = mapped(refine(FLAT, {"deep_as_text": True}), row(x=value)).lines
    made = json.loads(line)["properties"]["x"]

    if isinstance(made, (dict, list)):
        check_container("x", made)
    assert unfolded(made, value) == value


def unfolded(made: Any, like: Any) -> Any:
    """Returns a value in which texts of JSON are what they stand for, where there was no text."""
    if isinstance(made, str) and not isinstance(like, str):
        return json.loads(made)
    if isinstance(made, list):
        return [unfolded(inner, old) for inner, old in zip(made, like, strict=True)]
    return {key: unfolded(made[key], like[key]) for key in made} if isinstance(made, dict) else made


def test_tags_are_on_every_record() -> None:
    spec = refine(FLAT, {"tags": (("import", b'"2024"'),)})

    assert event_of(spec, row())["properties"]["import"] == "2024"


def test_records_of_no_event_pass_a_map_of_mixpanels_shape() -> None:
    profile = {"$distinct_id": "u", "$set": {"a": 1.0}}

    assert mapped(MIXPANEL_SHAPE, profile).lines == [b'{"$distinct_id":"u","$set":{"a": 1.0}}']


# Events and dates.
