"""The command line as a person or a script meets it: one process, its output, its exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.backfills import Backfills, events

REPOSITORY = Path(__file__).parent.parent


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "run_backfill.py", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_help_imports_neither_beam_nor_anything_slow() -> None:
    code = "import sys, run_backfill; run_backfill.parser().format_help(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert not loaded & {"apache_beam", "pydantic", "yaml", "msgspec", "fsspec", "pyarrow", "rich"}


def test_json_prints_the_report_and_nothing_else_on_stdout(backfills: Backfills) -> None:
    path = backfills.write("a.json", events(10))
    done = run("--config", str(backfills.config(str(path))), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["books"]["imported"] == 10


def test_the_report_is_a_page_that_names_what_matters(backfills: Backfills) -> None:
    path = backfills.write("a.json", [*events(10), b"{"])
    done = run("--config", str(backfills.config(str(path))))
    assert done.returncode == 6
    for text in (
        "Records read",
        "imported",
        "invalid_json",
        "The books close",
        "dead_letters/",
        "report.json",
    ):
        assert text in done.stdout
    assert "Traceback" not in done.stderr


def test_options_that_nobody_knows_are_refused_before_anything_is_read(backfills: Backfills) -> None:
    path = backfills.write("a.json", events(10))
    done = run("--config", str(backfills.config(str(path))), "--dryrun", "stray")
    assert done.returncode == 2
    assert "--dryrun: no option" in done.stderr
    assert "did you mean --dry-run?" in done.stderr
    assert "stray" in done.stderr
    assert not backfills.state.exists()
    assert backfills.emulator.stats()["requests"] == 0


def test_a_missing_secret_is_told_before_anything_is_written(backfills: Backfills) -> None:
    path = backfills.write("a.json", events(10))
    config = backfills.config(
        str(path), {"destination.credentials": {"project_token": "env:NO_SUCH_VARIABLE"}}
    )
    done = run("--config", str(config))
    assert done.returncode == 2
    assert "env:NO_SUCH_VARIABLE" in done.stderr
    assert not backfills.state.exists()


def test_a_remote_runner_needs_a_state_folder_that_its_workers_reach(backfills: Backfills) -> None:
    path = backfills.write("a.json", events(10))
    done = run("--config", str(backfills.config(str(path))), "--set", "beam.runner=DataflowRunner")
    assert done.returncode == 2
    assert "run.state" in done.stderr
