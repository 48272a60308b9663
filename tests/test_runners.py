"""How workers on this machine are started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.runners import worker_command

PROJECT = str(Path(__file__).parent.parent)
WORKER = "-m apache_beam.runners.worker.sdk_worker_main"


@pytest.mark.parametrize("given", [None, "/one of my own"])
def test_workers_have_the_project_from_where_the_program_has_it(
    given: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [PROJECT, *sys.path])
    command = worker_command()
    assert command.endswith(WORKER)
    environment = {**os.environ, **({"PYTHONPATH": given} if given else {})}
    if given is None:
        environment.pop("PYTHONPATH", None)
    shown = command.replace(WORKER, "-c 'import sys; print(sys.path[1:3])'")
    found = subprocess.run(
        shown, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.startswith(f"['{PROJECT}', '{given or ''}")


def test_nothing_is_put_on_the_path_of_workers_where_the_project_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "path", ["/bin", *sys.path])
    assert "PYTHONPATH" not in worker_command()
