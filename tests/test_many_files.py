"""A hundred thousand files, some of which cannot be read: these are named, and all others arrive."""

from __future__ import annotations

import os

import pytest

from tests.backfills import Backfills, event, ndjson

FILES = 100_000
GONE = {5, 777, 50_000, FILES - 1}


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_of_a_hundred_thousand_files_those_that_cannot_be_read_are_named(backfills: Backfills) -> None:
    folder = backfills.folder / "input"
    for number in range(FILES):
        path = folder / f"{number // 1000:03d}" / f"{number:06d}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number in GONE:
            path.symlink_to("nowhere")
        else:
            path.write_bytes(ndjson([event(number)]))
    os.symlink("..", folder / "circle")
    outcome = backfills.run(str(folder / "**"))

    assert (outcome.code, outcome.books["balanced"]) == (4, True)
    assert outcome.books["imported"] == FILES - len(GONE)
    assert backfills.emulator.stats()["distinct"] == FILES - len(GONE)
    found = {(one["uri"][-11:-5], one["problem"]) for one in outcome.report["files"]["damaged"]}
    assert found == {(f"{number:06d}", "broken_link") for number in GONE}
