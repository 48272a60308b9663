"""References to secrets: told from secrets, resolved where they are used, never shown with their value."""

import pickle
from pathlib import Path

import pytest

from mixpanel_http.secret_refs import SecretRef, SecretUnavailable, is_reference, resolve_all

CANARY = "canary-5f2c9b"


@pytest.mark.parametrize(
    "value", ["env:TOKEN", "env:_t1", "file:/run/secrets/token", "file:token", "file:a b:c"]
)
def test_a_reference_names_a_variable_or_a_file(value: str) -> None:
    assert is_reference(value)
    assert SecretRef(value).reference == value


@pytest.mark.parametrize(
    "value",
    [CANARY, "", "env:", "file:", "env:1X", "env:A-B", "env:A B", "ENV:A", " env:A", "env:A\n", "vault:x"],
)
def test_anything_else_is_refused_without_being_repeated(value: str) -> None:
    assert not is_reference(value)
    with pytest.raises(ValueError, match="by reference only") as refused:
        SecretRef(value)

    assert CANARY not in str(refused.value)


@pytest.mark.parametrize("value", [None, 5, b"env:A", ["env:A"], {"env": "A"}])
def test_what_is_no_text_is_no_reference(value: object) -> None:
    assert not is_reference(value)


def test_a_variable_is_read_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = SecretRef("env:BACKFILL_TEST_TOKEN")
    monkeypatch.setenv("BACKFILL_TEST_TOKEN", "first")
    assert reference.resolve() == "first"
    monkeypatch.setenv("BACKFILL_TEST_TOKEN", "second")

    assert reference.resolve() == "second"


def test_a_file_is_read_without_the_white_space_around_it(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"  {CANARY}é\r\n", encoding="utf-8")

    assert SecretRef(f"file:{tmp_path / 'token'}").resolve() == f"{CANARY}é"


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BACKFILL_TEST_TOKEN", raising=False)
    with pytest.raises(
        SecretUnavailable, match="env:BACKFILL_TEST_TOKEN: the environment variable is not set"
    ):
        SecretRef("env:BACKFILL_TEST_TOKEN").resolve()


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "empty"), (b" \n", "empty"), (b"\xff", "UnicodeDecodeError")]
)
def test_a_file_without_a_secret_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(SecretUnavailable, match=said) as refused:
        SecretRef(f"file:{tmp_path / 'token'}").resolve()

    assert str(tmp_path / "token") in str(refused.value)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SecretUnavailable, match=r"token: FileNotFoundError"):
        SecretRef(f"file:{tmp_path / 'token'}").resolve()


@pytest.mark.parametrize("value", [f"{CANARY}\nX-Header: 1", f"{CANARY}\r", f"{CANARY}\t", f"\x1b{CANARY}"])
def test_a_secret_with_control_characters_is_refused_and_not_repeated(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKFILL_TEST_TOKEN", value)
    with pytest.raises(SecretUnavailable, match="control characters") as refused:
        SecretRef("env:BACKFILL_TEST_TOKEN").resolve()

    assert CANARY not in str(refused.value)


def test_only_the_reference_is_shown_and_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKFILL_TEST_TOKEN", CANARY)
    reference = SecretRef("env:BACKFILL_TEST_TOKEN")
    reference.resolve()

    assert CANARY not in repr(reference) + str(reference)
    assert CANARY.encode() not in pickle.dumps(reference)
    assert pickle.loads(pickle.dumps(reference)) == reference


def test_options_are_resolved_at_any_depth_and_left_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKFILL_TEST_TOKEN", CANARY)
    options = {
        "key": "env:BACKFILL_TEST_TOKEN",
        "anon": False,
        "a": {"b": {"c": "env:BACKFILL_TEST_TOKEN"}},
        "n": 5,
    }

    assert resolve_all(options) == {"key": CANARY, "anon": False, "a": {"b": {"c": CANARY}}, "n": 5}
    assert options["key"] == "env:BACKFILL_TEST_TOKEN"
