"""How far a run is: read from a ledger that grows, or told by the process itself."""

from __future__ import annotations

from pathlib import Path

from pipelines.attempt import Attempt
from pipelines.ledger import SegmentRecord
from pipelines.state import StateFolder
from pipelines.watching import LedgerWatch, OwnWatch
from transforms.activity import Activity
from transforms.attempt_ids import new_attempt_id
from transforms.elements import BlockOutcome
from transforms.letters import LetterLines
from transforms.tally import Counts, PartCounts, Tally

RUN = "run"


def outcome(attempt: str, ordinal: int, end: bool = False) -> BlockOutcome:
    parts = {} if end else {0: Counts(read=10, imported=9, dead_lettered=1)}
    tally = Tally(parts=PartCounts(parts), bytes_sent=0 if end else 40)
    return BlockOutcome("0000000", attempt, ordinal, tally, LetterLines.of([] if end else [b"{}"]), end=end)


def test_only_what_is_new_is_read_and_nothing_counts_twice(tmp_path: Path) -> None:
    folder = StateFolder(str(tmp_path))
    watch = LedgerWatch(folder, RUN, {"0000000": 100})
    assert watch.look().bytes_done == 0
    id_ = new_attempt_id()
    attempt = Attempt(folder, RUN, "0000000", id_)
    attempt.record(outcome(id_, 0))
    first = watch.look()
    assert (first.counts.imported, first.bytes_done) == (9, 40)
    attempt.record(outcome(id_, 1))
    with (tmp_path / "ledger" / f"0000000.{id_}.prog").open("ab") as file:
        file.write(b"torn")
    assert watch.look().counts.imported == 18
    zombie = new_attempt_id()
    Attempt(folder, RUN, "0000000", zombie).record(outcome(zombie, 1))
    assert watch.look().counts.imported == 18
    attempt.record(outcome(id_, 2, end=True))
    attempt.commit()
    assert watch.look().bytes_done == 100


def done(segment: str, imported: int) -> SegmentRecord:
    tally = Tally(parts=PartCounts({0: Counts(read=imported, imported=imported)}), bytes_sent=30)
    return SegmentRecord(segment, tally, (), (), True)


def test_what_a_process_commits_itself_needs_no_look_at_the_ledger() -> None:
    sizes = {"0000000": 100, "0000001": 200, "0000002": 400}
    half = SegmentRecord(
        "0000001", Tally(parts=PartCounts({0: Counts(read=9, imported=7, undelivered=2)})), (), (), False
    )
    watch = OwnWatch(sizes, {"0000000": done("0000000", 50), "0000001": half})
    activity = Activity()
    # A record takes 2 bytes, as in the segment that is done; what was given up is still to do.
    assert (watch.look().bytes_done, watch.look().counts.imported) == (100 + 14, 57)
    with activity.followed_by(watch):
        tally = Tally(parts=PartCounts({0: Counts(read=2, imported=2)}), bytes_sent=40)
        tally.requests["429"] += 1
        activity.settled("0000001", tally)
        assert (watch.look().bytes_done, watch.look().counts.imported) == (100 + 18, 59)
        activity.settled(
            "0000002", Tally(parts=PartCounts({0: Counts(read=5, undelivered=5)}), bytes_sent=500)
        )
        assert watch.look().bytes_done == 100 + 18
        activity.completed("0000002", Counts(read=5, undelivered=5))  # it is not done for all that
        activity.completed("0000001", Counts(read=9, imported=9))
        found = watch.look()
        assert (found.bytes_done, found.counts.read, found.counts.imported) == (300, 64, 59)
        assert (found.counts.undelivered, found.refused) == (5, 1)
    activity.settled("0000002", Tally(parts=PartCounts({0: Counts(read=5, imported=5)})))
    assert watch.look().counts.imported == 59, "nobody follows any more"
