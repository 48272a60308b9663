"""The state folder: whole files, appends and listings, alike on disk and in object stores."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines.state import StateFolder, StateUnusable
from tests.servers import GcsServer, S3Server
from transforms.storage import Storage


@pytest.fixture(params=["local", "s3", "gcs"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> StateFolder:
    if request.param == "local":
        return StateFolder(str(tmp_path / "state"))
    server: S3Server | GcsServer = request.getfixturevalue(request.param)
    return StateFolder(server.url("test-state"), Storage(dict(server.storage_options)))


def test_files_are_written_listed_read_and_removed(folder: StateFolder) -> None:
    assert folder.names("a") == {}
    folder.write("a/1", b"one")
    folder.write("a/2", b"")
    folder.write("a/1", b"other")
    assert folder.names("a") == {"a/1": 5, "a/2": 0}
    assert dict(folder.read_all(["a/2", "a/1"])) == {"a/1": b"other", "a/2": b""}
    assert folder.read("a/1", 2) == b"her"
    assert folder.folders() == ["a"]
    assert (folder.exists("a/1"), folder.exists("a/3")) == (True, False)
    assert (folder.create("a/3", b"1"), folder.create("a/3", b"2"), folder.read("a/3")) == (True, False, b"1")
    folder.remove("a/3")
    folder.remove("a/2")
    folder.remove("a/2")
    assert folder.names("a") == {"a/1": 5}
    with pytest.raises(FileNotFoundError):
        folder.read("a/2")


def test_of_many_that_create_a_local_file_one_succeeds(tmp_path: Path) -> None:
    folder = StateFolder(str(tmp_path))
    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(lambda n: folder.create("lock", b"%d" % n), range(50)))
    assert sum(created) == 1
    assert folder.read("lock") == b"%d" % created.index(True)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_local_files_are_for_their_owner_and_appended_to(tmp_path: Path) -> None:
    folder = StateFolder(str(tmp_path))
    log = folder.open_log("x/log")
    log.append(b"a")
    log.append(b"bc")
    assert folder.read("x/log") == b"abc"
    folder.write("x/log", b"other")
    log.append(b"seen by nobody")
    log.sync()
    log.close()
    assert folder.read("x/log") == b"other"
    folder.write("whole", b"")
    for name in ("x/log", "whole"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    folder = StateFolder(str(tmp_path / "file"))
    with pytest.raises(StateUnusable, match="file/x: cannot be written"):
        folder.write("x", b"")
