"""The object stores that other tests stand on behave as the real ones where it matters here."""

import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tests.servers import GcsServer, S3Server, ServerError, free_ports, gcs_server, run_server

CONTENT = b'{"event": "a"}\n' * 1000


def _filesystem(server: S3Server | GcsServer) -> Any:
    scheme = server.url("").split(":")[0]
    return fsspec.filesystem(scheme, skip_instance_cache=True, **server.storage_options)


@pytest.fixture(params=["s3", "gcs"])
def server(request: pytest.FixtureRequest) -> S3Server | GcsServer:
    chosen: S3Server | GcsServer = request.getfixturevalue(request.param)
    return chosen


def test_what_is_put_is_listed_and_read_back_through_fsspec(server: S3Server | GcsServer) -> None:
    keys = ["read/dt=2024-03-01/a b.json", "read/dt=2024-03-02/naïve+%.json"]
    for key in keys:
        assert server.put(key, CONTENT + key.encode()) == server.url(key)

    filesystem = _filesystem(server)

    assert server.list("read/") == sorted(keys)
    found = sorted(filesystem.find(f"{server.bucket}/read"))
    assert found == [f"{server.bucket}/{key}" for key in keys]
    assert [filesystem.cat_file(path) for path in found] == [CONTENT + key.encode() for key in keys]


def test_a_byte_range_is_read_alone(server: S3Server | GcsServer) -> None:
    server.put("range/part.json", CONTENT)

    filesystem = _filesystem(server)
    path = f"{server.bucket}/range/part.json"

    assert filesystem.cat_file(path, start=15, end=30) == CONTENT[15:30]
    with filesystem.open(path, "rb", block_size=4096) as file:
        file.seek(len(CONTENT) - 15)
        assert file.read() == CONTENT[-15:]


def test_what_fsspec_writes_is_there(server: S3Server | GcsServer) -> None:
    with _filesystem(server).open(server.url("write/out.json"), "wb") as file:
        file.write(CONTENT)

    assert server.get("write/out.json") == CONTENT


def test_an_overwritten_object_shows_another_version(server: S3Server | GcsServer) -> None:
    path = f"{server.bucket}/version/part.json"
    server.put("version/part.json", CONTENT)
    before = _filesystem(server).info(path)
    server.put("version/part.json", CONTENT + b"more")
    after = _filesystem(server).info(path)

    version = "ETag" if isinstance(server, S3Server) else "generation"
    assert before[version] != after[version]
    assert (before["size"], after["size"]) == (len(CONTENT), len(CONTENT) + 4)


def test_a_wrong_secret_is_refused(s3: S3Server) -> None:
    options = {**s3.storage_options, "secret": "wrong"}

    with pytest.raises(PermissionError):
        fsspec.filesystem("s3", skip_instance_cache=True, **options).ls(s3.bucket)


def test_a_server_whose_port_was_stolen_starts_on_another(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as thief:
        stolen = thief.getsockname()[1]
        choices = iter([[stolen], free_ports(1)])

        with gcs_server(tmp_path, choose_ports=lambda count: next(choices)) as server:
            assert not server.endpoint_url.endswith(f":{stolen}")
            server.put("a", b"b")


def test_a_server_that_cannot_start_shows_its_log(tmp_path: Path) -> None:
    def command(ports: Sequence[int]) -> list[str]:
        return [sys.executable, "-c", "raise SystemExit('no disk left')"]

    def connect(process: object, ports: Sequence[int]) -> None:
        raise ServerError("nobody answers")

    started = run_server("A server", command, connect, tmp_path / "log")

    with pytest.raises(ServerError, match=r"A server: ended with 1; its log ends:\nno disk left"), started:
        pass


def test_a_server_is_gone_when_its_block_ends(tmp_path: Path) -> None:
    with gcs_server(tmp_path) as server:
        assert server.process.poll() is None

    assert server.process.poll() is not None
