"""Runs over a store in trouble: what can be read arrives, what cannot is named, a resume brings the rest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.backfills import Backfills, Outcome, events, ndjson
from tests.servers import GcsServer, S3Server
from tests.store_proxy import LISTING, StoreProxy, Trouble, reading, store_proxy
from transforms.storage import Storage, path_of

SECRET = "TEST_STORE_SECRET"
FILES, LINES = 4, 25


@dataclass
class Troubled:
    """A store with some files, and backfills that reach it through a proxy."""

    server: S3Server | GcsServer
    proxy: StoreProxy
    backfills: Backfills
    folder: str

    def key(self, number: int) -> str:
        """Returns the key of a file."""
        return f"{self.folder}/{number}.json"

    def content(self, number: int) -> bytes:
        """Returns what is in a file, if nobody changed it."""
        return ndjson(events(LINES, first=1000 * number))

    def go(self, *troubles: Trouble, resume: str | None = None, **options: Any) -> Outcome:
        """Runs a backfill of all files while something goes wrong."""
        self.proxy.troubles[:] = troubles
        self.proxy.struck.clear()
        storage = {**self.server.storage_options, "endpoint_url": self.proxy.url, **options}
        if "secret" in storage:
            storage["secret"] = f"env:{SECRET}"
        return self.backfills.run(
            self.server.url(f"{self.folder}/*"), {"source.storage_options": storage}, resume=resume
        )

    def assert_arrived(self, *numbers: int) -> None:
        """Checks that exactly the events of these files are there, however often they were sent."""
        expected = b"".join(map(self.content, numbers)).splitlines()
        assert set(self.backfills.emulator.records()) == set(expected)


@pytest.fixture(params=["s3", "gcs"])
def troubled(
    request: pytest.FixtureRequest, backfills: Backfills, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Troubled]:
    """Four small files on a real store behind a proxy."""
    server: S3Server | GcsServer = request.getfixturevalue(request.param)
    monkeypatch.setenv(SECRET, server.storage_options.get("secret", ""))
    with store_proxy(server.endpoint_url) as proxy:
        found = Troubled(server, proxy, backfills, f"trouble/{backfills.folder.name}")
        for number in range(FILES):
            server.put(found.key(number), found.content(number))
        yield found


def damaged(outcome: Outcome) -> list[tuple[str, str]]:
    """Returns the names of a report's damaged files, and what is wrong with them."""
    return [
        (found["uri"].rpartition("/")[2], found["problem"]) for found in outcome.report["files"]["damaged"]
    ]


def assert_one_is_left_out_and_comes_with_a_resume(troubled: Troubled, outcome: Outcome) -> None:
    assert (outcome.code, outcome.books["balanced"]) == (4, True)
    assert damaged(outcome) == [("2.json", "unreadable")]
    troubled.assert_arrived(0, 1, 3)

    healed = troubled.go(resume=outcome.report["run_id"])
    assert (healed.code, healed.report["files"]["damaged"]) == (0, [])
    troubled.assert_arrived(0, 1, 2, 3)


def test_a_small_object_is_one_request_and_all_of_them_are_one_listing(troubled: Troubled) -> None:
    outcome = troubled.go(Trouble(""))  # with which nothing goes wrong; any request but a GET is refused

    asked = [target for target in troubled.proxy.struck if not re.search(LISTING, target)]
    assert (outcome.code, outcome.books["imported"]) == (0, FILES * LINES)
    assert len(troubled.proxy.struck) - len(asked) == 1
    for number in range(FILES):
        assert len([target for target in asked if re.search(reading(troubled.key(number)), target)]) == 1
    assert len(asked) == FILES


def test_an_object_that_may_not_be_read_is_named_and_its_neighbours_arrive(troubled: Troubled) -> None:
    outcome = troubled.go(Trouble(reading(troubled.key(2)), status=403, message="Access Denied"))

    assert troubled.proxy.struck
    assert_one_is_left_out_and_comes_with_a_resume(troubled, outcome)


both = pytest.mark.parametrize(
    "troubled",
    ["s3", pytest.param("gcs", marks=pytest.mark.soak)],  # which waits a second or two before it tries again
    indirect=True,
)


@both
def test_a_store_that_is_busy_for_a_moment_delays_a_run_and_no_more(troubled: Troubled) -> None:
    outcome = troubled.go(
        Trouble(LISTING, status=503, times=1), Trouble(reading(troubled.key(1)), status=503, times=1)
    )

    assert len(troubled.proxy.struck) == 2
    assert (outcome.code, outcome.report["files"]["damaged"]) == (0, [])
    troubled.assert_arrived(0, 1, 2, 3)


@both
@pytest.mark.parametrize("cut", [pytest.param(0, marks=pytest.mark.soak), 700])
def test_an_answer_that_breaks_off_is_asked_for_again(troubled: Troubled, cut: int) -> None:
    outcome = troubled.go(Trouble(reading(troubled.key(1)), cut_after=cut, times=1))

    assert len(troubled.proxy.struck) == 1
    assert (outcome.code, outcome.report["files"]["damaged"]) == (0, [])
    troubled.assert_arrived(0, 1, 2, 3)


@pytest.mark.soak
def test_a_slow_store_takes_its_time_and_loses_nothing(troubled: Troubled) -> None:
    outcome = troubled.go(Trouble(reading(troubled.key(1)), slow_bytes=2000))

    assert troubled.proxy.struck
    assert outcome.code == 0
    troubled.assert_arrived(0, 1, 2, 3)


def other_size(listing: bytes) -> bytes:
    """Returns a listing in which one file is ten bytes longer than it is."""
    size = rb'(2\.json(?:(?!\.json).)*?(?:<Size>|"size": ?"))(\d+)'
    return re.sub(size, lambda found: found[1] + b"%d" % (int(found[2]) + 10), listing, flags=re.DOTALL)


def test_a_file_of_another_size_than_was_listed_is_told_and_not_read(troubled: Troubled) -> None:
    outcome = troubled.go(Trouble(LISTING, rewrite=other_size))

    assert troubled.proxy.struck
    assert (outcome.code, outcome.books["balanced"]) == (4, True)
    assert damaged(outcome) == [("2.json", "changed")]
    troubled.assert_arrived(0, 1, 3)


def test_a_bucket_that_may_not_be_listed_is_told_before_anything_is_sent(troubled: Troubled) -> None:
    outcome = troubled.go(Trouble(LISTING, status=403, message="Access Denied"))

    assert troubled.proxy.struck
    assert outcome.code == 4
    assert "cannot be listed" in outcome.err
    troubled.assert_arrived()


WHO_PAYS = "Bucket is a requester pays bucket but no user project provided."


@pytest.mark.parametrize("message", [WHO_PAYS, pytest.param("invalid x", marks=pytest.mark.soak)])
def test_a_store_that_takes_a_request_for_wrong_is_quoted(troubled: Troubled, message: str) -> None:
    outcome = troubled.go(Trouble(LISTING, status=400, message=message))

    assert troubled.proxy.struck
    assert outcome.code == 4, outcome.err
    assert "cannot be listed" in outcome.err
    if message == WHO_PAYS and isinstance(troubled.server, GcsServer):
        assert "storage_options: {requester_pays: PROJECT}" in outcome.err
    outcome = troubled.go(Trouble(reading(troubled.key(2)), status=400, message=message))
    assert_one_is_left_out_and_comes_with_a_resume(troubled, outcome)


def test_nothing_that_matches_is_told_as_such(troubled: Troubled) -> None:
    troubled.folder += "/none"

    assert troubled.go().code == 9


# --- objects that change while they are read ----------------------------------------------------------------

LONG = 400


@pytest.mark.parametrize("change", ["overwritten", "deleted"])
def test_an_object_that_changes_while_it_is_read_is_sent_in_one_version_only(
    troubled: Troubled, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transforms.part_lines.CHUNK_BYTES", 8 << 10)
    monkeypatch.setattr("transforms.segment_reader.JOINED_BYTES", 1)
    key, old, new = troubled.key(2), events(LONG, first=2000), ndjson(events(LONG, first=90_000))
    old_lines = ndjson(old)
    troubled.server.put(key, old_lines)
    assert len(old_lines) > 4 * (8 << 10)
    act = (
        (lambda: troubled.server.put(key, new))
        if change == "overwritten"
        else (lambda: delete(troubled, key))
    )
    outcome = troubled.go(Trouble(reading(key), first=act, begin=2, times=1))

    assert len(troubled.proxy.struck) == 1
    assert (outcome.code, outcome.books["balanced"]) == (4, True)
    assert damaged(outcome) == [("2.json", "changed" if change == "overwritten" else "missing")]
    others = b"".join(troubled.content(number) for number in (0, 1, 3)).splitlines()
    found = set(troubled.backfills.emulator.records())
    assert set(others) <= found
    assert found - set(others) <= set(old_lines.splitlines())
    assert len(found - set(others)) > 0


def delete(troubled: Troubled, key: str) -> None:
    url = troubled.server.url(key)
    Storage(troubled.server.storage_options).open(url).rm_file(path_of(url))


# --- for ever -----------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_a_store_that_does_not_answer_is_asked_again(
    troubled: Troubled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transforms.storage._READ_SECONDS", 1)
    options: dict[str, Any] = (
        {"config_kwargs": {"read_timeout": 1}} if isinstance(troubled.server, S3Server) else {}
    )
    outcome = troubled.go(
        Trouble(LISTING, silent=True, times=1),
        Trouble(reading(troubled.key(2)), silent=True, times=1),
        **options,
    )

    assert len(troubled.proxy.struck) == 2
    assert (outcome.code, outcome.report["files"]["damaged"]) == (0, [])
    troubled.assert_arrived(0, 1, 2, 3)


def few_tries(troubled: Troubled) -> dict[str, Any]:
    """Returns options with which the client of S3 gives up soon; that of GCS takes none."""
    return (
        {"config_kwargs": {"retries": {"max_attempts": 2, "mode": "standard"}}}
        if isinstance(troubled.server, S3Server)
        else {}
    )


@pytest.mark.soak
@pytest.mark.parametrize("status", [500, 503])
def test_an_object_that_stays_busy_is_left_out_and_comes_with_a_resume(
    troubled: Troubled, status: int
) -> None:
    outcome = troubled.go(Trouble(reading(troubled.key(2)), status=status), **few_tries(troubled))

    assert len(troubled.proxy.struck) > 1
    assert_one_is_left_out_and_comes_with_a_resume(troubled, outcome)


@pytest.mark.soak
def test_a_bucket_whose_listing_stays_busy_ends_the_run_before_anything_is_sent(troubled: Troubled) -> None:
    outcome = troubled.go(Trouble(LISTING, status=503), **few_tries(troubled))

    assert len(troubled.proxy.struck) > 1
    assert outcome.code == 4
    assert "cannot be listed" in outcome.err
    troubled.assert_arrived()
