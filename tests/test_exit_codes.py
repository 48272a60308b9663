"""Exit codes that whole runs end with, and that no other test of whole runs produces."""

from __future__ import annotations

from pathlib import Path

from pipelines.ledger_lines import done_values, read_done, seal, seed
from pipelines.manifest import read_manifest
from pipelines.report import ExitCode
from pipelines.state import StateFolder
from tests.backfills import Backfills, events
from tests.processes import start


def test_a_plan_that_has_no_more_events_ends_the_run_with_7_and_is_resumed(backfills: Backfills) -> None:
    backfills.write("a.json", events(5000))
    spent = {"name": "spent", "when": {"nth": [2]}, "do": {"status": 402}}
    backfills.emulator.faults([spent])
    outcome = backfills.run(backfills.everything, {"limits.in_flight": 1})
    assert backfills.emulator.stats()["faults"]["spent"] >= 1
    assert outcome.code == ExitCode.REFUSED_FOR_GOOD
    assert outcome.report["state"] == "stopped"
    assert [stop["status"] for stop in outcome.report["stopped_by"]] == [402]
    assert outcome.books["imported"] == backfills.emulator.stats()["distinct"]
    backfills.emulator.faults([])
    resumed = backfills.run(backfills.everything, resume=outcome.report["run_id"])
    assert (resumed.code, resumed.books["imported"]) == (0, 5000)


def test_a_record_without_an_outcome_opens_the_books_and_ends_the_run_with_10(backfills: Backfills) -> None:
    backfills.write("a.json", events(10))
    assert backfills.run(backfills.everything, {"run.id": "it"}).code == 0
    lose_one(StateFolder(str(backfills.state / "it")))
    code, report, _ = start(backfills.config(backfills.everything, {"run.id": "it"}), "--resume", "it").end()
    assert code == ExitCode.BOOKS_OPEN
    assert not report["books"]["balanced"]
    assert report["books"]["read"] == report["books"]["imported"] + 1 == 10
    assert [Path(named).name for named in report["books"]["unbalanced"]] == ["a.json"]


def lose_one(folder: StateFolder) -> None:
    """Makes a completion of a ledger tell of one record less than was imported, as only a bug would."""
    (name,) = (name for name in folder.names("ledger") if name.endswith(".done"))
    segment, key = name.removeprefix("ledger/").partition(".")[0], read_manifest(folder).key
    record = read_done(segment, folder.read(name), seed(key, name))
    assert record is not None
    record.tally.parts.add(0, "imported", -1)
    folder.write(name, seal(done_values(record), seed(key, name))[0])
    for digest in folder.names("ledger_digest"):
        folder.remove(digest)
