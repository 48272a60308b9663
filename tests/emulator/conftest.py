"""Emulators for tests: one that a module shares, wiped before each test, and one made to order."""

from collections.abc import Callable, Iterator

import pytest

from mixpanel_emulator.process import EmulatorProcess, start_emulator

StartEmulator = Callable[..., EmulatorProcess]


@pytest.fixture(scope="session")
def shared_emulator() -> Iterator[EmulatorProcess]:
    with start_emulator(settings={"export_per_hour": "0", "query_per_hour": "0"}) as running:
        yield running


@pytest.fixture
def emulator(shared_emulator: EmulatorProcess) -> EmulatorProcess:
    shared_emulator.reset()
    return shared_emulator


@pytest.fixture
def start() -> Iterator[StartEmulator]:
    """Starts emulators with settings of their own; all end with the test."""
    started: list[EmulatorProcess] = []

    def start_one(db: str = ":memory:", **settings: str) -> EmulatorProcess:
        started.append(start_emulator(db, settings=settings))
        return started[-1]

    yield start_one
    for one in started:
        one.stop()
