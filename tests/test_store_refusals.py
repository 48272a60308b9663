"""What a store refuses is told by name: a bucket that is not there, a permission, credentials."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore.exceptions
import gcsfs.retry
import pytest
import s3fs.errors

from pipelines.command import run
from pipelines.status_command import show_runs, show_status
from tests.backfills import Backfills, event
from tests.servers import GcsServer, S3Server
from tests.store_proxy import LISTING, Trouble, store_proxy
from transforms.store_refusals import What, refusal

NOWHERE = "nobody-has-this"
SECRET = "TEST_STORE_SECRET"


def from_s3(code: str, message: str = "so it says") -> BaseException:
    """Returns what s3fs raises where S3 answers with a code."""
    answer: Any = {"Error": {"Code": code, "Message": message}}
    found: BaseException = s3fs.errors.translate_boto_error(
        botocore.exceptions.ClientError(answer, "ListObjectsV2")
    )
    return found


def from_gcs(status: int, message: str = "so it says") -> BaseException:
    """Returns what gcsfs raises where GCS answers with a status."""
    content = f'{{"error": {{"code": {status}, "message": "{message}"}}}}'
    with pytest.raises((OSError, gcsfs.retry.HttpError)) as caught:
        gcsfs.retry.validate_response(status, content, "b/acme/o")
    found: BaseException = caught.value
    return found


@pytest.mark.parametrize(
    ("error", "uri", "what", "told"),
    [
        (from_s3("NoSuchBucket"), "s3://acme/raw", "listed", "there is no bucket acme; check its name"),
        (from_s3("NoSuchBucket"), "s3://acme/state", "written", "there is no bucket acme; check its name"),
        (from_gcs(404), "gs://acme/raw", "listed", "there is no bucket acme; check its name"),
        (from_s3("AccessDenied"), "s3://acme/raw", "listed", "grant s3:ListBucket on bucket acme"),
        (from_s3("403", "Forbidden"), "s3://acme/x", "read", "grant s3:GetObject and s3:ListBucket"),
        (from_s3("AccessDenied"), "s3://acme/x", "written", "grant s3:PutObject on bucket acme"),
        (from_s3("AccessDenied"), "s3://acme/x", "removed", "grant s3:DeleteObject on bucket acme"),
        (from_gcs(403), "gs://acme/raw", "listed", "grant storage.objects.list on bucket acme"),
        (from_gcs(401), "gs://acme/raw", "listed", "or token: anon for a public bucket"),
        (from_gcs(403), "gs://acme/x", "written", "grant storage.objects.create and storage.objects.delete"),
        (from_s3("InvalidAccessKeyId"), "s3://acme/x", "listed", "does not take these credentials"),
        (from_s3("SignatureDoesNotMatch"), "s3://acme/x", "read", "does not take these credentials"),
        (from_s3("ExpiredToken"), "s3://acme/x", "read", "does not take these credentials"),
        (botocore.exceptions.NoCredentialsError(), "s3://acme/x", "listed", "there are no credentials"),
        (from_s3("SlowDown"), "s3://acme/x", "listed", "OSError: so it says"),
        (from_gcs(400), "gs://acme/x", "listed", "HttpError: so it says, 400"),
        (PermissionError(13, "Permission denied"), "/x", "listed", "PermissionError: Permission denied"),
        (FileNotFoundError(2, "No such file"), "/x", "written", "FileNotFoundError: No such file"),
    ],
)
def test_a_refusal_says_what_is_wrong_and_what_to_do(
    error: BaseException, uri: str, what: What, told: str
) -> None:
    said = refusal(error, uri, what)

    assert told in said
    assert "\n" not in said


@pytest.fixture(params=["s3", "gcs"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3Server | GcsServer:
    """A real store, whose secret is in the environment."""
    server: S3Server | GcsServer = request.getfixturevalue(request.param)
    monkeypatch.setenv(SECRET, server.storage_options.get("secret", ""))
    return server


def options_of(store: S3Server | GcsServer, **changes: str) -> dict[str, Any]:
    """Returns what a configuration says of a store."""
    secret = {"secret": f"env:{SECRET}"} if isinstance(store, S3Server) else {}
    return {**store.storage_options, **secret, **changes}


def elsewhere(store: S3Server | GcsServer, key: str) -> str:
    """Returns a URI in a bucket that is not there."""
    return store.url(key).replace(store.bucket, NOWHERE)


def test_a_source_in_a_bucket_that_is_not_there_is_no_source_without_files(
    store: S3Server | GcsServer, backfills: Backfills
) -> None:
    uri = elsewhere(store, "raw/dt=*/*.json")
    there = store.put(f"refused/{backfills.folder.name}/1.json", b"{}")
    for uris in (uri, [there, uri]):
        outcome = backfills.run(uris, {"source.storage_options": options_of(store)})

        assert outcome.code == 4
        assert f"{uri}: cannot be listed: there is no bucket {NOWHERE}" in outcome.err
    assert backfills.emulator.stats()["requests"] == 0


Verb = Callable[[Path], int]
VERBS: dict[str, Verb] = {
    "run": lambda config: run(str(config)),
    "resume": lambda config: run(str(config), resume="it"),
    "replay": lambda config: run(str(config), replay="it"),
    "status": lambda config: show_status("it", config_path=str(config)),
    "runs": lambda config: show_runs(config_path=str(config)),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_state_folder_in_a_bucket_that_is_not_there_is_told_by_every_command(
    store: S3Server | GcsServer, backfills: Backfills, verb: str
) -> None:
    source = backfills.write("events.json", [event(1)])
    state = {"run.state": elsewhere(store, "state"), "run.storage_options": options_of(store)}
    code = VERBS[verb](backfills.config(str(source), state))

    printed = backfills.capture.readouterr()
    assert (code, printed.out) == (2, "")
    assert f"{elsewhere(store, 'state')}" in printed.err
    assert f"cannot be listed: there is no bucket {NOWHERE}" in printed.err
    assert backfills.emulator.stats()["requests"] == 0


@pytest.mark.parametrize("what", ["source", "run"])
def test_what_may_not_be_listed_is_told_with_the_permission_that_is_missing(
    store: S3Server | GcsServer, backfills: Backfills, what: str
) -> None:
    needed = "s3:ListBucket" if isinstance(store, S3Server) else "storage.objects.list"
    local = str(backfills.write("events.json", [event(1)]))
    uri = store.url(f"refused/{backfills.folder.name}")
    with store_proxy(store.endpoint_url) as proxy:
        proxy.troubles.append(Trouble(LISTING, status=403, message="Access Denied"))
        options = options_of(store, endpoint_url=proxy.url)
        changes = {f"{what}.storage_options": options, **({"run.state": uri} if what == "run" else {})}
        outcome = backfills.run(local if what == "run" else f"{uri}/*", changes)

        assert proxy.struck
    assert outcome.code == (2 if what == "run" else 4)
    assert uri in outcome.err
    assert "Access Denied" in outcome.err
    assert f"grant {needed} on bucket {store.bucket}" in outcome.err
    assert backfills.emulator.stats()["requests"] == 0


def test_a_run_that_is_not_there_in_a_bucket_that_is_is_told_as_such(
    store: S3Server | GcsServer, backfills: Backfills
) -> None:
    source = backfills.write("events.json", [event(1)])
    state = {"run.state": store.url("no-runs"), "run.storage_options": options_of(store)}
    config = backfills.config(str(source), state)

    assert show_status("it", config_path=str(config)) == 2
    assert f"{store.url('no-runs/it')}: there is no run here" in backfills.capture.readouterr().err
    assert show_runs(config_path=str(config)) == 0
    assert backfills.capture.readouterr().out == f"There are no runs in {store.url('no-runs')}.\n"
