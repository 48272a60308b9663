"""What a resume refuses, by name and with exit code 2, and what it must not refuse."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipelines.attempt import Attempt
from pipelines.command import run
from pipelines.config_reading import load_config
from pipelines.launch import prepare_launch
from pipelines.state import StateFolder
from tests.backfills import TOKEN, Backfills, events
from tests.servers import GcsServer, S3Server
from transforms.attempt_ids import new_attempt_id
from transforms.elements import BlockOutcome
from transforms.tally import Counts, PartCounts, Tally

CONTENT = b"".join(json.dumps(each).encode() + b"\n" for each in events(20))
OTHER = CONTENT.replace(b"user-1", b"user-2")
RUN_ID = "it"
ACCOUNT = {
    "service_account": {"username": "env:TEST_USER", "secret": "env:TEST_SECRET"},
    "project_id": "1",
}


@dataclass
class Planned:
    """A run that is planned, of which nothing is sent yet."""

    backfills: Backfills
    base: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        return self.backfills.state / RUN_ID

    def file(self, name: str = "dt=2024-01-01/a.json") -> Path:
        return self.backfills.folder / "input" / name

    def config(self, changes: Mapping[str, Any] | None = None) -> str:
        uri = str(self.backfills.folder / "input" / "dt={date}" / "*.json")
        return str(self.backfills.config(uri, {**self.base, **(changes or {})}))

    def plan(self) -> None:
        prepare_launch(load_config(self.config())).lease.release()


@pytest.fixture
def planned(request: pytest.FixtureRequest, backfills: Backfills, monkeypatch: pytest.MonkeyPatch) -> Planned:
    """A run over two partitions that is planned; a test's parameter changes its settings."""
    for name in ("TEST_USER", "TEST_SECRET", "OTHER_TOKEN", "SALT"):
        monkeypatch.setenv(name, "x")
    base = {"run.id": RUN_ID, "source.dates": {"from": "2024-01-01", "to": "2024-01-02"}}
    found = Planned(backfills, base)
    for name in ("dt=2024-01-01/a.json", "dt=2024-01-02/b.json", "dt=2024-01-03/c.json"):
        found.file(name).parent.mkdir(parents=True)
        found.file(name).write_bytes(CONTENT)
    found.base = {**base, **getattr(request, "param", {})}
    found.plan()
    return found


def refused(config: str, capsys: pytest.CaptureFixture[str], **arguments: Any) -> str:
    """Returns why a resume is refused."""
    capsys.readouterr()
    assert run(config, resume=RUN_ID, as_json=True, **arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err


def accepted(config: str) -> int:
    """Returns how many segments a resume that is not refused has left."""
    launch = prepare_launch(load_config(config), resume=RUN_ID)
    launch.lease.release()
    return launch.segments_left


REFUSED_SETTINGS: list[tuple[str, Any, str]] = [
    ("source.uri", "elsewhere/dt={date}/*.json", "source.uri"),
    ("source.dates", {"from": "2024-01-01", "to": "2024-01-03"}, "source.dates"),
    ("source.dates", {"from": "2024-01-02", "to": "2024-01-02"}, "source.dates"),
    ("source.format", "ndjson", "source.format"),
    ("source.verify", "full", "source.verify"),
    ("records.kind", "profiles", "records.kind"),
    ("records.insert_id", {"mode": "line"}, "records.insert_id"),
    ("records.insert_id", {"mode": "fields", "fields": ["a"]}, "records.insert_id"),
    ("records.insert_id", {"identical_rows": "keep"}, "records.insert_id"),
    ("records.default_ip", None, "records.default_ip"),
    ("records.map", {"tags": {"source": "history"}}, "records.map"),
    ("records.map", {"drop": ["amount"]}, "records.map"),
    ("records.map", {"events": {"deny": ["x"]}}, "records.map"),
    ("records.map", {"time": {"offset": 3600}}, "records.map"),
    ("records.map", {"personal_data": {"hash": {"keys": ["mail"]}, "salt": "env:SALT"}}, "records.map"),
    ("destination.identity", "original", "destination.identity"),
    ("destination.endpoint", "http://127.0.0.1:9", "destination"),
    ("destination.endpoint", None, "destination"),
    ("destination.credentials", {"project_token": "env:OTHER_TOKEN"}, "destination"),
    ("destination.credentials", {"project_token": f"env:{TOKEN}", "project_id": "7"}, "destination"),
    ("destination.credentials", ACCOUNT, "destination"),
    ("limits.records_per_request", 1999, "limits.records_per_request"),
    ("limits.bytes_per_request", 9_799_999, "limits.bytes_per_request"),
]


@pytest.mark.parametrize(("key", "value", "named"), REFUSED_SETTINGS)
def test_a_setting_that_changes_ids_blocks_or_where_to_is_refused_by_name(
    planned: Planned, capsys: pytest.CaptureFixture[str], key: str, value: Any, named: str
) -> None:
    err = refused(planned.config({key: value}), capsys)
    told = [line for line in err.splitlines() if line.startswith("error: ")]
    assert told
    for line in told:
        assert line.startswith(f"error: {named}"), err
        assert ": the run has " in line
        assert "put it back, or start a new run" in line
    assert accepted(planned.config()) == 1, "nothing was changed by the refusal"


@pytest.mark.parametrize(
    "planned", [{"records.map": {"tags": {"source": "history"}, "drop": ["a"]}}], indirect=True
)
def test_of_a_section_only_what_differs_is_told(planned: Planned, capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(planned.config({"records.map": {"tags": {"source": "now"}, "drop": ["a"]}}), capsys)
    assert "error: records.map.tags.source: the run has 'history', the configuration 'now'; " in err
    assert "drop" not in err


def test_all_that_differs_is_told_at_once(planned: Planned, capsys: pytest.CaptureFixture[str]) -> None:
    changes = {"records.default_ip": None, "source.verify": "full", "limits.records_per_request": 5}
    assert refused(planned.config(changes), capsys).count("error: ") == 3


@pytest.mark.parametrize("planned", [{"destination.credentials": ACCOUNT}], indirect=True)
def test_another_project_of_an_account_is_refused(
    planned: Planned, capsys: pytest.CaptureFixture[str]
) -> None:
    err = refused(planned.config({"destination.credentials": {**ACCOUNT, "project_id": "2"}}), capsys)
    assert "project 1" in err
    assert "project 2" in err


@pytest.mark.parametrize(
    "planned",
    [{"records.map": {"personal_data": {"hash": {"keys": ["mail"]}, "salt": "env:SALT"}}}],
    indirect=True,
)
def test_another_reference_to_a_salt_is_refused(planned: Planned, capsys: pytest.CaptureFixture[str]) -> None:
    hashed = {"hash": {"keys": ["mail"]}, "salt": "env:TEST_SECRET"}
    assert "records.map" in refused(planned.config({"records.map": {"personal_data": hashed}}), capsys)


def rewrite(path: Path, content: bytes, mtime: float | None = None) -> None:
    path.write_bytes(content)
    if mtime is not None:
        os.utime(path, (mtime, mtime))


REFUSED_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "longer": (lambda path: rewrite(path, CONTENT + b"{}\n", path.stat().st_mtime), "bytes, now"),
    "shorter": (lambda path: rewrite(path, CONTENT[:-1], path.stat().st_mtime), "bytes, now"),
    "empty": (lambda path: rewrite(path, b""), "now 0"),
    "another of that size": (lambda path: rewrite(path, OTHER, 1e9), "it was written at "),
    "touched": (lambda path: os.utime(path, (1e9, 1e9)), "now at 2001-09-09T01:46:40.000000+00:00"),
    "older": (lambda path: os.utime(path, (1, 1)), "now at 1970-01-01T00:00:01.000000+00:00"),
}


@pytest.mark.parametrize("what", REFUSED_FILES)
def test_a_file_that_is_not_done_and_has_changed_is_refused_by_name(
    planned: Planned, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    change, said = REFUSED_FILES[what]
    change(planned.file())
    err = refused(planned.config(), capsys)
    assert f"error: {planned.file()}: has changed since the run was planned" in err
    assert said in err
    assert str(planned.file("dt=2024-01-02/b.json")) not in err


def rewrite_manifest(path: Path, old: bytes, new: bytes) -> None:
    """Changes a manifest as another version or run would have written it, with a checksum that holds."""
    *lines, _ = path.read_bytes().splitlines(keepends=True)
    content = b"".join(lines).replace(old, new)
    path.write_bytes(content + json.dumps({"crc32": zlib.crc32(content)}).encode() + b"\n")


def strange_segment(planned: Planned) -> None:
    attempt = Attempt(StateFolder(str(planned.folder)), key_of(planned), "0000099", new_attempt_id())
    attempt.record(BlockOutcome("0000099", "x", 0, Tally(), end=True))
    attempt.commit()


def key_of(planned: Planned) -> str:
    head = json.loads((planned.folder / "manifest.jsonl").read_bytes().splitlines()[0])
    return f"{head['run_id']} {head['created_at']}"


REFUSED_STATES: dict[str, tuple[Callable[[Planned], object], str]] = {
    "no manifest": (lambda p: (p.folder / "manifest.jsonl").unlink(), "there is no run here"),
    "a manifest cut short": (
        lambda p: os.truncate(p.folder / "manifest.jsonl", 300),
        "manifest.jsonl: damaged",
    ),
    "an empty manifest": (lambda p: os.truncate(p.folder / "manifest.jsonl", 0), "manifest.jsonl: damaged"),
    "a manifest of another version": (
        lambda p: rewrite_manifest(p.folder / "manifest.jsonl", b'"v":1', b'"v":9'),
        "written by another version (9)",
    ),
    "a manifest of another run": (
        lambda p: rewrite_manifest(p.folder / "manifest.jsonl", b'"run_id":"it"', b'"run_id":"no"'),
        "is of another run, no",
    ),
    "segments that nobody planned": (strange_segment, "a part of the manifest is missing"),
    "somebody at work": (
        lambda p: (p.folder / "lock.json").write_text(
            '{"owner": "x", "machine": "m", "host": "h", "pid": 7, "at": 4e9, "seconds": 90}'
        ),
        "process 7 on h is working on this run",
    ),
}


@pytest.mark.parametrize("what", REFUSED_STATES)
def test_a_state_that_cannot_be_gone_on_with_is_refused(
    planned: Planned, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    change, said = REFUSED_STATES[what]
    change(planned)
    assert said in refused(planned.config(), capsys)


def done_first(planned: Planned) -> None:
    """Settles everything, and then changes a file."""
    id_ = new_attempt_id()
    attempt = Attempt(StateFolder(str(planned.folder)), key_of(planned), "0000000", id_)
    attempt.record(
        BlockOutcome("0000000", id_, 0, Tally(parts=PartCounts({0: Counts(read=40, imported=40)})))
    )
    attempt.record(BlockOutcome("0000000", id_, 1, Tally(), end=True))
    attempt.commit()
    planned.file().write_bytes(b"{}")


ACCEPTED: dict[str, tuple[Callable[[Planned], object], Mapping[str, Any], int]] = {
    "nothing": (lambda p: None, {}, 1),
    "speed": (lambda p: None, {"limits.events_per_second": 5}, 1),
    "bytes a minute": (lambda p: None, {"limits.bytes_per_minute": 5e6}, 1),
    "requests at once": (lambda p: None, {"limits.in_flight": 1}, 1),
    "patience": (lambda p: None, {"limits.retry": {"give_up_after_seconds": 3}}, 1),
    "allowance": (lambda p: None, {"run.allow_dead_letters": "5%"}, 1),
    "limit of errors": (lambda p: None, {"run.max_errors": 9}, 1),
    "lease": (lambda p: None, {"run.lease_seconds": 5}, 1),
    "order, which is planned": (lambda p: None, {"source.order": "oldest_first"}, 1),
    "access to the source": (lambda p: None, {"source.storage_options": {"anon": True}}, 1),
    "a default written out": (lambda p: None, {"source.format": "auto", "records.default_ip": 0}, 1),
    "a token of another value": (lambda p: os.environ.__setitem__(TOKEN, "rotated"), {}, 1),
    "a new file": (lambda p: p.file("dt=2024-01-01/z.json").write_bytes(CONTENT), {}, 1),
    "a file that is gone": (lambda p: p.file().unlink(), {}, 1),
    "a file replaced by itself": (
        lambda p: rewrite(p.file(), CONTENT, p.file().stat().st_mtime),
        {},
        1,
    ),
    "a file changed when all is done": (done_first, {}, 0),
    "a lock left behind": (
        lambda p: (p.folder / "lock.json").write_text('{"owner": "x", "machine": "m", "pid": 7, "at": 5}'),
        {},
        1,
    ),
    "a lock that is unreadable": (lambda p: (p.folder / "lock.json").write_bytes(b"\0"), {}, 1),
    "a lost report": (lambda p: (p.folder / "report.json").write_bytes(b"{"), {}, 1),
}


@pytest.mark.parametrize("what", ACCEPTED)
def test_what_changes_neither_ids_nor_blocks_nor_where_to_is_not_refused(planned: Planned, what: str) -> None:
    change, changes, left = ACCEPTED[what]
    change(planned)
    assert accepted(planned.config(changes)) == left


@pytest.mark.parametrize("planned", [{"destination.credentials": ACCOUNT}], indirect=True)
def test_another_account_for_the_same_project_is_not_refused(planned: Planned) -> None:
    user = {"service_account": {"username": "env:OTHER_TOKEN", "secret": "env:TEST_SECRET"}}
    assert accepted(planned.config({"destination.credentials": {**ACCOUNT, **user}})) == 1
    token = {"project_token": "env:OTHER_TOKEN", "project_id": "1"}
    assert accepted(planned.config({"destination.credentials": token})) == 1


@pytest.mark.parametrize("store", ["s3", "gcs"])
def test_an_object_of_another_version_is_refused_and_one_put_again_as_it_was_on_s3_is_not(
    request: pytest.FixtureRequest,
    backfills: Backfills,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    store: str,
) -> None:
    server: S3Server | GcsServer = request.getfixturevalue(store)
    options = dict(server.storage_options)
    if store == "s3":
        monkeypatch.setenv("TEST_STORE_SECRET", options["secret"])
        options["secret"] = "env:TEST_STORE_SECRET"
    uri = server.put("refused-resumes/a.json", CONTENT)
    config = str(backfills.config(uri, {"run.id": RUN_ID, "source.storage_options": options}))
    prepare_launch(load_config(config)).lease.release()
    assert accepted(config) == 1
    server.put("refused-resumes/a.json", CONTENT)
    if store == "s3":  # an etag is that of the content; a generation is not
        assert accepted(config) == 1
        server.put("refused-resumes/a.json", OTHER)
    err = refused(config, capsys)
    assert f"{uri}: has changed since the run was planned (its version was " in err
