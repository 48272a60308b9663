"""Runs a job that was staged for Dataflow, from what lies in its bucket alone, on a local cluster."""

from __future__ import annotations

from pathlib import Path

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2, endpoints_pb2
from apache_beam.runners.portability.portable_runner import PortableRunner

from tests.clusters import Cluster
from tests.servers import GcsServer


def staged_pipeline(gcs: GcsServer, url: str) -> beam_runner_api_pb2.Pipeline:
    """Returns the pipeline that lies in a bucket."""
    pipeline = beam_runner_api_pb2.Pipeline()
    pipeline.ParseFromString(gcs.get(_key(gcs, url)))
    return pipeline


def run_staged(pipeline: beam_runner_api_pb2.Pipeline, gcs: GcsServer, cluster: Cluster, folder: Path) -> str:
    """Runs a staged pipeline with its staged artifacts, and returns the job's last state.

    Only where the workers are is another matter than on Dataflow: containers give way to the cluster's pool.
    """
    for environment in pipeline.components.environments.values():
        assert environment.urn == common_urns.environments.DOCKER.urn
        environment.urn = common_urns.environments.EXTERNAL.urn
        pool = endpoints_pb2.ApiServiceDescriptor(url=cluster.pool_endpoint)
        environment.payload = beam_runner_api_pb2.ExternalPayload(endpoint=pool).SerializeToString()
        for artifact in environment.dependencies:
            _fetch(artifact, gcs, folder)
    options = PipelineOptions(
        job_endpoint=cluster.job_endpoint, sdk_worker_parallelism=2, save_main_session=False
    )
    result = PortableRunner().run_portable_pipeline(pipeline, options)
    result.wait_until_finish()
    return str(result.state)


def _fetch(artifact: beam_runner_api_pb2.ArtifactInformation, gcs: GcsServer, folder: Path) -> None:
    """Replaces an artifact in the bucket by a copy of it in a folder."""
    urls = beam_runner_api_pb2.ArtifactUrlPayload.FromString(artifact.type_payload)
    copy = folder / urls.url.rpartition("/")[2]
    copy.write_bytes(gcs.get(_key(gcs, urls.url)))
    artifact.type_urn = common_urns.artifact_types.FILE.urn
    artifact.type_payload = beam_runner_api_pb2.ArtifactFilePayload(
        path=str(copy), sha256=urls.sha256
    ).SerializeToString()


def _key(gcs: GcsServer, url: str) -> str:
    return url.removeprefix(f"gs://{gcs.bucket}/")
