"""Runs of several jobs whose records workers elsewhere send: one after the other, with one report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import clusters
from tests.backfills import Backfills, event, ndjson
from tests.clusters import SECRET, Cluster
from tests.servers import S3Server
from tests.several_jobs import jobs_file

workers = clusters.workers


def on_workers(backfills: Backfills, s3: S3Server, workers: Cluster, jobs: dict[str, dict[str, Any]]) -> Path:
    """Returns a configuration of jobs that each read a folder of the bucket, with the state there, too."""
    storage = {**s3.storage_options, "secret": f"env:{SECRET}"}
    changes = {
        "run.id": "it",
        "run.state": s3.url(f"jobs-{backfills.folder.name}"),
        "run.storage_options": storage,
        "beam.runner": "PortableRunner",
        "beam.options": workers.options(),
    }
    listed = [
        {"name": name, "source": {"uri": s3.url(f"{name}/*.json"), "storage_options": storage}, **more}
        for name, more in jobs.items()
    ]
    return jobs_file(backfills, listed, changes)


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
    path = on_workers(backfills, s3, workers, jobs)
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
