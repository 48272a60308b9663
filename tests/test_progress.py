"""Progress, read from a ledger that grows."""

from __future__ import annotations

from pathlib import Path

from pipelines.attempt import Attempt
from pipelines.progress import LedgerWatch
from pipelines.state import StateFolder
from transforms.elements import BlockOutcome, new_attempt_id
from transforms.tally import Counts, PartCounts, Tally

RUN = "run"


def outcome(attempt: str, ordinal: int, end: bool = False) -> BlockOutcome:
    parts = {} if end else {0: Counts(read=10, imported=9, dead_lettered=1)}
    tally = Tally(parts=PartCounts(parts), bytes_sent=0 if end else 40)
    return BlockOutcome("0000000", attempt, ordinal, tally, [] if end else [b"{}"], end=end)


def test_only_what_is_new_is_read_and_nothing_counts_twice(tmp_path: Path) -> None:
    folder = StateFolder(str(tmp_path))
    watch = LedgerWatch(folder, RUN, {"0000000": 100})
    assert watch.look().bytes_done == 0
    id_ = new_attempt_id()
    attempt = Attempt(folder, RUN, "0000000", id_)
    attempt.record(outcome(id_, 0))
    first = watch.look()
    assert (first.tally.total.imported, first.bytes_done) == (9, 40)
    attempt.record(outcome(id_, 1))
    with (tmp_path / "ledger" / f"0000000.{id_}.prog").open("ab") as file:
        file.write(b"torn")
    assert watch.look().tally.total.imported == 18
    zombie = new_attempt_id()
    Attempt(folder, RUN, "0000000", zombie).record(outcome(zombie, 1))
    assert watch.look().tally.total.imported == 18
    attempt.record(outcome(id_, 2, end=True))
    attempt.commit()
    assert watch.look().bytes_done == 100
