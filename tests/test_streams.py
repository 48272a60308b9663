"""Standard output and error that are closed, full, read by nobody or not of UTF-8."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.backfills import TOKEN, Backfills, events
from tests.processes import PATIENCE_S, REPOSITORY


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Runs what a person could type; `$RUN` is the command line."""
    return subprocess.run(
        ["bash", "-c", command],
        cwd=REPOSITORY,
        env={**os.environ, TOKEN: "token", "RUN": f"{sys.executable} run_backfill.py", **environment},
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_a_run_that_can_say_nothing_and_print_ascii_only_does_its_work(backfills: Backfills) -> None:
    path = backfills.write("größe-日本.json", [*events(10), b"{"])
    state = backfills.folder / "zustände"
    config = backfills.config(str(path), {"run.state": str(state), "run.id": "it"})
    done = shell(f"$RUN --config {config} 2>&-", PYTHONIOENCODING="ascii")

    assert done.returncode == 6
    assert b"imported               10" in done.stdout
    assert b"zust\\xe4nde/it/report.json" in done.stdout
    report = json.loads((state / "it" / "report.json").read_text())
    assert (report["state"], report["failure"]) == ("done", None)
    for file in state.rglob("*"):
        assert file.is_dir() or b"warning" not in file.read_bytes().lower()


@pytest.mark.parametrize("as_json", ["", "--json"])
def test_a_list_of_runs_is_printed_as_far_as_somebody_reads_it(tmp_path: Path, as_json: str) -> None:
    for number in range(2000):
        (tmp_path / f"run-{number}").mkdir()
        (tmp_path / f"run-{number}" / "manifest.jsonl").touch()
    runs = f"$RUN runs --state {tmp_path} {as_json}"

    cut = shell(f"{runs} | head -n 1; exit ${{PIPESTATUS[0]}}")
    closed = shell(f"{runs} >&-")
    full = shell(f"{runs} > /dev/full")

    assert [(run.returncode, run.stderr) for run in (cut, closed)] == [(0, b""), (0, b"")]
    assert len(cut.stdout.splitlines()) == 1
    assert full.stderr == b"error: stdout: cannot be written: No space left on device\n"


def test_json_is_printed_in_utf_8_whatever_the_terminal_takes(backfills: Backfills) -> None:
    state = backfills.folder / "zustände"
    (state / "größe").mkdir(parents=True)
    (state / "größe" / "manifest.jsonl").touch()

    done = shell(f"$RUN runs --state {state} --json", PYTHONIOENCODING="ascii")

    assert json.loads(done.stdout)["run_id"] == "größe"
