"""Fixtures that all tests share: real object stores, and a local Mixpanel."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from mixpanel_emulator.process import EmulatorProcess, start_emulator
from tests.backfills import backfills
from tests.configurations import load
from tests.servers import gcs, s3

# Beam makes hundreds of argument parsers a run, which look for translations: a sixth of a short run.
os.environ["LANGUAGE"] = "C"

__all__ = ["backfills", "emulator", "gcs", "load", "s3"]


@pytest.fixture(scope="session")
def _shared_emulator() -> Iterator[EmulatorProcess]:
    with start_emulator() as process:
        yield process


@pytest.fixture
def emulator(_shared_emulator: EmulatorProcess) -> EmulatorProcess:
    """A local Mixpanel, empty at the start of each test."""
    _shared_emulator.reset()
    return _shared_emulator
