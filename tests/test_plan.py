"""Planning: which files match, in which order, cut into which segments."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import pytest

from pipelines.listing import SourceFile
from pipelines.plan import (
    SEGMENT_BYTES,
    SMALL_BYTES,
    NothingMatched,
    SourcePattern,
    SourceUnreadable,
    cut_segments,
    find_files,
    list_files,
    plan_segments,
)
from tests.servers import GcsServer, S3Server
from transforms.segment_reader import BlockLimits, SegmentReader
from transforms.storage import Storage


def names(folder: Path, pattern: str, **options: object) -> list[str]:
    found = list_files(SourcePattern((str(folder / pattern),), **options), Storage())  # type: ignore[arg-type]
    return [str(Path(file.uri).relative_to(folder)) for file in found]


@pytest.fixture
def partitions(tmp_path: Path) -> Path:
    for day in ("2024-01-30", "2024-01-31", "2024-02-01", "not-a-day-at-all"):
        for name in ("a.json", "b.json.gz", "notes.txt"):
            path = tmp_path / f"dt={day}" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text("{}\n")
    (tmp_path / "dt=2024-02-01" / "deep" / "er").mkdir(parents=True)
    (tmp_path / "dt=2024-02-01" / "deep" / "er" / "c.json").write_text("{}\n")
    return tmp_path


def test_the_newest_partition_comes_first_and_files_within_it_by_name(partitions: Path) -> None:
    assert names(partitions, "dt={date}/*.json*") == [
        "dt=2024-02-01/a.json",
        "dt=2024-02-01/b.json.gz",
        "dt=2024-01-31/a.json",
        "dt=2024-01-31/b.json.gz",
        "dt=2024-01-30/a.json",
        "dt=2024-01-30/b.json.gz",
    ]


def test_the_oldest_partition_comes_first_if_asked(partitions: Path) -> None:
    found = names(partitions, "dt={date}/a.json", order="oldest_first")
    assert found == ["dt=2024-01-30/a.json", "dt=2024-01-31/a.json", "dt=2024-02-01/a.json"]


def test_dates_are_inclusive_and_leave_out_what_names_no_day(partitions: Path) -> None:
    found = names(
        partitions, "dt={date}/a.json", first_date=dt.date(2024, 1, 31), last_date=dt.date(2024, 2, 1)
    )
    assert found == ["dt=2024-02-01/a.json", "dt=2024-01-31/a.json"]


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("dt=*/a.json", 4),
        ("dt=2024-01-3?/a.json", 2),
        ("dt=2024-01-3[!0]/a.json", 1),
        ("**/*.json", 5),
        ("dt=2024-02-01/**", 4),
        ("*/*.json", 4),
        ("dt=2024-02-01/a.json", 1),
    ],
)
def test_globs_match_as_in_a_shell(partitions: Path, pattern: str, count: int) -> None:
    assert len(names(partitions, pattern)) == count


def test_nothing_that_matches_is_an_error_that_helps_where_a_folder_was_named(partitions: Path) -> None:
    with pytest.raises(NothingMatched, match=r"is a folder: .*\*\*"):
        names(partitions, "dt=2024-02-01")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read every folder")
def test_a_partition_that_may_not_be_read_is_an_error_not_a_gap(partitions: Path) -> None:
    (partitions / "dt=2024-01-31").chmod(0)
    with pytest.raises(SourceUnreadable, match="dt=2024-01-31"):
        names(partitions, "dt={date}/*")


def test_a_folder_that_cannot_be_listed_is_an_error_not_a_gap(
    partitions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("dt=2024-01-31"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(SourceUnreadable, match="dt=2024-01-31: cannot be listed: Permission denied"):
        names(partitions, "dt={date}/*")


def test_an_object_store_that_cannot_be_reached_is_named_in_one_line() -> None:
    storage = Storage(
        {
            "endpoint_url": "http://127.0.0.1:9",
            "anon": True,
            "config_kwargs": {"retries": {"max_attempts": 0}},
        }
    )
    with pytest.raises(SourceUnreadable) as caught:
        list_files(SourcePattern(("s3://bucket/x/*.json",)), storage)
    assert "cannot be listed" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_uri_that_matches_nothing_is_told_also_where_others_have_files(partitions: Path) -> None:
    uris = [str(partitions / name) for name in ("dt=2024-01-31/*", "dt=2024-01-3l/*")]
    with pytest.raises(NothingMatched, match=r"dt=2024-01-3l/\*; the others of source.uri have files"):
        list_files(SourcePattern(uris), Storage())

    found, barren = find_files(SourcePattern(uris), Storage())
    assert (len(found) > 0, barren) == (True, uris[1:])


def test_with_dates_a_uri_may_have_no_files_and_the_days_without_are_known(partitions: Path) -> None:
    first, last = dt.date(2024, 1, 31), dt.date(2024, 2, 3)
    uris = [str(partitions / name) for name in ("dt={date}/*", "other/{date}/*")]
    found = list_files(SourcePattern(uris, first, last), Storage())

    there = {file.date for file in found}
    assert found.days_without(first, last) == [
        day for n in range(4) if (day := first + dt.timedelta(n)) not in there
    ]


def test_small_files_are_packed_large_ones_are_cut_compressed_ones_stay_whole() -> None:
    sizes = [100] * 3 + [SEGMENT_BYTES * 2 + 5] + [SMALL_BYTES + 1] + [100]
    files = [SourceFile(None, f"f{i}", size, "v") for i, size in enumerate(sizes)]
    segments = list(cut_segments(files, lambda file: None if file.uri == "f4" else "ndjson"))
    assert [[part.uri for part in s.parts] for s in segments] == [
        ["f0", "f1", "f2"],
        ["f3"],
        ["f3"],
        ["f3"],
        ["f4"],
        ["f5"],
    ]
    cut = [s.parts[0] for s in segments[1:4]]
    assert [(p.start, p.end) for p in cut] == [
        (0, SEGMENT_BYTES),
        (SEGMENT_BYTES, 2 * SEGMENT_BYTES),
        (2 * SEGMENT_BYTES, 2 * SEGMENT_BYTES + 5),
    ]
    assert segments[4].parts[0].end is None
    assert len({s.id for s in segments}) == len(segments)


def test_a_large_file_that_is_compressed_whatever_its_name_is_not_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.plan.SEGMENT_BYTES", 1000)
    monkeypatch.setattr("pipelines.plan.SMALL_BYTES", 10)
    (tmp_path / "plain.json").write_bytes(b"x" * 5000)
    (tmp_path / "really-gzip.json").write_bytes(b"\x1f\x8b" + b"x" * 5000)
    files = list_files(SourcePattern((str(tmp_path / "*"),)), Storage())
    parts = [part for segment in plan_segments(files, Storage()) for part in segment.parts]
    assert sum("plain" in part.uri for part in parts) == 5
    assert sum("gzip" in part.uri for part in parts) == 1


@pytest.mark.parametrize("kind", ["s3", "gcs"])
def test_object_stores_list_the_same_way(kind: str, request: pytest.FixtureRequest) -> None:
    server: S3Server | GcsServer = request.getfixturevalue(kind)
    for day in ("2024-01-30", "2024-01-31", "2024-02-01"):
        server.put(f"plan/dt={day}/a.json", b"{}\n")
        server.put(f"plan/dt={day}/x/b.json", b"{}\n")
    pattern = SourcePattern((server.url("plan/dt={date}/*.json"),), dt.date(2024, 1, 31), dt.date(2024, 2, 1))
    found = list_files(pattern, Storage(server.storage_options))
    assert [file.uri for file in found] == [
        server.url(f"plan/dt={day}/a.json") for day in ("2024-02-01", "2024-01-31")
    ]
    assert all(file.version and file.size == 3 for file in found)
    both = SourcePattern((server.url("plan/**/b.json"),))
    assert len(list_files(both, Storage(server.storage_options))) == 3


# --- links and odd names ------------------------------------------------------------------------------------


def test_links_to_files_are_files_of_their_own_name(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("{}\n")
    (tmp_path / "link.json").symlink_to("real.json")
    assert names(tmp_path, "*.json") == ["link.json", "real.json"]


def test_links_to_folders_are_followed_where_the_pattern_spells_them_and_not_by_two_asterisks(
    tmp_path: Path,
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.json").write_text("{}\n")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "linked").symlink_to("../elsewhere")
    assert names(tmp_path, "in/linked/*.json") == ["in/linked/a.json"]
    assert names(tmp_path, "in/*/*.json") == ["in/linked/a.json"]
    assert names(tmp_path, "in/linked/**") == ["in/linked/a.json"]
    assert names(tmp_path, "**/*.json") == ["elsewhere/a.json"]


def test_links_in_circles_are_walked_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.json").write_text("{}\n")
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "a" / "self").symlink_to("self")
    (tmp_path / "self.json").symlink_to("self.json")
    assert names(tmp_path, "**/*.json") == ["a/x.json", "self.json"]
    assert names(tmp_path, "a/*/*/*.json") == ["a/up/a/x.json"]


def test_a_link_that_leads_nowhere_is_planned_so_that_reading_it_tells(tmp_path: Path) -> None:
    (tmp_path / "gone.json").symlink_to("nowhere")
    assert names(tmp_path, "*.json") == ["gone.json"]


ODD_NAMES = ["sp ace.json", "per%20cent.json", "ha#sh.json", "que?stion.json", "new\nline.json", "[b].json"]
ODD_NAMES += [
    "é😀.json",
    "quo'te\".json",
    "back\\slash.json",
    "a&b=c+d.json",
    "{date}.json",
    "-dash.json",
    "~.json",
    "a?versionId=1.json",
]


def test_files_of_odd_names_are_found_and_read(tmp_path: Path) -> None:
    for name in ODD_NAMES:
        (tmp_path / name).write_text(f"{name!r}\n")
    for pattern in ("*.json", "**", "**/*.json"):
        assert sorted(names(tmp_path, pattern)) == sorted(ODD_NAMES)
    for name in ODD_NAMES:
        spelled = name.replace("[", "[[]").replace("{", "[{]").replace("?", "[?]")
        assert names(tmp_path, spelled) == [name]


def test_what_names_no_file_is_told_for_what_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "[x].json").write_text("{}\n")
    (tmp_path / "folder.json").mkdir()
    for name, said in (
        ("pipe.json", "is a pipe, a socket or a device"),
        ("[x].json", r"write \[\[\] and"),
        ("folder.json", "is a folder: for all files in it write"),
        ("gone.json", "no file matches [^;]*$"),
    ):
        with pytest.raises(NothingMatched, match=said):
            names(tmp_path, name)


def test_what_is_neither_a_file_nor_a_folder_is_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "device.json").symlink_to("/dev/null")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "a.json").write_text("{}\n")
    assert names(tmp_path, "*.json") == ["a.json"]


def test_a_name_that_is_no_utf8_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.json")).write_text("{}\n")
    with pytest.raises(SourceUnreadable, match=r"caf\\xe9.json: the name is no UTF-8; rename the file"):
        names(tmp_path, "*.json")


@pytest.mark.parametrize("kind", ["s3", "gcs"])
def test_objects_of_odd_names_are_found_and_read(kind: str, request: pytest.FixtureRequest) -> None:
    server: S3Server | GcsServer = request.getfixturevalue(kind)
    for number, name in enumerate(ODD_NAMES):
        server.put(f"odd/{name}", b'{"number":%d}\n' % number)
    odd = [name for name in ODD_NAMES if f"odd/{name}" in server.list("odd/")]
    assert len(odd) >= len(ODD_NAMES) - 1, "one server takes a backslash for a slash"
    storage = Storage(server.storage_options)
    found = list_files(SourcePattern((server.url("odd/*"),)), storage)
    assert sorted(file.uri for file in found) == sorted(server.url(f"odd/{name}") for name in odd)
    reader = SegmentReader(storage.open_to_read, BlockLimits(2000, 1 << 20))
    (segment,) = plan_segments(found, storage)
    blocks = list(reader.blocks(segment, "a"))
    notes = [note for block in blocks for note in block.notes]
    assert [(note.problem, note.parts) for note in notes] == [(None, len(odd))]
    assert sum(block.lines for block in blocks) == len(odd)
