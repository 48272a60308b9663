"""A runner may run any bundle again: nothing counts twice for that, wherever the state is."""

from __future__ import annotations

from typing import Any

import pytest

from tests.backfills import Backfills, events
from tests.servers import S3Server

REPEATED: dict[str, Any] = {
    "beam.options": {"direct_runner_bundle_repeat": 2},
    "run.allow_dead_letters": 3,
    "limits.records_per_request": 200,
}


@pytest.mark.parametrize("on_store", [False, True], ids=["state on disk", "state in a bucket"])
def test_every_bundle_run_three_times_counts_once(backfills: Backfills, s3: S3Server, on_store: bool) -> None:
    for part in range(3):
        backfills.write(f"{part}.json", [*events(1000, first=1000 * part), b"{"])
    store = {
        "run.state": s3.url(f"repeated-{backfills.folder.name}"),
        "run.storage_options": {**s3.storage_options, "secret": "env:AGAIN_S3_SECRET"},
    }

    outcome = backfills.run(backfills.everything, {**REPEATED, **(store if on_store else {})})

    assert outcome.code == 0, outcome.err
    books = outcome.books
    assert books["balanced"]
    assert (books["read"], books["imported"], books["dead_lettered"]) == (3003, 3000, 3)
    stats = backfills.emulator.stats()
    assert stats["distinct"] == 3000
    assert stats["received"] == 9000  # each sends all, with the same ids: only workers elsewhere look first
    assert len(outcome.report["dead_letters"]["files"]) == 1


@pytest.fixture(autouse=True)
def _secret(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGAIN_S3_SECRET", s3.secret_key)
