"""Canaries: secrets that must turn up nowhere but in the requests themselves."""

from __future__ import annotations

import base64
import bz2
import logging
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import apache_beam as beam
import pytest
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.transforms.display import DisplayData

from pipelines.config import load_config
from pipelines.graph import BackfillEvents
from pipelines.ledger import Ledger
from pipelines.runners import pipeline_options
from pipelines.state import StateFolder
from tests.backfills import TOKEN, Backfills, events

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
