"""A cluster on this machine: Beam's job service and a pool of workers, each a process of its own."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipelines.background import running_beside
from tests.processes import REPOSITORY, wait_until
from tests.project_copy import copy_sources
from tests.servers import S3Server
from tests.worker_boot import FOLDER

SECRET = "TEST_S3_SECRET"


@dataclass(frozen=True)
class Cluster:
    """A job service and a worker pool at work.

    Attributes:
        job_endpoint: of the service.
        pool_endpoint: of the pool.
        folder: what workers leave.
        project: from what their packages are built.
    """

    job_endpoint: str
    pool_endpoint: str
    folder: Path
    project: Path

    def options(self, workers: int = 2) -> dict[str, Any]:
        """Returns the options for Beam that make a job run here."""
        return {
            "job_endpoint": self.job_endpoint,
            "environment_type": "EXTERNAL",
            "environment_config": self.pool_endpoint,
            "sdk_worker_parallelism": workers,
            "setup_file": str(self.project / "setup.py"),
        }

    def workers(self) -> dict[int, Path]:
        """Returns the workers that were booted, by their process ids, and the place of their modules."""
        return {
            int((folder / "pid").read_text()): Path((folder / "place").read_text())
            for folder in sorted(self.folder.iterdir())
            if (folder / "pid").exists()
        }

    def failures(self) -> list[str]:
        """Returns what kept workers from starting."""
        return [path.read_text() for path in self.folder.glob("failed-*")]


@contextmanager
def cluster(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Cluster]:
    """Runs a cluster for as long as the body runs, and ends all that it has started.

    Args:
        folder: for what its processes leave.
        environment: what workers have beside the tests' own environment.
    """
    left = folder / "workers"
    left.mkdir(parents=True)
    boot = folder / "boot"
    boot.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{REPOSITORY}/tests/worker_boot.py" "$@"\n')
    boot.chmod(boot.stat().st_mode | stat.S_IXUSR)
    service, pool = folder / "service", folder / "pool"
    commands = (
        ["-m", "tests.job_service", str(service)],
        ["-m", "tests.worker_pool", str(pool), str(boot)],
    )
    processes = [
        start(command, folder / f"{number}.log", {**(environment or {}), FOLDER: str(left)})
        for number, command in enumerate(commands)
    ]
    try:
        wait_until(lambda: (service.exists() and pool.exists()) or any(each.poll() for each in processes))
        project = copy_sources(folder / "project")
        running = Cluster(f"localhost:{service.read_text()}", f"localhost:{pool.read_text()}", left, project)
        with running_beside(partial(_end_with_a_worker, running, processes[0]), "cluster"):
            yield running
        assert not running.failures(), running.failures()
    finally:
        for process in processes:
            # The pool's workers are of its group; nothing that they hold is wanted.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _end_with_a_worker(running: Cluster, service: subprocess.Popen[bytes], ended: threading.Event) -> None:
    """Ends the job service when a worker cannot start: it would wait for it, and a test for it, for ever."""
    while not ended.wait(0.2):
        if running.failures():
            service.kill()
            return


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory, s3: S3Server) -> Iterator[Cluster]:
    """A cluster whose workers know the secrets from their own environment."""
    secrets = {SECRET: s3.secret_key, "TEST_MIXPANEL_TOKEN": "token-of-the-test"}
    with cluster(tmp_path_factory.mktemp("cluster"), secrets) as running:
        yield running


def start(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Starts a Python of its own process group, which says what it has to say into a file."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=REPOSITORY,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
