"""Personal data: what is declared to be some is found wherever it lies, and nothing else is touched."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_http.secret_refs import SecretRef
from record_maps.mapper import Mapper
from record_maps.spec import Flatten, MapSpec, PersonalData, TimeSpec, Traits, parse_value, refine

FLAT = MapSpec(event=parse_value("e"), time=TimeSpec(parse_value("t")), distinct_id=parse_value("u"))


def event_of(personal: PersonalData, flatten: Flatten | None = None, **fields: Any) -> dict[str, Any]:
    spec = refine(FLAT, {"personal_data": personal, "flatten": flatten})
    line = json.dumps({"e": "Order", "t": 1_709_627_400, "u": "u-1", **fields}).encode()
    (made,) = Mapper(spec).map_lines([line]).lines
    event: dict[str, Any] = json.loads(made)
    return event


def properties_of(personal: PersonalData, flatten: Flatten | None = None, **fields: Any) -> dict[str, Any]:
    properties: dict[str, Any] = event_of(personal, flatten, **fields)["properties"]
    return properties


@pytest.fixture
def salted(monkeypatch: pytest.MonkeyPatch) -> SecretRef:
    monkeypatch.setenv("SALT", "pepper")
    return SecretRef("env:SALT")


# By keys.


def test_a_key_counts_wherever_it_lies(salted: SecretRef) -> None:
    nested: dict[str, Any] = {
        "user": {"EMAIL": "a@x.org", "age": 3},
        "seen": [[{"email": "b@x.org", "n": 1.50}], 2],
    }

    removed = properties_of(PersonalData(remove=Traits(("email",))), **nested)
    hashed = properties_of(PersonalData(hash=Traits(("email",)), salt=salted), email="a@x.org", **nested)

    assert (removed["user"], removed["seen"]) == ({"age": 3}, [[{"n": 1.5}], 2])
    assert hashed["user"]["EMAIL"] == hashed["email"] != hashed["seen"][0][0]["email"]


def test_a_key_may_be_told_with_those_that_it_lies_in() -> None:
    personal = PersonalData(remove=Traits(("user.name", "friends.*")))
    properties = properties_of(
        personal,
        name="of the shop",
        user={"name": "X", "age": 3},
        friends=[{"name": "Y"}, {"n": {"name": 1}}],
    )

    assert properties["name"] == "of the shop"
    assert properties["user"] == {"age": 3}
    assert properties["friends"] == [{}, {}]
    assert properties_of(personal, Flatten(), user={"name": "X", "age": 3})["user.age"] == 3
    assert "user.name" not in properties_of(personal, Flatten(), user={"name": "X", "age": 3})


def test_what_is_nobodys_is_not_hashed_to_look_like_somebody(salted: SecretRef) -> None:
    personal = PersonalData(hash=Traits(("email", "distinct_id")), salt=salted)
    properties = properties_of(personal, u="", email=None)

    assert (properties["distinct_id"], properties["email"]) == ("", None)


def test_the_hash_of_an_object_does_not_depend_on_the_order_of_its_keys(salted: SecretRef) -> None:
    personal = PersonalData(hash=Traits(("who",)), salt=salted)
    one, other = {"a": 1.0, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1.0}

    assert properties_of(personal, who=one)["who"] == properties_of(personal, who=other)["who"]


TREES = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "bad"]), inner),
    max_leaves=12,
)


def without_bad(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_bad(inner) for key, inner in value.items() if key != "bad"}
    return [without_bad(inner) for inner in value] if isinstance(value, list) else value


@given(TREES)
def test_everything_but_what_is_removed_stays(tree: Any) -> None:
    properties = properties_of(PersonalData(remove=Traits(("bad",))), x=tree)

    assert properties["x"] == without_bad(tree)


def test_what_has_no_personal_data_in_it_keeps_its_tokens() -> None:
    spec = refine(FLAT, {"personal_data": PersonalData(remove=Traits(("bad",)))})
    line = b'{"e":"x","t":1709627400,"u":"u","n":{"a":[1.50,"\\u0041"]},"l":[{"b":1e2}]}'
    (made,) = Mapper(spec).map_lines([line]).lines

    assert b'"n":{"a":[1.50,"\\u0041"]},"l":[{"b":1e2}]' in made


@pytest.mark.parametrize("traits", [Traits(("email",)), Traits((), ("email",))])
def test_what_hides_behind_a_key_that_stands_twice_is_not_sent(traits: Traits) -> None:
    spec = refine(FLAT, {"personal_data": PersonalData(remove=traits)})
    hidden = b'{"o":{"email":"a@x.org"},"o":{"n":1.0}}'
    line = b'{"e":"x","t":1709627400,"u":"u","n":%b,"l":[%b]}' % (hidden, hidden)
    (made,) = Mapper(spec).map_lines([line]).lines

    assert b"a@x.org" not in made
    assert json.loads(made)["properties"]["n"] == {"o": {"n": 1.0}}


@pytest.mark.parametrize("user", [7, "7"])
def test_an_id_that_says_who_as_the_hidden_one_does_is_hidden_like_it(
    salted: SecretRef, user: object
) -> None:
    fields: dict[str, Any] = {"u": user, "$user_id": user, "$device_id": "d-1"}
    hashed = properties_of(PersonalData(hash=Traits(("distinct_id",)), salt=salted), **fields)
    removed = properties_of(PersonalData(remove=Traits(("distinct_id",))), **fields)
    by_itself = properties_of(
        PersonalData(hash=Traits(("distinct_id",)), remove=Traits(("$user_id",)), salt=salted), **fields
    )

    assert hashed["$user_id"] == hashed["distinct_id"] != "7"
    assert removed["$device_id"] == "d-1"
    assert not {"distinct_id", "$user_id"} & removed.keys()
    assert "$user_id" not in by_itself
    assert properties_of(PersonalData(remove=Traits(("x",))), **fields)["$user_id"] == user


def test_a_device_is_hashed_alike_before_and_after_somebody_is_known_on_it(salted: SecretRef) -> None:
    hashed = PersonalData(hash=Traits(("distinct_id",)), salt=salted)
    nobody: dict[str, Any] = {"u": "d-1", "$device_id": "d-1"}
    somebody: dict[str, Any] = {"u": "u-1", "$user_id": "u-1", "$device_id": "d-1"}
    unknown, known = properties_of(hashed, **nobody), properties_of(hashed, **somebody)

    assert unknown["$device_id"] == known["$device_id"] != "d-1"
    assert unknown["distinct_id"] == unknown["$device_id"]


# By patterns.


@pytest.mark.parametrize(
    ("pattern", "text", "left"),
    [
        (
            "email",
            "https://shop.example/?mail=bob%40example.com&a=1",
            "https://shop.example/?mail=[removed]&a=1",
        ),
        ("email", "100%40 off", "100%40 off"),
        ("ip", "192.0.2.7:443", "[removed]:443"),
        ("ip", "addr:192.0.2.7", "addr:[removed]"),
        ("ip", "::ffff:192.0.2.7", "::ffff:[removed]"),
        ("ip", "10:11:12.5", "10:11:12.5"),
    ],
)
def test_patterns_find_what_stands_in_addresses_and_logs(pattern: str, text: str, left: str) -> None:
    assert properties_of(PersonalData(remove=Traits((), (pattern,))), s=text)["s"] == left


def test_patterns_are_looked_for_in_names_too() -> None:
    personal = PersonalData(remove=Traits((), ("email",)))
    fields: dict[str, Any] = {"e": "Mail to a@x.org", "b@x.org": 1, "n": {"c@x.org": 2}}
    event = event_of(personal, **fields)

    assert event["event"] == "Mail to [removed]"
    assert (event["properties"]["[removed]"], event["properties"]["n"]) == (1, {"[removed]": 2})


def test_personal_data_is_found_also_where_what_lies_deep_becomes_text() -> None:
    spec = refine(FLAT, {"personal_data": PersonalData(remove=Traits(("email",))), "deep_as_text": True})
    deep = {"a": {"b": {"c": {"email": "a@x.org", "n": 1}}}}
    line = json.dumps({"e": "x", "t": 1_709_627_400, "u": "u", "d": deep}).encode()
    (made,) = Mapper(spec).map_lines([line]).lines

    assert json.loads(made)["properties"]["d"] == {"a": {"b": {"c": '{"n":1}'}}}
