"""Runs whose updates are sent in the order of their times: what the profiles are then, whatever happens."""

from __future__ import annotations

import gzip
import itertools
import json
import random
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.generate import make_shuffled_updates
from benchmarks.measure import run_backfill
from mixpanel_http.crash_points import CRASHED
from pipelines.books import close_books, files_table
from pipelines.ledger_lines import SegmentRecord
from tests.backfills import Backfills
from tests.processes import start
from transforms.elements import FileNote, FilePart, Ordered, Segment
from transforms.part_counts import PartCounts
from transforms.tally import Counts, Tally

BY_TIME: dict[str, Any] = {"records.kind": "profiles", "records.order_by": "$time", "run.id": "it"}
SMALL = {"limits.records_per_request": 50, "limits.in_flight": 5}


def updates(users: int, versions: int) -> list[dict[str, Any]]:
    """Returns updates of some users in any order; the last by time says what a profile is."""
    made = [
        {"$distinct_id": f"u-{user}", "$time": 1_700_000_000 + version * 60, "$set": {"version": version}}
        for user in range(users)
        for version in range(versions)
    ]
    random.Random(7).shuffle(made)
    return made


def held(backfills: Backfills) -> dict[str, dict[str, Any]]:
    """Returns the properties of the profiles that the emulator holds."""
    found = [json.loads(raw) for raw in backfills.emulator.records(kind="profiles")]
    return {record["$distinct_id"]: record["$properties"] for record in found}


def arrived(backfills: Backfills) -> dict[str, list[int]]:
    """Returns the times of each profile's updates, in the order in which they came."""
    found: dict[str, list[int]] = {}
    for raw in backfills.emulator.records(kind="updates"):
        update = json.loads(raw)
        found.setdefault(update["$distinct_id"], []).append(update["$time"])
    return found


def test_a_later_update_wins_over_an_earlier_one_in_whatever_file_it_stands(backfills: Backfills) -> None:
    made = updates(40, 25)
    for number in range(4):
        backfills.write(f"{number}.json{'.gz' * (number % 2)}", made[number::4])
    outcome = backfills.run(backfills.everything, {**BY_TIME, **SMALL})

    assert outcome.code == 0, outcome.err
    assert outcome.books["imported"] == 1000
    assert outcome.report["files"] == {"total": 4, "done": 4, "read": 4, "damaged": [], "new": 0}
    assert all(times == sorted(times) and len(times) == 25 for times in arrived(backfills).values())
    assert {properties["version"] for properties in held(backfills).values()} == {24}
    assert not list((backfills.state / "it" / "ordered").iterdir())


@pytest.mark.soak
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_input_leaves_what_its_updates_leave_in_the_order_of_their_times(
    backfills: Backfills, data: st.DataObject
) -> None:
    backfills.emulator.reset()
    for path in (backfills.folder / "input").glob("*"):
        path.unlink()
    rows = st.tuples(st.integers(0, 3), st.integers(0, 5))
    files = data.draw(st.lists(st.lists(rows, min_size=1, max_size=25), min_size=1, max_size=3))
    numbered = iter(range(1000))
    wanted: dict[str, tuple[int, int]] = {}
    for number, file in enumerate(files):
        lines = []
        for user, time in file:
            n = next(numbered)
            lines.append({"user": f"u-{user}", "$time": time, "n": n})
            wanted[f"u-{user}"] = max(wanted.get(f"u-{user}", (-1, -1)), (time, n))
        backfills.write(f"{number}.json", lines)
    flat = {**BY_TIME, "records.id_field": "user", "run.id": None, "limits.records_per_request": 4}
    outcome = backfills.run(backfills.everything, flat)

    assert outcome.code == 0, outcome.err
    assert {user: p["n"] for user, p in held(backfills).items()} == {u: n for u, (_, n) in wanted.items()}


def test_what_has_no_time_is_a_dead_letter_that_says_where_and_why(backfills: Backfills) -> None:
    good = {"$distinct_id": "u-1", "$time": 5, "$set": {"a": 1}}
    path = backfills.write(
        "a.json",
        [
            good,
            b"",
            {"$distinct_id": "u-1", "$set": {"a": 2}},
            {**good, "$time": "noon"},
            b"{no",
            {"$time": 1},
        ],
    )
    outcome = backfills.run(backfills.everything, BY_TIME)
    letters = outcome.dead_letters()

    assert (outcome.code, outcome.books["read"], outcome.books["imported"]) == (6, 5, 1)
    assert outcome.books["balanced"]
    assert {(one["reason"], one["field"], one["source"]["line"]) for one in letters} == {
        ("missing_time", "$time", 3),
        ("bad_time", "$time", 4),
        ("invalid_json", None, 5),
        ("missing_distinct_id", "$distinct_id", 6),
    }
    lines = path.read_bytes().split(b"\n")
    for letter in letters:
        rest = path.read_bytes()[letter["source"]["offset"] :]
        assert rest.startswith(lines[letter["source"]["line"] - 1])
    assert {"$distinct_id": "u-1", "$set": {"a": 2}} in [one.get("record") for one in letters]


def test_dead_letters_are_replayed_in_the_order_of_their_times(
    backfills: Backfills, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [{"$distinct_id": "none", "$time": 60 - n, "$set": {"n": n}} for n in range(30)]
    backfills.write("a.json", made)
    first = backfills.run(backfills.everything, {**BY_TIME, "run.max_errors": "100%"})
    assert first.books["dead_lettered"] == 30
    # Mended by a map, as whoever mends them would.
    monkeypatch.syspath_prepend(backfills.folder)
    function = backfills.folder / "mend_ids.py"
    function.write_text("def mend(record):\n    return {**record, '$distinct_id': 'u-1'}\n")
    mended = {**BY_TIME, "run.id": "again", "records.map": {"function": "mend_ids:mend"}}
    again = backfills.run(backfills.everything, mended, replay="it")

    assert again.code == 0, again.err
    assert arrived(backfills) == {"u-1": list(range(31, 61))}
    assert held(backfills)["u-1"]["n"] == 0


def test_a_file_that_cannot_be_read_ends_the_run_before_anything_is_sent(backfills: Backfills) -> None:
    backfills.write("a.json", updates(3, 3))
    (backfills.folder / "input" / "b.json").symlink_to("nowhere")
    outcome = backfills.run(backfills.everything, BY_TIME)

    assert outcome.code == 4
    assert "b.json" in outcome.err
    assert "nothing is sent yet" in outcome.err
    assert held(backfills) == {}
    assert not [path for path in (backfills.state / "it").rglob("*") if path.is_file()]


def test_a_disk_without_room_to_sort_ends_the_run_and_is_told(backfills: Backfills) -> None:
    backfills.write("a.json", updates(300, 20))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        outcome = backfills.run(backfills.everything, BY_TIME)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert outcome.code == 2
    assert "/it: the updates cannot be sorted there: File too large; it needs as much room" in outcome.err
    assert held(backfills) == {}
    assert not [path for path in (backfills.state / "it").rglob("*") if path.is_file()]


def test_what_can_be_read_of_a_damaged_file_takes_part_and_the_damage_is_told(backfills: Backfills) -> None:
    backfills.write("a.json", updates(20, 5))
    whole = gzip.compress(b"".join(json.dumps(one).encode() + b"\n" for one in updates(20, 5)), mtime=0)
    (backfills.folder / "input" / "b.json.gz").write_bytes(whole[: len(whole) // 2])
    (backfills.folder / "input" / "c.json").write_bytes(b"")
    outcome = backfills.run(backfills.everything, {**BY_TIME, "run.allow_dead_letters": 1})

    assert outcome.code == 4
    (damage,) = outcome.report["files"]["damaged"]
    assert (damage["problem"], damage["uri"].rpartition("/")[2]) == ("truncated", "b.json.gz")
    assert [letter["reason"] for letter in outcome.dead_letters()] == ["truncated_tail"]
    assert outcome.books["balanced"]
    assert outcome.report["files"]["total"] == outcome.report["files"]["done"] == 3
    assert all(times == sorted(times) for times in arrived(backfills).values())


def test_a_resume_refuses_files_that_came_late_and_a_lost_copy_and_says_what_to_do(
    backfills: Backfills,
) -> None:
    backfills.write("a.json", updates(5, 5))
    down = {"name": "down", "path": "/engage", "do": {"status": 503}}
    backfills.emulator.faults([down])
    stopped = backfills.run(backfills.everything, {**BY_TIME, "limits.retry.give_up_after_seconds": 0.2})
    assert stopped.code == 5
    backfills.emulator.faults([])
    backfills.write("b.json", updates(1, 1))
    late = backfills.run(backfills.everything, BY_TIME, resume="it", allow_new=True)
    (copy,) = (backfills.state / "it" / "ordered").iterdir()
    content = copy.read_bytes()
    copy.write_bytes(content[:-9])
    damaged = backfills.run(backfills.everything, BY_TIME, resume="it")
    copy.unlink()
    lost = backfills.run(backfills.everything, BY_TIME, resume="it")
    copy.write_bytes(content)
    again = backfills.run(backfills.everything, BY_TIME, resume="it")

    assert (late.code, "b.json came after the run was planned" in late.err) == (2, True)
    for run, word in ((damaged, "damaged"), (lost, "missing")):
        assert run.code == 1
        assert f"0000000.gz: {word}; the order of the run's records was kept in it: start a new run" in str(
            run.report["failure"]
        )
    assert (again.code, again.books["imported"], again.report["files"]["new"]) == (0, 25, 1)
    assert not list(copy.parent.iterdir())


def test_a_file_whose_lines_are_in_many_segments_is_one_file_and_done_with_the_last_of_them() -> None:
    parts = [FilePart(f"/{name}", 1, "v") for name in "ab"]
    segments = [
        Segment("0", (parts[0], parts[1]), Ordered("ordered/0", 1)),
        Segment("1", (parts[1], parts[0]), Ordered("ordered/1", 1)),
        Segment("2", (parts[0],), Ordered("ordered/2", 1)),
    ]
    ledger = {
        segment.id: SegmentRecord(
            segment.id,
            Tally(
                parts=PartCounts({n: Counts(read=n + 1, imported=n + 1) for n in range(len(segment.parts))}),
                lines=sum(n + 1 for n in range(len(segment.parts))),
            ),
            tuple(FileNote(n, part.uri, n + 1) for n, part in enumerate(segment.parts)),
            (),
            segment.id != "2",
        )
        for segment in segments
    }
    books = close_books(segments, ledger)

    assert (books.files_done, books.files_read, books.balanced) == (1, 2, True)
    assert {row["uri"]: row["read"] for row in map(json.loads, files_table(segments, ledger))} == {
        "/a": 4,
        "/b": 3,
    }
    ledger["1"].tally.parts = PartCounts({0: Counts(read=1, imported=1), 1: Counts(read=2, imported=1)})
    assert close_books(segments, ledger).unbalanced == ["/a"]


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_million_updates_in_any_order_are_sorted_in_little_memory(tmp_path: Path) -> None:
    folder = make_shuffled_updates(tmp_path, 1_000_000, 100_000)
    by_time = {"records": {"order_by": "$time"}}
    done = run_backfill(f"{folder}/*", 1_000_000, kind="profiles", changes=by_time)
    print(f"{done.usage.cpu_s:.1f} CPU-s, {done.usage.peak_mib:.0f} MiB, {done.usage.wall_s:.0f} s")

    assert (done.sink.profiles, done.sink.disordered) == (100_000, 0)
    assert done.usage.peak_mib < 500
    assert done.report["files"] == {"total": 10, "done": 10, "read": 10, "damaged": [], "new": 0}
    assert done.report["segments"]["total"] > 10


@pytest.mark.soak
def test_a_kill_and_a_resume_keep_the_order(backfills: Backfills) -> None:
    for number in range(3):
        backfills.write(f"{number}.json", updates(30, 20)[number::3])
    config = backfills.config(backfills.everything, {**BY_TIME, **SMALL})
    code, _, err = start(config, crash_at="between answer and receipt:4").end()
    assert code == CRASHED, err
    before = sum(map(len, arrived(backfills).values()))
    for path in (backfills.folder / "input").glob("*"):
        path.write_bytes(b"")  # the run has what it needs
    code, report, err = backfills.resume(config)

    assert 0 < before < 600
    assert code == 0, err
    assert report["books"]["imported"] == 600
    assert {properties["version"] for properties in held(backfills).values()} == {19}
    for times in arrived(backfills).values():  # what came twice came in order, behind where the resume began
        assert sum(later < earlier for earlier, later in itertools.pairwise(times)) <= 1


@pytest.mark.soak
def test_a_signal_while_it_is_sorted_leaves_a_word_and_no_run(backfills: Backfills) -> None:
    backfills.write("c.json", updates(4000, 50))
    running = start(backfills.config(backfills.everything, BY_TIME))
    assert running.process.stderr is not None
    assert "Reading and sorting" in running.process.stderr.readline()
    running.signal(signal.SIGTERM)
    code, report, err = running.end()

    assert (code, report) == (143, {})
    assert err == "error: interrupted while planning, before anything was sent; start it again\n"
    assert not [path for path in (backfills.state / "it").rglob("*") if path.is_file()]


def test_a_crash_while_it_is_sorted_leaves_no_run_and_the_next_start_is_whole(backfills: Backfills) -> None:
    backfills.write("a.json", updates(10, 10))
    config = backfills.config(backfills.everything, BY_TIME)
    code, _, err = start(config, crash_at="before ordered").end()
    assert code == CRASHED, err
    outcome = backfills.run(backfills.everything, BY_TIME)

    assert outcome.code == 0, outcome.err
    assert {properties["version"] for properties in held(backfills).values()} == {9}


@pytest.mark.soak
def test_a_crash_while_the_sorted_copy_is_removed_loses_nothing(backfills: Backfills) -> None:
    backfills.write("a.json", updates(10, 10))
    config = backfills.config(backfills.everything, BY_TIME)
    code, _, err = start(config, crash_at="before removal of ordered").end()
    assert code == CRASHED, err
    code, report, err = backfills.resume(config)

    assert code == 0, err
    assert (report["books"]["balanced"], report["books"]["imported"]) == (True, 100)
    assert {properties["version"] for properties in held(backfills).values()} == {9}
    assert not list((backfills.state / "it" / "ordered").glob("*"))
