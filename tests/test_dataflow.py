"""A run on Dataflow: what is submitted and staged, that it works from that alone, who closes the books."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apache_beam.internal.gcp import auth

from pipelines.command import run
from pipelines.status_command import show_status
from run_backfill import main
from tests.backfills import TOKEN, Backfills, event, events, ndjson
from tests.clusters import Cluster, cluster
from tests.dataflow_stub import DataflowStub, dataflow_stub
from tests.servers import GcsServer
from tests.staged_jobs import run_staged, staged_pipeline

COUNT = 6000
CANARY = "canary-of-the-token-5b1f"


@pytest.fixture
def dataflow(gcs: GcsServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[DataflowStub]:
    """Dataflow and its buckets on this machine, for this process."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.endpoint_url)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv(TOKEN, CANARY)
    # Beam's staging looks for credentials for 20 seconds, whatever it is told.
    monkeypatch.setattr(auth._Credentials, "_credentials_init", True)
    with dataflow_stub() as stub:
        yield stub


@pytest.fixture
def workers(tmp_path: Path, gcs: GcsServer) -> Iterator[Cluster]:
    """Workers that know the token from their own environment."""
    with cluster(tmp_path / "cluster", {TOKEN: CANARY, "STORAGE_EMULATOR_HOST": gcs.endpoint_url}) as running:
        yield running


def on_dataflow(backfills: Backfills, gcs: GcsServer, dataflow: DataflowStub, **options: Any) -> Path:
    """Returns the path of a configuration that reads from the bucket and runs on Dataflow."""
    name = backfills.folder.name
    for part in range(4):
        lines = [*events(COUNT // 4, first=part * (COUNT // 4)), event(1, distinct_id="undefined")]
        gcs.put(f"{name}/in/{part}.json", ndjson(lines))
    return backfills.config(
        gcs.url(f"{name}/in/*.json"),
        {
            "source.storage_options": gcs.storage_options,
            "run.id": "it",
            "run.state": gcs.url(f"{name}/state"),
            "run.storage_options": gcs.storage_options,
            "run.allow_dead_letters": 4,
            "limits.records_per_request": 300,
            "beam.runner": "DataflowRunner",
            "beam.options": {
                "project": "test-project",
                "region": "europe-west1",
                "temp_location": gcs.url(f"{name}/tmp"),
                "dataflow_endpoint": dataflow.endpoint,
                "no_auth": True,
                **options,
            },
        },
    )


def test_a_detached_run_works_from_the_bucket_alone_and_status_closes_its_books(
    backfills: Backfills,
    gcs: GcsServer,
    dataflow: DataflowStub,
    workers: Cluster,
    tmp_path: Path,
) -> None:
    config = on_dataflow(backfills, gcs, dataflow)
    before = set(gcs.list())

    assert run(str(config), detach=True) == 0
    printed = backfills.capture.readouterr()
    assert f"job {dataflow.job_id}" in printed.out
    assert "2 workers by 30,000 events/s" in printed.err
    assert f"status it --config {config} --follow" in printed.out

    (job,) = dataflow.jobs
    (pool,) = job["environment"]["workerPools"]
    image = "gcr.io/cloud-dataflow/v1beta3/beam_python3."
    assert job["name"] == "mixpanel-backfill-it"
    assert pool["workerHarnessContainerImage"].startswith(image)
    assert (pool["numWorkers"], pool["autoscalingSettings"]["maxNumWorkers"]) == (2, 2)
    assert pool["machineType"] == "n1-standard-2"
    assert "disable_always_on_exception_sampling" in job["environment"]["experiments"]
    staged = {key for key in set(gcs.list()) - before if "/tmp/" in key}
    names = {key.rpartition("/")[2] for key in staged}
    assert names - {"submission_environment_dependencies.txt"} == {"pipeline.pb", "workflow.tar.gz"}

    secrets = (CANARY.encode(), b"pickled_main_session")
    for content in (json.dumps(job).encode(), *map(gcs.get, staged)):
        assert not [secret for secret in secrets if secret in content]
    assert status(backfills, config)["state"] == "running"

    url = job["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"]
    left = tmp_path / "staged"
    left.mkdir()
    assert run_staged(staged_pipeline(gcs, url), gcs, workers, left) == "DONE", workers.failures()

    ended = status(backfills, config)
    assert (ended["state"], ended["exit_code"]) == ("done", 0)
    assert ended["books"]["imported"] == COUNT
    assert ended["books"]["dead_lettered"] == 4
    assert ended["books"]["balanced"]
    assert backfills.emulator.stats()["distinct"] == COUNT
    folder = f"{backfills.folder.name}/state/it"
    assert {"report.json", "_SUCCESS"} <= {key.rpartition("/")[2] for key in gcs.list(f"{folder}/")}
    assert all(place.is_relative_to(workers.folder) for place in workers.workers().values())


def status(backfills: Backfills, config: Path) -> dict[str, Any]:
    """Returns what `status` prints: from the state folder alone, as any machine would see it."""
    backfills.capture.readouterr()
    assert show_status("it", config_path=str(config), as_json=True) == 0
    values: dict[str, Any] = json.loads(backfills.capture.readouterr().out)
    return values


def test_a_job_that_ends_without_its_work_done_is_told_and_resumed(
    backfills: Backfills, gcs: GcsServer, dataflow: DataflowStub
) -> None:
    config = on_dataflow(backfills, gcs, dataflow, sdk_container_image="example.test/backfill:1")

    code = run(str(config), as_json=True)

    report = json.loads(backfills.capture.readouterr().out)
    assert (code, report["state"], report["books"]["read"]) == (5, "done", 0)
    (pool,) = dataflow.jobs[0]["environment"]["workerPools"]
    assert pool["workerHarnessContainerImage"] == "example.test/backfill:1"
    assert main(["--config", str(config), "--resume", "it", "--runner=DirectRunner", "--json"]) == 0
    report = json.loads(backfills.capture.readouterr().out)
    assert report["books"]["imported"] == COUNT


def test_an_engine_that_refuses_a_job_is_told_in_its_own_words(
    backfills: Backfills, gcs: GcsServer, dataflow: DataflowStub
) -> None:
    dataflow.refusal = (403, "Dataflow API has not been used in project test-project")
    config = on_dataflow(backfills, gcs, dataflow, sdk_container_image="example.test/backfill:1")

    assert run(str(config), detach=True) == 3

    assert "Dataflow API has not been used in project test-project" in backfills.capture.readouterr().err


def test_what_an_engine_needs_is_asked_for_before_anything_is_planned(backfills: Backfills) -> None:
    config = backfills.config("gs://x/*", {"run.state": "gs://x/state", "beam.runner": "DataflowRunner"})

    assert run(str(config)) == 2

    told = backfills.capture.readouterr().err
    for name in ("project", "region", "temp_location"):
        assert f"beam.options.{name}: DataflowRunner needs it" in told
    assert run(str(backfills.config("x.json")), detach=True) == 2
    assert "--detach: DirectRunner works on this machine" in backfills.capture.readouterr().err
