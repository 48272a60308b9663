"""Fixtures that all tests share: real object stores, and a local Mixpanel."""

from __future__ import annotations

import faulthandler
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from mixpanel_emulator.process import EmulatorProcess, start_emulator
from tests.backfills import backfills
from tests.configurations import load
from tests.processes import none_left
from tests.servers import gcs, s3

# Beam makes hundreds of argument parsers a run, which look for translations: a sixth of a short run.
os.environ["LANGUAGE"] = "C"

# A suite that a script starts in the background ignores SIGINT, and so would all processes that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes tells of the machine alone.
settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")

__all__ = ["backfills", "emulator", "gcs", "load", "s3"]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leaves a test that has a time limit of its own to it: the limit of the whole process is below some."""
    if item.get_closest_marker("timeout") is not None:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def _no_backfill_left() -> Iterator[None]:
    with none_left():
        yield


@pytest.fixture(scope="session")
def _shared_emulator() -> Iterator[EmulatorProcess]:
    with start_emulator() as process:
        yield process


@pytest.fixture
def emulator(_shared_emulator: EmulatorProcess) -> EmulatorProcess:
    """A local Mixpanel, empty at the start of each test."""
    _shared_emulator.reset()
    return _shared_emulator
