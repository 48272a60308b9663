"""Canaries: secrets that turn up nowhere but in requests, and values of records in letters alone."""

from __future__ import annotations

import base64
import bz2
import gzip
import json
import logging
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import apache_beam as beam
import pytest
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.transforms.display import DisplayData

from mixpanel_http.verdicts import Reason
from pipelines.config_reading import load_config
from pipelines.graph import BackfillEvents
from pipelines.ledger import Ledger
from pipelines.runners import pipeline_options
from pipelines.state import StateFolder
from tests.backfills import TOKEN, Backfills, Outcome, event, events
from tests.processes import start, wait_until
from tests.refused_events import REFUSED

CANARY = "canary-7c1e5f0b93d24a68"
REPOSITORY = Path(__file__).parent.parent


def forms(secret: str) -> Iterator[bytes]:
    """Yields the forms in which a secret could show: plain, in Basic credentials, in a URL, as hex."""
    for text in (secret, f"{secret}:", f"user:{secret}"):
        for shift in range(3):  # base64 of a part of a longer text depends on where it starts
            coded = base64.b64encode(b"x" * shift + text.encode())
            yield coded[4:-4] if shift else coded.rstrip(b"=")[:-1]
    yield secret.encode()
    yield quote(secret, safe="").encode()
    yield secret.encode().hex().encode()


def assert_nowhere(secret: str, *places: bytes) -> None:
    for place in places:
        found = [form for form in forms(secret) if form in place]
        assert not found


def unpacked(transform: beam_runner_api_pb2.PTransform) -> bytes:
    """Returns what Beam pickled into a transform, as anyone who has the job graph can read it."""
    if transform.spec.urn != "beam:transform:pardo:v1":
        return bytes(transform.spec.payload)
    pardo = beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload)
    packed = base64.b64decode(pardo.do_fn.payload)
    return bz2.decompress(packed) if packed.startswith(b"BZh") else zlib.decompress(packed)


def everything_below(folder: Path) -> bytes:
    return b"\0".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.parametrize("status", [200, 401, 400, 503])
def test_a_token_is_in_no_output_no_log_and_no_state_however_a_run_ends(
    backfills: Backfills,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    monkeypatch.setenv(TOKEN, CANARY)
    path = backfills.write("a.json", [*events(100), b"{"])
    if status != 200:
        backfills.emulator.faults(
            [{"name": "f", "when": {"share": 1.0, "seed": 1}, "do": {"status": status}}]
        )
    with caplog.at_level(logging.DEBUG):
        outcome = backfills.run(str(path), {"limits.retry.give_up_after_seconds": 0.05})
    logged = "\n".join(record.getMessage() for record in caplog.records)
    assert outcome.report
    assert_nowhere(
        CANARY,
        outcome.out.encode(),
        outcome.err.encode(),
        logged.encode(),
        everything_below(backfills.folder),
    )


def test_a_secret_is_in_neither_the_pickled_pipeline_nor_its_options_nor_display_data(
    backfills: Backfills, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (TOKEN, "CANARY_S3_SECRET"):
        monkeypatch.setenv(name, CANARY)
    path = backfills.config(
        "s3://bucket/*", {"source.storage_options": {"key": "k", "secret": "env:CANARY_S3_SECRET"}}
    )
    config = load_config(str(path))
    ledger = Ledger(StateFolder(str(backfills.state)))
    options = pipeline_options(config)
    pipeline = beam.Pipeline(options=options)
    _ = pipeline | BackfillEvents(config, config.destination.to_destination(), ledger)
    proto = pipeline.to_runner_api()
    payloads = [unpacked(t) for t in proto.components.transforms.values()]
    shown = str(DisplayData.create_from(options).to_proto()) + str(options.get_all_options())
    assert_nowhere(CANARY, proto.SerializeToString(), shown.encode(), *payloads)
    assert any(TOKEN.encode() in payload for payload in payloads), "the reference must be seen, or nothing is"


def test_a_secret_written_into_the_configuration_is_refused_and_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "source: {uri: 's3://b/*', storage_options: {secret: " + CANARY + "}}\n"
        "destination: {credentials: {project_token: " + CANARY + "}}\n"
        "beam: {options: {my_secret: " + CANARY + "}}\n"
    )
    done = subprocess.run(
        [sys.executable, "run_backfill.py", "--config", str(path)],
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    for key in ("source.storage_options", "destination.credentials.project_token", "beam.options"):
        assert key in done.stderr.decode()
    assert_nowhere(CANARY, done.stdout, done.stderr)


def test_dead_letters_are_readable_for_their_owner_only(backfills: Backfills) -> None:
    path = backfills.write("a.json", [b"{"])
    outcome = backfills.run(str(path))
    (name,) = outcome.report["dead_letters"]["files"]
    assert Path(name).stat().st_mode & 0o077 == 0


# --- values of records -------------------------------------------------------------------------------

PII = "pii-51c09be7"  # what all 500 values have in common
FAST = {
    "limits.retry.give_up_after_seconds": 0.05,
    "limits.events_per_second": 10**6,
    "run.id": "r",
}


def watched() -> Iterator[bytes]:
    """Yields 500 events, each with a value of its own where values are: in properties and below, in names."""
    for n, record in enumerate(events(500)):
        canary = f"{PII}-{n:03}"
        record["event"] = f"{canary} event"
        record["properties"] |= {"distinct_id": canary, "email": canary, "address": {"street": [canary]}}
        yield json.dumps(record).encode()


def refused_lines() -> Iterator[tuple[bytes, Reason]]:
    """Yields lines with values to watch for every reason of a refusal, some of them as the very fault."""
    inside = f'"email": "{PII}-refused",'.encode()
    for line, reason, _ in REFUSED.values():
        if len(line) < 200_000:
            line = line.replace(b"{", b"{" + inside, 1)
            yield line.replace(b'"properties":{', b'"properties":{' + inside, 1), reason
    large = event(0, big=[PII * 100] * 1500)
    yield json.dumps(large).encode(), Reason.TOO_LARGE
    for changes, reason in (
        ({"time": f"{PII}-time"}, Reason.BAD_TIME),
        ({"distinct_id": [f"{PII}-people"]}, Reason.BAD_DISTINCT_ID),
        ({"distinct_id": {"a": f"{PII}-people"}}, Reason.BAD_DISTINCT_ID),
        ({"address": {"a": {"b": {"c": {"d": f"{PII}-deep"}}}}}, Reason.TOO_DEEP),
        ({"address": [f"{PII}-long"] * 300}, Reason.ARRAY_TOO_LONG),
    ):
        yield json.dumps(event(0, **changes)).encode(), reason
    yield json.dumps(event(0) | {"event": [f"{PII}-event"]}).encode(), Reason.MISSING_EVENT
    yield json.dumps(event(0) | {"properties": [f"{PII}-list"]}).encode(), Reason.MISSING_PROPERTIES


@dataclass
class Watch:
    """Runs backfills and keeps all that is said anywhere."""

    backfills: Backfills
    caplog: pytest.LogCaptureFixture
    said: list[bytes] = field(default_factory=list)

    def run(self, uri: str, changes: dict[str, Any], **how: Any) -> Outcome:
        """Runs a backfill at DEBUG and returns what it left."""
        with self.caplog.at_level(logging.DEBUG):
            outcome = self.backfills.run(uri, {**FAST, **changes}, **how)
        self.said += [outcome.out.encode(), outcome.err.encode(), self.caplog.text.encode()]
        self.caplog.clear()
        return outcome

    def assert_silent(self) -> None:
        """Asserts that values are in letters alone, which only their owner reads; and the secret in none."""
        said: list[bytes] = list(self.said)
        letters: list[bytes] = []
        for path in self.backfills.state.rglob("*"):
            if path.is_file():
                is_letter = path.parent.name in ("dead_letters", "undelivered")
                content = path.read_bytes()
                if is_letter:
                    assert path.stat().st_mode & 0o077 == 0
                    content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
                (letters if is_letter else said).append(content)
        assert any(form in letter for form in forms(PII) for letter in letters), "no value to find at all"
        assert_nowhere(PII, *said)
        assert_nowhere(CANARY, *said, *letters)


@pytest.fixture
def watch(backfills: Backfills, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Watch:
    monkeypatch.setenv(TOKEN, CANARY)
    return Watch(backfills, caplog)


LISTED = {
    "code": 400,
    "error": f"refused {PII}",
    "num_records_imported": 499,
    "failed_records": [{"index": 5, "field": "properties.email", "message": f"'{PII}-005' is no address"}],
}
# What a fault does, and the exit code of the run.
FAULTS: dict[str, tuple[dict[str, Any], int]] = {
    "400 with a list": ({"status": 400, "body": json.dumps(LISTED)}, 6),
    "400 without": ({"status": 400, "body": json.dumps({"code": 400, "error": f"no {PII}-1"})}, 6),
    "400 as text": ({"status": 400, "body": f"{PII} is bad"}, 6),
    "403 as a page": ({"status": 403, "html": True}, 3),
    "401 in words": ({"status": 401, "body": json.dumps({"error": f"invalid project {PII}-003"})}, 3),
    "402 in words": ({"status": 402, "body": json.dumps({"error": f"{PII}", "status": PII})}, 7),
    "403 in words": ({"status": 403, "body": json.dumps({"error": f"'{PII}-004' not allowed"})}, 3),
    "404 in words": ({"status": 404, "body": json.dumps({"error": f"{PII}"})}, 3),
    "418 in words": ({"status": 418, "body": json.dumps({"error": [f"{PII}"]})}, 3),
    "503 in words": ({"status": 503, "body": json.dumps({"error": f"retry {PII}"})}, 5),
    "200 in words": ({"status": 200, "body": json.dumps({"code": 200, "status": f"OK {PII}"})}, 5),
    "413": ({"status": 413}, 3),
    "422": ({"status": 422, "body": f"{PII}"}, 3),
    "429": ({"status": 429}, 5),
    "500": ({"status": 500, "body": f"crashed at {PII}-007"}, 5),
    "503 as a page": ({"status": 503, "html": True}, 5),
    "a redirect": ({"status": 302, "headers": {"Location": f"http://127.0.0.1/{PII}"}}, 3),
    "no JSON": ({"status": 200, "body": f"<b>{PII}</b>"}, 5),
    "a wrong count": ({"status": 200, "body": '{"code":200,"num_records_imported":7,"status":"OK"}'}, 5),
    "204": ({"status": 204, "body": ""}, 5),
    "a reset before": ({"reset": "before"}, 5),
    "a reset after": ({"reset": "after"}, 5),
    "an answer that is cut": ({"cut_at": 40}, 5),
}


ALWAYS = {
    "400 with a list",
    "400 without",
    "401 in words",
    "413",
    "500",
    "a redirect",
    "no JSON",
    "a reset after",
}


@pytest.mark.parametrize(
    "name", [n if n in ALWAYS else pytest.param(n, marks=pytest.mark.soak) for n in FAULTS]
)
def test_no_value_of_a_record_is_told_whatever_the_service_does(name: str, watch: Watch) -> None:
    do, code = FAULTS[name]
    path = str(watch.backfills.write("a.json", [*watched(), f'{{"email": "{PII}'.encode()]))
    watch.backfills.emulator.faults([{"name": name, "path": "/import", "do": do}])
    outcome = watch.run(path, {})

    assert watch.backfills.emulator.stats()["faults"][name] > 0
    assert outcome.code == code
    watch.backfills.emulator.faults([])
    watch.run(path, {}, resume="r")
    watch.run(path, {"run.id": "again"}, replay="r")
    watch.assert_silent()


def test_no_value_of_a_record_is_told_for_whatever_reason_it_is_refused(watch: Watch) -> None:
    lines = list(refused_lines())
    assert {reason for _, reason in lines} >= {r for _, r, _ in REFUSED.values()}
    path = str(watch.backfills.write("a.json", (line for line, _ in lines)))
    changes = {"records.insert_id": {"mode": "fields", "fields": ["absent"]}}
    rehearsed = watch.run(path, {"run.id": "rehearsed"}, dry_run=True)
    outcome = watch.run(path, {})
    without_id = event(0, email=PII)
    del without_id["properties"]["$insert_id"]
    other = str(watch.backfills.write("b.json", [without_id]))
    fieldless = watch.run(other, {**changes, "run.id": "other"})

    assert rehearsed.report["dead_letters"]["by_reason"] == outcome.report["dead_letters"]["by_reason"]
    assert fieldless.report["dead_letters"]["by_reason"] == {"insert_id_fields_missing": 1}
    # A value put in front can be the first fault of a line; each of the reasons is still there.
    assert len(outcome.report["dead_letters"]["by_reason"]) >= 15
    watch.assert_silent()


def test_no_value_of_a_record_is_told_by_an_exception_or_of_a_damaged_file(watch: Watch) -> None:
    folder = watch.backfills.state / "r"
    folder.mkdir(parents=True)
    (folder / "dead_letters").write_text("a file where a folder should be")
    path = watch.backfills.write("a.json.gz", [*watched(), f'{{"email": "{PII}'.encode()])
    failed = watch.run(str(path), {})
    path.write_bytes(path.read_bytes()[:-2000])
    damaged = watch.run(str(path), {"run.id": "damaged"})
    (watch.backfills.folder / "input" / "a.json.gz").write_bytes(b"\x1f\x8b" + bytes(50))
    unreadable = watch.run(str(path), {"run.id": "unreadable"})

    assert failed.report["state"] == "failed"
    assert (damaged.code, unreadable.code) == (4, 4)
    assert damaged.books["imported"] > 0
    (folder / "dead_letters").chmod(0o600)
    watch.assert_silent()


def test_no_value_of_a_record_is_in_the_graph_of_a_run(backfills: Backfills) -> None:
    config = load_config(str(backfills.config(str(backfills.write("a.json", watched())))))
    pipeline = beam.Pipeline(options=pipeline_options(config))
    destination = config.destination.to_destination()
    _ = pipeline | BackfillEvents(config, destination, Ledger(StateFolder(str(backfills.state))))
    proto = pipeline.to_runner_api()

    assert_nowhere(PII, proto.SerializeToString(), *map(unpacked, proto.components.transforms.values()))


@pytest.mark.skipif(not Path("/proc").exists(), reason="command lines are read from /proc")
def test_no_secret_is_in_the_command_line_of_a_run_or_of_what_it_starts(
    backfills: Backfills, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN, CANARY)
    run = start(backfills.config(str(backfills.write("a.json", events(3)))))
    paths = [Path(f"/proc/{pid}/cmdline") for pid in (run.process.pid, backfills.emulator.pid)]
    wait_until(lambda: all(path.read_bytes() for path in paths))
    lines = [path.read_bytes() for path in paths]
    code, _, _ = run.end()

    assert code == 0
    assert all(line.startswith(sys.executable.encode()) for line in lines)
    assert_nowhere(CANARY, *lines)
