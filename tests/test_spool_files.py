"""Spool files: lines, members, rotation, and what is left of a file when its writer is gone."""

import gzip
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_spool.lines import spool_lines
from mixpanel_spool.shipping import default_staging
from mixpanel_spool.spool_file import SpoolFile, finish_abandoned
from mixpanel_spool.writer import SpoolLimits, SpoolWriter
from tests.spools import lines_in, numbers, spooled

USUAL = SpoolLimits()
NOON = 1_709_640_000.0  # 2024-03-05T12:00:00Z


def line(number: int, size: int = 0) -> bytes:
    return (
        json.dumps(["people", {"$distinct_id": "u", "$set": {"n": number, "pad": "x" * size}}]).encode()
        + b"\n"
    )


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """Lets no file grow above a size, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Writer:
    """A writer under a clock of its own."""

    def __init__(self, folder: Path, limits: SpoolLimits = USUAL) -> None:
        self.now = NOON
        self.spool = SpoolWriter(folder, limits, lambda: self.now, lambda: self.now)


@pytest.mark.parametrize("endpoint", ["events", "people", "groups", "imports"])
def test_a_line_is_the_endpoint_and_the_message(endpoint: str) -> None:
    (made,) = spool_lines(endpoint, '{"$set": {"é": "\\ud83d"},\n "n": 12345678901234567890}')

    assert json.loads(made) == [endpoint, {"$set": {"é": "\ud83d"}, "n": 12345678901234567890}]
    assert made.count(b"\n") == 1
    assert made.endswith(b"\n")


def test_a_list_of_messages_is_a_line_each() -> None:
    assert spool_lines("groups", '[{"n":1},{"n":2}]') == [b'["groups",{"n":1}]\n', b'["groups",{"n":2}]\n']


@pytest.mark.parametrize(
    ("endpoint", "message", "left"),
    [
        ("events", '{"event":"e","properties":{"token":"T","n":1}}', b'{"event":"e","properties":{"n":1}}'),
        ("imports", '{"event":"e","properties":{"token":"T"}}', b'{"event":"e","properties":{}}'),
        ("people", '{"$token":"T","$set":{"token":"mine"}}', b'{"$set":{"token":"mine"}}'),
        ("groups", '[{"$token":"T","$group_id":"g"}]', b'{"$group_id":"g"}'),
    ],
)
def test_the_token_of_the_project_is_left_out_unless_it_is_to_be_kept(
    endpoint: str, message: str, left: bytes
) -> None:
    assert spool_lines(endpoint, message) == [b'["%s",%s]\n' % (endpoint.encode(), left)]
    assert b'"T"' in spool_lines(endpoint, message, keep_token=True)[0]


@pytest.mark.parametrize("message", ["", "nothing", "1", '"text"', "[1]", "[[]]", "null"])
def test_what_is_no_message_is_refused_without_repeating_it(message: str) -> None:
    with pytest.raises(ValueError, match="the message is no JSON") as refused:
        spool_lines("events", message)

    assert "nothing" not in str(refused.value)


def test_an_endpoint_that_the_sdk_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="no endpoint 'track'; there are events, groups, imports, people"):
        spool_lines("track", "{}")


def test_a_file_is_visible_to_a_backfill_once_it_is_finished(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path / "dt=2024-03-05", "a")
    file.append(line(1))
    file.append(line(2))
    assert not spooled(tmp_path)

    file.finish()

    assert numbers(spooled(tmp_path)) == [1, 2]
    assert os.listdir(tmp_path / "dt=2024-03-05") == ["a.jsonl.gz"]


def test_a_spool_can_be_read_by_its_owner_only(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path / "dt=2024-03-05", "a")
    file.finish()

    assert [path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")] == [0o700, 0o600]


def test_a_file_in_use_is_not_taken_for_abandoned(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path / "dt=2024-03-05", "a")
    file.append(line(1))

    assert not list(finish_abandoned(tmp_path))
    file.append(line(2))
    file.finish()
    assert numbers(spooled(tmp_path)) == [1, 2]


@given(st.data())
def test_of_a_file_cut_anywhere_each_whole_member_is_kept(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    members = [gzip.compress(line(n), mtime=0) for n in range(4)]
    content = b"".join(members)
    cut = data.draw(st.integers(0, len(content)))
    torn = data.draw(st.sampled_from([b"", b"junk", b"{}\n"]))
    day = folder / "dt=2024-03-05"
    day.mkdir()
    (day / "a.jsonl.gz.open").write_bytes(content[:cut] + (torn if cut < len(content) else b""))

    list(finish_abandoned(folder))

    ends = [sum(map(len, members[: count + 1])) for count in range(4)]
    assert numbers(spooled(folder)) == list(range(sum(end <= cut for end in ends)))
    assert not list(day.glob("*.open"))


def test_lines_survive_a_disk_that_is_full_for_a_while(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.spool.take([line(1)])
    writer.spool.write_out()
    noise = os.urandom(50_000).hex()
    with disk_of(20_000):
        writer.spool.take(
            [line(2), json.dumps(["people", {"n": 3, "noise": noise}]).encode() + b"\n", line(4)]
        )
        with pytest.raises(OSError, match="too large"):
            writer.spool.write_out()
        (growing,) = tmp_path.rglob("*.open")
        assert numbers(lines_in(growing.read_bytes())) == [1]

    writer.spool.write_out()
    writer.spool.finish()

    assert numbers(spooled(tmp_path)) == [1, 2, 3, 4]
    assert (writer.spool.buffered, writer.spool.dropped) == (0, 0)


def test_what_memory_has_no_room_for_is_dropped_and_counted(tmp_path: Path) -> None:
    writer = Writer(tmp_path, SpoolLimits(most_buffered_bytes=3 * len(line(1))))
    writer.spool.take(line(n) for n in range(5))
    writer.spool.write_out()
    writer.spool.finish()

    assert numbers(spooled(tmp_path)) == [0, 1, 2]
    assert writer.spool.dropped == 2


def test_a_file_is_finished_when_it_is_old_enough(tmp_path: Path) -> None:
    writer = Writer(tmp_path, SpoolLimits(rotate_seconds=900))
    writer.spool.take([line(1)])
    writer.spool.write_out()
    writer.now += 899
    writer.spool.write_out()
    assert not spooled(tmp_path)

    writer.now += 1
    writer.spool.write_out()

    assert numbers(spooled(tmp_path)) == [1]


def test_a_file_is_finished_when_it_is_large_enough(tmp_path: Path) -> None:
    writer = Writer(tmp_path, SpoolLimits(rotate_bytes=150))
    for number in range(6):
        writer.spool.take([line(number)])
        writer.spool.write_out()
        writer.now += 1

    files = sorted(tmp_path.rglob("*.gz"))
    assert [numbers(lines_in(path.read_bytes())) for path in files] == [[0, 1], [2, 3], [4, 5]]


def test_each_day_has_its_folder(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    for number in range(2):
        writer.spool.take([line(number)])
        writer.spool.write_out()
        writer.now += 86_400
    writer.spool.finish()

    days = {path.name: numbers(spooled_in(path)) for path in tmp_path.iterdir()}
    assert days == {"dt=2024-03-05": [0], "dt=2024-03-06": [1]}


def spooled_in(day: Path) -> list[tuple[str, dict[str, object]]]:
    return [line for path in day.iterdir() for line in lines_in(path.read_bytes())]


def test_no_member_is_much_larger_than_a_piece(tmp_path: Path) -> None:
    writer = Writer(tmp_path, SpoolLimits(rotate_bytes=1))  # a file for each member
    writer.spool.take(line(n, 300_000) for n in range(7))
    writer.spool.write_out()

    files = sorted(tmp_path.rglob("*.gz"), key=lambda path: path.stat().st_mtime_ns)
    assert [len(lines_in(path.read_bytes())) for path in files] == [3, 3, 1]


def test_a_file_taken_away_costs_its_lines_and_no_more(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.spool.take([line(1)])
    writer.spool.write_out()
    (growing,) = tmp_path.rglob("*.open")
    growing.unlink()
    with pytest.raises(FileNotFoundError):
        writer.spool.finish()
    writer.spool.take([line(2)])
    writer.spool.write_out()
    writer.spool.finish()

    assert numbers(spooled(tmp_path)) == [2]


def inode_of(fd: int) -> int | None:
    try:
        return os.fstat(fd).st_ino
    except OSError:
        return None


def test_a_descriptor_that_was_closed_and_is_anothers_now_is_left_alone(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "spool")
    writer.spool.take([line(1)])
    writer.spool.write_out()
    (growing,) = tmp_path.rglob("*.open")
    identity = os.stat(growing).st_ino
    (own,) = [fd for fd in map(int, os.listdir("/dev/fd")) if inode_of(fd) == identity]
    with (tmp_path / "anothers").open("wb") as other:
        os.dup2(other.fileno(), own)  # as a daemon does that closes all files, and then opens its own
        writer.spool.take([line(2)])
        writer.spool.write_out()
        writer.spool.finish()
        os.close(own)

    assert (tmp_path / "anothers").read_bytes() == b""
    assert numbers(spooled(tmp_path / "spool")) == [2]
    list(finish_abandoned(tmp_path / "spool"))
    assert sorted(numbers(spooled(tmp_path / "spool"))) == [1, 2]


def test_a_temporary_folder_that_others_may_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (private,) = [default_staging("s3://bucket/spool").parent]
    assert private.stat().st_mode & 0o777 == 0o700
    assert default_staging("s3://bucket/a") != default_staging("s3://bucket/b")

    private.chmod(0o755)
    with pytest.raises(PermissionError, match="must be this user's alone"):
        default_staging("s3://bucket/spool")
