"""Runs of several jobs whose records workers elsewhere send: one after the other, with one report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.backfills import Backfills, event, ndjson
from tests.clusters import Cluster, cluster
from tests.servers import S3Server

SECRET = "TEST_S3_SECRET"


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory, s3: S3Server) -> Iterator[Cluster]:
    """A cluster whose workers know the secrets from their own environment."""
    secrets = {SECRET: s3.secret_key, "TEST_MIXPANEL_TOKEN": "token-of-the-test"}
    with cluster(tmp_path_factory.mktemp("cluster"), secrets) as running:
        yield running


def jobs_file(backfills: Backfills, s3: S3Server, workers: Cluster, jobs: dict[str, dict[str, Any]]) -> Path:
    """Returns a configuration of jobs that each read a folder of the bucket, with the state there, too."""
    storage = {**s3.storage_options, "secret": f"env:{SECRET}"}
    changes = {
        "run.id": "it",
        "run.state": s3.url(f"jobs-{backfills.folder.name}"),
        "run.storage_options": storage,
        "beam.runner": "PortableRunner",
        "beam.options": workers.options(),
    }
    path = backfills.config("unused", changes)
    values = yaml.safe_load(path.read_text())
    del values["source"]
    values["jobs"] = [
        {"name": name, "source": {"uri": s3.url(f"{name}/*.json"), "storage_options": storage}, **more}
        for name, more in jobs.items()
    ]
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_workers_elsewhere_do_each_job_in_its_turn(
    backfills: Backfills, s3: S3Server, workers: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET, s3.secret_key)
    updates = [{"user": f"u-{n % 9}", "at": 900 - n, "n": n} for n in range(900)]
    for part in range(3):
        s3.put(f"users/{part}.json", ndjson(updates[part::3]))
    s3.put("teams/a.json", ndjson([{"id": f"t-{n}", "size": n} for n in range(50)]))
    s3.put("visits/a.json", ndjson([event(n) for n in range(500)]))
    jobs = {
        "users": {"records": {"kind": "profiles", "id_field": "user", "order_by": "at"}},
        "teams": {"records": {"kind": "groups", "id_field": "id", "group_key": "team"}},
        "visits": {},
    }
    path = jobs_file(backfills, s3, workers, jobs)
    outcome = backfills.run_config(path)
    resumed = backfills.run_config(path, resume="it")
    users = [json.loads(raw) for raw in backfills.emulator.records(kind="profiles")]
    teams = [json.loads(raw) for raw in backfills.emulator.records(kind="groups")]

    assert outcome.code == 0, outcome.err + str(workers.failures())
    assert [job["name"] for job in outcome.report["jobs"]] == list(jobs)
    assert [job["books"]["imported"] for job in outcome.report["jobs"]] == [900, 50, 500]
    assert {user["$distinct_id"]: user["$properties"]["n"] for user in users} == {
        f"u-{n}": n for n in range(9)
    }
    assert len(teams) == 50
    assert len(list(backfills.emulator.records())) == 500
    assert (resumed.code, resumed.books) == (0, outcome.books)
    assert workers.workers()
