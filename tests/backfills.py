"""Runs backfills in tests as the command line does, and reads what they leave."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from mixpanel_emulator.process import EmulatorProcess
from pipelines.command import run
from tests.report_schema import checked

TOKEN = "TEST_MIXPANEL_TOKEN"


@dataclass(frozen=True)
class Outcome:
    """What a run printed, and the exit code that it returned."""

    code: int
    report: dict[str, Any]
    out: str
    err: str

    @property
    def books(self) -> dict[str, Any]:
        """The report's books."""
        books: dict[str, Any] = self.report["books"]
        return books

    def dead_letters(self) -> list[dict[str, Any]]:
        """Returns the run's dead letters, from the local files that the report names."""
        return [
            letter for name in self.report["dead_letters"]["files"] for letter in read_letters(Path(name))
        ]


@dataclass
class Backfills:
    """Runs backfills from one folder into one emulator."""

    folder: Path
    emulator: EmulatorProcess
    capture: pytest.CaptureFixture[str]

    @property
    def state(self) -> Path:
        """The state folder."""
        return self.folder / "state"

    def config(self, uri: str | list[str], changes: Mapping[str, Any] | None = None) -> Path:
        """Returns the path of a configuration that reads `uri`, with `section.key` values changed."""
        values: dict[str, Any] = {
            "source": {"uri": uri},
            "destination": {
                "endpoint": self.emulator.url,
                "credentials": {"project_token": f"env:{TOKEN}"},
            },
            "limits": {"retry": {"first_wait_seconds": 0.02, "longest_wait_seconds": 0.1}},
            "run": {"state": str(self.state)},
        }
        for path, value in (changes or {}).items():
            *sections, key = path.split(".")
            section = values
            for name in sections:
                section = section.setdefault(name, {})
            section[key] = value
        path_ = self.folder / "config.yaml"
        path_.write_text(yaml.safe_dump(values))
        return path_

    def run(
        self,
        uri: str | list[str],
        changes: Mapping[str, Any] | None = None,
        *,
        resume: str | None = None,
        replay: str | None = None,
        dry_run: bool = False,
        allow_new: bool = False,
    ) -> Outcome:
        """Runs a backfill and returns what it left and printed."""
        path = self.config(uri, changes)
        return self.run_config(path, resume=resume, replay=replay, dry_run=dry_run, allow_new=allow_new)

    def run_config(
        self,
        path: Path,
        *,
        resume: str | None = None,
        replay: str | None = None,
        dry_run: bool = False,
        allow_new: bool = False,
    ) -> Outcome:
        """Runs what a configuration says and returns what it left and printed."""
        go = partial(run, str(path), resume=resume, replay=replay, as_json=True)
        return self._outcome(partial(go, dry_run=dry_run, allow_new=allow_new))

    def resume(self, config: Path, *overrides: str) -> tuple[int, dict[str, Any], str]:
        """Goes on with the run `it` in this process, which has all loaded that a new one would load first.

        Args:
            config: the run's configuration.
            overrides: as `--set` takes them.

        Returns:
            Exit code, report and what it said.
        """
        outcome = self._outcome(partial(run, str(config), overrides=overrides, resume="it", as_json=True))
        return outcome.code, outcome.report, outcome.err

    def _outcome(self, go: Callable[[], int]) -> Outcome:
        self.capture.readouterr()
        code = go()
        printed = self.capture.readouterr()
        report = checked(json.loads(printed.out)) if printed.out else {}
        return Outcome(code, report, printed.out, printed.err)

    def write(self, name: str, lines: Iterable[bytes | Mapping[str, Any]]) -> Path:
        """Writes a file of lines, gzipped if its name says so, and returns its path."""
        path = self.folder / "input" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = ndjson(lines)
        path.write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
        return path

    @property
    def everything(self) -> str:
        """The pattern of all that was written."""
        return str(self.folder / "input" / "**" / "*")


@pytest.fixture
def backfills(
    tmp_path: Path,
    emulator: EmulatorProcess,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Backfills:
    """Backfills from a temporary folder into the shared emulator."""
    monkeypatch.setenv(TOKEN, "token-of-the-test")
    return Backfills(tmp_path, emulator, capsys)


def event(number: int, **properties: Any) -> dict[str, Any]:
    """Returns a valid event; numbers make them differ."""
    return {
        "event": "Order placed",
        "properties": {
            "time": 1_700_000_000 + number,
            "distinct_id": f"user-{number % 97}",
            "ip": "0",
            "$insert_id": f"id-{number:012d}",
            "amount": number / 4,
            **properties,
        },
    }


def events(count: int, first: int = 0) -> Iterator[dict[str, Any]]:
    """Yields valid events that differ."""
    return (event(first + i) for i in range(count))


def ndjson(lines: Iterable[bytes | Mapping[str, Any]]) -> bytes:
    """Returns lines, given as bytes or as records, as NDJSON."""
    return b"".join((x if isinstance(x, bytes) else json.dumps(x).encode()) + b"\n" for x in lines)


def read_letters(path: Path) -> list[dict[str, Any]]:
    """Returns the dead letters in a local file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]
