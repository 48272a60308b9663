"""The command line as a person or a script meets it: what it prints, and its exit code."""

from __future__ import annotations

import json
import subprocess
import sys

from run_backfill import main
from tests.backfills import Backfills, events
from tests.processes import REPOSITORY, start


def run(backfills: Backfills, *arguments: str) -> tuple[int, str, str]:
    """Returns exit code and output of the command line in this process."""
    backfills.capture.readouterr()
    code = main(arguments)
    printed = backfills.capture.readouterr()
    return code, printed.out, printed.err


def test_help_imports_neither_beam_nor_anything_slow() -> None:
    code = "import sys, run_backfill; run_backfill.parser().format_help(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert not loaded & {"apache_beam", "pydantic", "yaml", "msgspec", "fsspec", "pyarrow", "rich"}


def test_machines_are_told_in_json_and_nothing_else(backfills: Backfills) -> None:
    path = backfills.write("a.json", events(10))
    code, report, err = start(backfills.config(str(path)), "--log-format", "json").end()
    assert code == 0, err
    assert report["books"]["imported"] == 10
    assert {json.loads(line)["kind"] for line in err.splitlines()} == {"start"}


def test_the_report_is_a_page_that_names_what_matters(backfills: Backfills) -> None:
    path = backfills.write("a.json", [*events(10), b"{"])
    code, out, err = run(backfills, "--config", str(backfills.config(str(path))))
    assert code == 6
    for text in (
        "Records read",
        "imported",
        "invalid_json",
        "The books close",
        "dead_letters/",
        "report.json",
    ):
        assert text in out
    assert "Traceback" not in err


def test_options_that_nobody_knows_are_refused_before_anything_is_read(backfills: Backfills) -> None:
    path = backfills.write("a.json", events(10))
    code, _, err = run(backfills, "--config", str(backfills.config(str(path))), "--dryrun", "stray")
    assert code == 2
    assert "--dryrun: no option" in err
    assert "did you mean --dry-run?" in err
    assert "stray" in err
    assert not backfills.state.exists()
    assert backfills.emulator.stats()["requests"] == 0


def test_a_missing_secret_is_told_before_anything_is_written(backfills: Backfills) -> None:
    path = backfills.write("a.json", events(10))
    config = backfills.config(
        str(path), {"destination.credentials": {"project_token": "env:NO_SUCH_VARIABLE"}}
    )
    code, _, err = run(backfills, "--config", str(config))
    assert code == 2
    assert "env:NO_SUCH_VARIABLE" in err
    assert not backfills.state.exists()


def test_a_remote_runner_needs_a_state_folder_that_its_workers_reach(backfills: Backfills) -> None:
    path = backfills.write("a.json", events(10))
    elsewhere = ("--set", "beam.runner=DataflowRunner")
    code, _, err = run(backfills, "--config", str(backfills.config(str(path))), *elsewhere)
    assert code == 2
    assert "run.state" in err
