"""The shipped sample is what its program makes, and its README tells the truth about it."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from mixpanel_http.event_rules import Accepted, EventRules, check_event
from mixpanel_http.verdicts import RecordRefused
from sample.make_sample import DAYS, Listed, make_sample
from sample.oddities import FIXED, REFUSED

SAMPLE = Path(__file__).resolve().parent.parent / "sample"
NOW_S = 1_767_225_600.0  # 2026-01-01
MEGABYTE = 1_000_000


def _files(folder: Path = SAMPLE) -> dict[str, bytes]:
    """Content of every file of events, decompressed, by its path below `events/`."""
    events = folder / "events"
    return {
        str(path.relative_to(events)): gzip.decompress(path.read_bytes())
        if path.suffix == ".gz"
        else path.read_bytes()
        for path in sorted(events.glob("*/*"))
    }


def _records() -> Iterator[tuple[str, int, bytes]]:
    for name, content in _files().items():
        for number, line in enumerate(content.split(b"\n"), 1):
            if line.strip():
                yield name, number, line


def _judge(line: bytes) -> Accepted | RecordRefused:
    try:
        return check_event(line, EventRules(), NOW_S)
    except RecordRefused as refusal:
        return refusal


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Listed]]:
    folder = tmp_path_factory.mktemp("sample")
    return folder, make_sample(folder)


def test_the_program_makes_the_shipped_files(made: tuple[Path, list[Listed]]) -> None:
    folder, _ = made

    assert _files(folder) == _files()
    assert (folder / "README.md").read_text("utf-8") == (SAMPLE / "README.md").read_text("utf-8")


def test_made_again_every_file_has_the_same_bytes(made: tuple[Path, list[Listed]], tmp_path: Path) -> None:
    # Not compared with the shipped bytes: how well gzip packs depends on the zlib that a Python came with.
    folder, _ = made
    make_sample(tmp_path)

    first = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("part-*")}
    assert first == {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("part-*")}
    no_name_no_time = bytes(5)
    assert {content[3:8] for path, content in first.items() if path.suffix == ".gz"} == {no_name_no_time}


def test_it_is_large_enough_to_show_something_and_small_enough_to_ship() -> None:
    names = list(_files())

    assert sum(1 for _ in _records()) >= 20_000
    assert sorted({name.split("/")[0] for name in names}) == [f"dt={day}" for day in DAYS]
    assert {Path(name).suffix for name in names} == {".json", ".gz"}
    assert sum(path.stat().st_size for path in SAMPLE.glob("events/*/*")) <= 4 * MEGABYTE


def test_the_rules_refuse_exactly_what_the_readme_lists(made: tuple[Path, list[Listed]]) -> None:
    _, listed = made
    expected = {(each.file, each.line): each.oddity.outcome for each in listed if each.oddity in REFUSED}

    verdicts = {(name, number): _judge(line) for name, number, line in _records()}

    refused = {place: v.reason.value for place, v in verdicts.items() if isinstance(v, RecordRefused)}
    assert refused == expected
    assert len(refused) == len(REFUSED)


def test_the_rules_fix_what_the_readme_says_is_fixed(made: tuple[Path, list[Listed]]) -> None:
    _, listed = made
    lines = {(name, number): line for name, number, line in _records()}

    for each in (each for each in listed if each.oddity in FIXED):
        verdict = _judge(lines[each.file, each.line])
        assert isinstance(verdict, Accepted)
        assert each.oddity.outcome in verdict.alterations
