"""Options of stores: what cannot be meant is refused by name, and not handed on to be misunderstood."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.backfills import Backfills
from tests.processes import REPOSITORY
from tests.servers import GcsServer, S3Server
from transforms.storage_options import StorageOptionsWrong, check_options


@pytest.mark.parametrize(
    ("scheme", "options", "words"),
    [
        (
            "s3",
            {"endpont_url": "https://x"},
            "storage_options.endpont_url: unknown for s3://; did you mean endpoint_url?",
        ),
        (
            "gs",
            {"endpont_url": "https://x"},
            "storage_options.endpont_url: unknown for gs://; did you mean endpoint_url?",
        ),
        ("s3", {"project": "x"}, "storage_options.project: unknown for s3://"),
        ("s3", {"endpoint_url": "minio:9000"}, "storage_options.endpoint_url: must be like"),
        ("s3", {"endpoint_url": "htps://minio"}, "storage_options.endpoint_url: must be like"),
        ("gs", {"endpoint_url": "https:///"}, "storage_options.endpoint_url: must be like"),
        ("gs", {"token": "/no/such/key.json"}, "storage_options.token: there is no such file"),
        ("gs", {"token": "key.json"}, "storage_options.token: there is no such file"),
    ],
)
def test_what_cannot_be_meant_is_refused(scheme: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(StorageOptionsWrong) as caught:
        check_options(scheme, options)

    assert str(caught.value).startswith(words)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(StorageOptionsWrong) as caught:
        check_options("s3", {"regoin": "x", "endpoint_url": "x"})

    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        *("storage_options.regoin", "storage_options.endpoint_url")
    ]


def test_what_is_documented_is_taken(tmp_path: Path, s3: S3Server, gcs: GcsServer) -> None:
    key = tmp_path / "key.json"
    key.write_text("{}")
    check_options(
        "s3", {"anon": True, "requester_pays": True, "profile": "x", "config_kwargs": {}, "key": "x"}
    )
    check_options("gs", {"token": "anon", "requester_pays": "p", "project": "p", "session_kwargs": {}})
    check_options("gs", {"token": str(key), "use_listings_cache": False})
    check_options("gs", {"token": "ya29.a/b"})
    check_options("gs", {"profile": "of S3, where a list has URIs of both"})
    check_options("s3", s3.storage_options)
    check_options("gs", gcs.storage_options)


def test_a_wrong_option_ends_a_run_before_it_begins(backfills: Backfills) -> None:
    outcome = backfills.run(
        "s3://bucket/a/*.json", {"source.storage_options": {"endpoint_url": "minio:9000"}}
    )

    assert outcome.code == 2
    assert outcome.err == "error: storage_options.endpoint_url: must be like https://minio.example:9000\n"


def test_no_look_at_options_makes_the_client_for_gcs_ask_a_service_that_may_not_be_there() -> None:
    code = (
        "import sys; from transforms.storage import Storage; "
        "Storage({'token': 'anon', 'endpoint_url': 'http://127.0.0.1:9'}).open('gs://bucket/key'); "
        "sys.exit('gcsfs.extended_gcsfs' in sys.modules)"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GCSFS_")}
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=environment).returncode == 0
