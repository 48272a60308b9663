"""What a worker's container does at its start, for a worker pool: `--container_executable` of Beam's.

Makes a fresh environment, fetches what was staged, installs it, and runs the worker in it, in a folder of its
own with a clean path. Packages of others come from the interpreter that runs the tests, as an image would
bring them; the project's own code comes from the staged artifacts alone. Each worker leaves its
process id and the place of its modules in the folder that WORKER_BOOT_FOLDER names.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import grpc
from apache_beam.portability import common_urns
from apache_beam.portability.api import (
    beam_artifact_api_pb2,
    beam_artifact_api_pb2_grpc,
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
    beam_runner_api_pb2,
)
from google.protobuf import json_format

FOLDER = "WORKER_BOOT_FOLDER"
TIMEOUT_S = 300  # only where the runner is gone


def main() -> None:
    """Boots the worker that the command line describes, and becomes it."""
    parser = argparse.ArgumentParser()
    for name in ("id", "logging_endpoint", "artifact_endpoint", "provision_endpoint", "control_endpoint"):
        parser.add_argument(f"--{name}", required=True)
    arguments = parser.parse_args()
    folder = Path(os.environ[FOLDER]) / arguments.id
    folder.mkdir(parents=True)
    options = provision(arguments.provision_endpoint, arguments.id)
    staged = folder / "staged"
    packages = list(fetch(arguments.artifact_endpoint, arguments.id, options, staged))
    python = environment(folder / "venv", packages)
    (folder / "place").write_text(place_of_modules(python, folder))
    (folder / "pid").write_text(str(os.getpid()))
    told = {
        "WORKER_ID": arguments.id,
        "PIPELINE_OPTIONS": json_format.MessageToJson(options.pipeline_options),
        "SEMI_PERSISTENT_DIRECTORY": str(folder),
        "LOGGING_API_SERVICE_DESCRIPTOR": f'url: "{arguments.logging_endpoint}"',
        "CONTROL_API_SERVICE_DESCRIPTOR": f'url: "{arguments.control_endpoint}"',
    }
    os.chdir(folder)
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    command = [str(python), "-m", "apache_beam.runners.worker.sdk_worker_main"]
    os.execve(command[0], command, {**clean_environment(), **told})


def provision(endpoint: str, worker: str) -> beam_provision_api_pb2.ProvisionInfo:
    """Returns what the runner tells a worker of the job."""
    with grpc.insecure_channel(endpoint) as channel:
        stub = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        request = beam_provision_api_pb2.GetProvisionInfoRequest()
        answer: beam_provision_api_pb2.GetProvisionInfoResponse = stub.GetProvisionInfo(
            request, metadata=[("worker_id", worker)], timeout=TIMEOUT_S
        )
        return answer.info


def fetch(
    endpoint: str, worker: str, info: beam_provision_api_pb2.ProvisionInfo, folder: Path
) -> Iterator[Path]:
    """Yields the packages among what was staged, after fetching it."""
    folder.mkdir()
    told = {"metadata": [("worker_id", worker)], "timeout": TIMEOUT_S}
    with grpc.insecure_channel(endpoint, [("grpc.max_receive_message_length", -1)]) as channel:
        stub = beam_artifact_api_pb2_grpc.ArtifactRetrievalServiceStub(channel)
        request = beam_artifact_api_pb2.ResolveArtifactsRequest(artifacts=info.dependencies)
        for artifact in stub.ResolveArtifacts(request, **told).replacements:
            path = folder / name_of(artifact)
            wanted = beam_artifact_api_pb2.GetArtifactRequest(artifact=artifact)
            with path.open("wb") as file:
                for piece in stub.GetArtifact(wanted, **told):
                    file.write(piece.data)
            if path.name.endswith((".tar.gz", ".whl")):
                yield path


def name_of(artifact: beam_runner_api_pb2.ArtifactInformation) -> str:
    """Returns the name under which something was staged."""
    if artifact.role_urn == common_urns.artifact_roles.STAGING_TO.urn:
        role = beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(artifact.role_payload)
        return Path(role.staged_name).name
    return "unnamed"


def environment(folder: Path, packages: list[Path]) -> Path:
    """Makes a fresh environment with packages installed, and returns its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    own = next((folder / "lib").glob("python*")) / "site-packages"
    (own / "of_others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for package in packages:
        command = ["install", "--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--no-cache-dir"]
        subprocess.run(
            [python, "-m", "pip", *command, "--ignore-installed", "--prefix", str(folder), str(package)],
            check=True,
            env=clean_environment(),
            cwd=folder,
        )
    return python


def place_of_modules(python: Path, folder: Path) -> str:
    """Returns where the worker's modules are, once it is sure that it will find them and those of others."""
    script = (
        "import pipelines, importlib.util as u; u.find_spec('apache_beam').origin; print(pipelines.__file__)"
    )
    told = subprocess.run(
        [python, "-c", script],
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if told.returncode:
        raise RuntimeError(told.stderr)
    return told.stdout.strip()


def clean_environment() -> dict[str, str]:
    """Returns what a container would have of the environment: nothing that leads to this project's folder."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
    }


if __name__ == "__main__":
    try:
        main()
    except BaseException as error:
        Path(os.environ[FOLDER], f"failed-{os.getpid()}").write_text(json.dumps(repr(error)))
        raise
