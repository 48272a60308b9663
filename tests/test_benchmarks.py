"""The benchmark's input is valid and its sink counts right: else its figures would mean nothing."""

import json
import subprocess
import sys
from pathlib import Path

import urllib3
from isal import isal_zlib

from benchmarks.generate import Shape, make_input, make_lines, make_tiny_files, repeat_input
from benchmarks.measure import ROOT, run_measured, running_sink
from benchmarks.sink import Seen, summarize
from mixpanel_http.event_rules import EventRules, check_event

NOW_S = 1_767_225_600.0  # 2026-01-01


def test_every_event_is_valid_and_has_the_size_it_is_said_to_have() -> None:
    for with_ids, size in ((True, 503), (False, 451)):
        lines = list(make_lines(3_000, with_ids))

        stamped = {check_event(line, EventRules(), NOW_S).stamped_id is not None for line in lines}

        assert stamped == {not with_ids}
        assert abs(sum(map(len, lines)) / len(lines) - size) < 5


def test_input_is_made_once_and_holds_every_event(tmp_path: Path) -> None:
    shape = Shape(events=1_003, files=4, gzipped=True)

    folder = make_input(tmp_path, shape)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert make_input(tmp_path, shape) == folder

    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    content = b"".join(isal_zlib.decompress(path.read_bytes(), 31) for path in sorted(before))
    assert content == b"".join(make_lines(1_003, with_ids=True))


def test_repeated_input_takes_no_space(tmp_path: Path) -> None:
    shape = Shape(events=10, files=2)

    files = list(repeat_input(tmp_path, shape, times=3).iterdir())

    assert len(files) == 6
    assert {path.stat().st_nlink for path in files} == {4}


def test_tiny_files_hold_one_event_each(tmp_path: Path) -> None:
    files = list(make_tiny_files(tmp_path, 25, per_folder=10).rglob("*.json"))

    assert len(files) == 25
    assert {path.read_bytes().count(b"\n") for path in files} == {1}


def test_the_baseline_reads_every_event(tmp_path: Path) -> None:
    for gzipped in (False, True):
        folder = make_input(tmp_path, Shape(events=5_000, files=3, gzipped=gzipped))

        usage = run_measured(["-m", "benchmarks.baseline", str(folder)])

        assert json.loads(usage.output)["events"] == 5_000
        assert usage.cpu_s > 0
        assert usage.peak_mib > 5


def test_the_sink_notices_updates_out_of_order() -> None:
    seen = Seen()
    updates = [{"$distinct_id": who, "$set": {"n": n}} for who, n in (("a", 1), ("b", 3), ("a", 2), ("b", 2))]

    assert seen.count(memoryview(json.dumps(updates).encode())) == 4
    assert (summarize(seen).profiles, summarize(seen).disordered) == (2, 1)


def test_the_sink_answers_with_the_number_of_events_it_got() -> None:
    large, small = [b"".join(make_lines(count, with_ids=True)) for count in (2_000, 3)]
    unended = small.rstrip(b"\n")

    with running_sink() as sink, urllib3.connection_from_url(sink.url, retries=False) as pool:
        bodies = [isal_zlib.compress(raw, 1, 31) for raw in (small, large, unended)]
        answers = [pool.urlopen("POST", "/import?strict=1", body=body).json() for body in bodies]

    assert [answer["num_records_imported"] for answer in answers] == [3, 2_000, 3]
    assert {(answer["code"], answer["status"]) for answer in answers} == {(200, "OK")}
    assert (sink.stats.requests, sink.stats.events) == (3, 2_006)
    assert sink.stats.bytes_raw == len(large) + len(small) + len(unended)


def test_a_rate_is_that_of_the_time_between_requests() -> None:
    steady = Seen(arrivals=[(float(second), 100) for second in range(121)])

    stats = summarize(steady)

    assert stats.events_per_second == 100
    assert stats.peak_events_per_second == 100


def test_the_command_line_explains_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.run_benchmark", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert "--at-limit" in done.stdout
