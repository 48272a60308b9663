"""The ledger: believed as far as it is whole, and nothing counts twice, whatever it went through."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest

from mixpanel_http.receipts import Stop
from pipelines.attempt import FLUSH_SECONDS, Attempt, Inherited
from pipelines.believing import Letters, believed, lines_by_name
from pipelines.ledger import FOLDER, ErrorLimit, Ledger, read_ledger, read_stops, trim_dead_letters
from pipelines.ledger_lines import read_progress, seal, seed, unseal
from pipelines.state import StateFolder
from tests.ledgers import RUN, Service, Work, id_of, local, pack, write
from tests.servers import S3Server
from tests.steps import step_pipeline
from transforms import drain
from transforms.attempt_ids import new_attempt_id
from transforms.commit_outcomes import CommitOutcomes
from transforms.elements import BlockOutcome, FilePart, Segment
from transforms.letters import LetterLines
from transforms.segment_reader import BlockLimits, SegmentReader
from transforms.storage import FileSystem, Storage
from transforms.tally import Counts, PartCounts, Tally

COUNT = 60
BAD = (7, 8, 23, 41)


@pytest.fixture
def work(tmp_path: Path) -> Work:
    """Three segments of two files each, with some lines that are refused."""
    numbers = [None if n in BAD else n for n in range(COUNT)]
    paths = [write(tmp_path, f"{i}.json", numbers[10 * i : 10 * i + 10]) for i in range(6)]
    segments = [pack(paths[2 * i : 2 * i + 2], i) for i in range(3)]
    return Work(StateFolder(str(tmp_path / "run")), segments)


@pytest.fixture(autouse=True)
def each_completion_is_in_a_digest_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes parts of one completion each, so that there are digests even of few segments."""
    monkeypatch.setattr("pipelines.digest.LEAST", 1)


def assert_complete(work: Work) -> None:
    """Checks that every record has arrived, each refused one is in one letter, and the books close."""
    books = work.books()
    assert books.balanced, books.unbalanced
    assert books.segments_done == len(work.segments)
    assert (books.total.read, books.total.imported) == (COUNT, COUNT - len(BAD))
    assert books.total.dead_lettered == books.dead_records == len(BAD)
    assert set(work.service.received) == {id_of(n) for n in range(COUNT) if n not in BAD}
    assert sorted(Counter(work.letters()).values()) == [1] * len(BAD)


def test_one_start_does_everything_and_the_next_does_nothing(work: Work) -> None:
    assert work.start() > 0
    assert_complete(work)
    assert work.start() == 0
    assert len(work.service.received) == COUNT - len(BAD)


@pytest.mark.parametrize("blocks", range(1, 16, 2))
def test_a_start_that_ends_anywhere_is_gone_on_with_and_nothing_is_sent_twice(
    work: Work, blocks: int
) -> None:
    while work.start(blocks) == blocks:
        assert work.books().balanced
        trim_dead_letters(work.folder, work.known())
    assert_complete(work)
    assert max(Counter(work.service.received).values()) == 1


def test_undelivered_blocks_are_sent_again_and_their_letters_count_once(work: Work) -> None:
    chance = random.Random(4)
    work.service.fate = lambda: chance.choice(["imported", "undelivered", "not_attempted"])
    for _ in range(5):
        work.start()
        books = work.books()
        assert books.balanced, books.unbalanced
        assert len(work.letters()) == books.total.dead_lettered
        assert max(Counter(work.letters()).values()) == 1
    work.service.fate = lambda: "imported"
    work.start()
    assert_complete(work)


class Flaky:
    """A file system that cannot read some files, or only their beginning."""

    def __init__(self, broken: set[str], good_bytes: int) -> None:
        self._inner = Storage().open("x")
        self._broken = broken
        self._good = good_bytes

    def cat_file(self, path: str, *, start: int = 0, end: int = 0) -> bytes:
        if path in self._broken and end > self._good:
            raise PermissionError(13, "not now")
        return self._inner.cat_file(path, start=start, end=end)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@pytest.mark.parametrize("good_bytes", [0, 300, 600])
@pytest.mark.parametrize("first_blocks", [0, 2, 4, 100])
@pytest.mark.parametrize("last_blocks", [1, 3, 100])
def test_what_could_not_be_read_is_read_later_and_nothing_counts_twice(
    work: Work, monkeypatch: pytest.MonkeyPatch, good_bytes: int, first_blocks: int, last_blocks: int
) -> None:
    monkeypatch.setattr("transforms.part_lines.CHUNK_BYTES", 300)
    broken = {work.segments[0].parts[0].uri, work.segments[1].parts[1].uri}
    flaky: FileSystem = Flaky(broken, good_bytes)  # type: ignore[assignment]
    work.start(first_blocks)
    work.filesystem = lambda _: flaky
    work.start(last_blocks)
    work.start()
    books = work.books()
    assert books.balanced, books.unbalanced
    assert max(Counter(work.letters()).values(), default=1) == 1
    assert len(work.letters()) == books.total.dead_lettered
    if first_blocks < 100:
        assert {note.uri for note in books.damaged} == broken
    work.filesystem = local
    work.start(last_blocks)
    work.start()
    assert_complete(work)


def test_blocks_behind_what_could_not_be_read_are_provisional(work: Work) -> None:
    broken: FileSystem = Flaky({work.segments[0].parts[1].uri}, 0)  # type: ignore[assignment]
    reader = SegmentReader(lambda _: broken, BlockLimits(4, 1 << 20))
    blocks = list(reader.blocks(work.segments[0], "a", {0, 1, 2, 3}))
    assert [(block.ordinal, block.provisional) for block in blocks] == [(2, True), (3, True)]


def damaged(path: Path, chance: random.Random, others: list[Path]) -> str:
    """Damages a file of the ledger in one of many ways, and returns which."""
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    at = chance.randrange(len(content)) if content else 0
    kinds: dict[str, Callable[[], object]] = {
        "truncate": lambda: path.write_bytes(content[:at]),
        "zero": lambda: path.write_bytes(content[:at] + bytes(len(content) - at)),
        "flip": lambda: path.write_bytes(
            content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]
        ),
        "empty": lambda: path.write_bytes(b""),
        "delete": path.unlink,
        "delete a line": lambda: path.write_bytes(b"".join(lines[1:])),
        "double a line": lambda: path.write_bytes(b"".join([lines[0], *lines])),
        "double the file": lambda: path.write_bytes(content + content),
        "reorder": lambda: path.write_bytes(b"".join(lines[::-1])),
        "stale copy": lambda: path.write_bytes(b"".join(lines[: len(lines) // 2])),
        "another file": lambda: path.write_bytes(
            chance.choice([x for x in others if x.exists()]).read_bytes()
        ),
        "another name": lambda: path.rename(path.with_name("0000002." + path.name.split(".", 1)[1])),
        "another run": lambda: path.write_bytes(content.replace(b"\n", b"")[:0] + foreign(content)),
        "a later version": lambda: path.write_bytes(b"v9 " + content),
        "garbage behind": lambda: path.write_bytes(content + b"\0" * 700),
    }
    kind = chance.choice(list(kinds))
    kinds[kind]()
    return kind


def foreign(content: bytes) -> bytes:
    """Returns lines as another run would have sealed them."""
    before, out = seed("another run", "x"), []
    for raw in content.splitlines():
        values = unseal(raw + b"\n", 0)
        line, before = seal(values[0] if values else {"at": 1, "b": []}, before)
        out.append(line)
    return b"".join(out)


def assert_damage_is_harmless(work: Work, chance: random.Random) -> None:
    """Damages files of the ledger of a run that is half or wholly done, and resumes it."""
    work.start(chance.choice([5, 11, 100]))
    folder = Path(work.folder.uri)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    kinds = []
    for path in chance.sample(files, min(len(files), chance.choice([1, 1, 2, 5]))):
        if path.exists():
            kinds.append((damaged(path, chance, files), path.name))
    trim_dead_letters(work.folder, work.known())
    assert work.books().balanced, kinds
    work.start()
    assert_complete(work)


@pytest.mark.parametrize("number", range(60))
def test_a_damaged_ledger_sends_again_and_never_says_that_nothing_is_left(work: Work, number: int) -> None:
    assert_damage_is_harmless(work, random.Random(number))


@pytest.mark.soak
def test_five_hundred_damages_are_harmless(work: Work) -> None:
    for number in range(1000, 1500):
        shutil.rmtree(work.folder.uri, ignore_errors=True)
        work.service = Service()
        assert_damage_is_harmless(work, random.Random(number))


def outcome(segment: str, attempt: str, ordinal: int, end: bool = False, letters: int = 0) -> BlockOutcome:
    tally = Tally(
        lines=10,
        parts=PartCounts({} if end else {0: Counts(read=10, imported=10 - letters, dead_lettered=letters)}),
    )
    return BlockOutcome(segment, attempt, ordinal, tally, LetterLines.of([b"{}"] * letters), end=end)


def progress_of(folder: StateFolder, segment: str) -> list[list[int]]:
    """The ordinals of the blocks in each line of a segment's one progress file."""
    (name,) = folder.names(FOLDER, f"{segment}.")
    lines = read_progress(folder.read(name), seed(RUN, name))
    return [[block.ordinal for block in line.blocks] for line, _, _ in lines]


def test_blocks_whose_answers_came_together_are_written_down_together(tmp_path: Path) -> None:
    folder, id_ = StateFolder(str(tmp_path)), new_attempt_id()
    one, other = "0000000", "0000001"
    together = [
        outcome(one, id_, 0),
        outcome(other, id_, 0, letters=1),
        outcome(one, id_, 2),
        outcome(one, id_, 1),
    ]
    alone = [outcome(other, id_, 1), outcome(one, id_, 3)]
    come = [replace(together[0], following=3), *together[1:], *alone]
    with step_pipeline() as pipeline:
        _ = (
            pipeline
            | beam.Create([None])
            | beam.FlatMap(lambda _: come).with_output_types(BlockOutcome)
            | CommitOutcomes(Ledger(folder, RUN))
        )
    assert progress_of(folder, one) == [[0, 2, 1], [3]]
    assert progress_of(folder, other) == [[0], [1]]
    known = read_ledger(folder, RUN)
    assert (known[one].blocks, known[other].blocks) == (4, 2)
    assert sum(file.records for file in known[other].dead) == 1


def test_of_two_attempts_at_once_the_last_completion_counts(tmp_path: Path) -> None:
    folder = StateFolder(str(tmp_path))
    ids = sorted([new_attempt_id(), new_attempt_id()])
    attempts = [Attempt(folder, RUN, "0000000", id_) for id_ in ids]
    for ordinal in range(3):
        for attempt, id_ in zip(attempts, ids, strict=True):
            attempt.record(outcome("0000000", id_, ordinal, ordinal == 2, letters=int(ordinal < 2)))
    half = read_ledger(folder, RUN)["0000000"]
    assert (half.tally.total.read, half.tally.total.dead_lettered) == (20, 2)
    assert sum(file.records for file in half.dead) == 2
    attempts[1].commit()
    attempts[0].commit()  # a zombie's, that comes late and changes nothing
    done = read_ledger(folder, RUN)["0000000"]
    assert done.done
    assert done.tally.total.read == 20
    assert [file.records for file in done.dead] == [2]
    assert ids[1] in done.dead[0].name


def test_what_a_zombie_writes_after_its_run_was_taken_up_is_not_believed(tmp_path: Path) -> None:
    folder = StateFolder(str(tmp_path))
    zombie, later = sorted([new_attempt_id(), new_attempt_id()])
    asleep = Attempt(folder, RUN, "0000000", zombie)
    asleep.record(outcome("0000000", zombie, 0, letters=2))
    known = read_ledger(folder, RUN)
    trim_dead_letters(folder, known)
    attempt = Attempt(folder, RUN, "0000000", later, inherited=inherited(folder, zombie))
    asleep.record(outcome("0000000", zombie, 1, letters=3))
    asleep.record(outcome("0000000", zombie, 2, end=True))
    attempt.record(outcome("0000000", later, 1, letters=3))
    attempt.record(outcome("0000000", later, 2, end=True))
    for each in (attempt, asleep):
        each.commit()
        done = read_ledger(folder, RUN)["0000000"]
        assert done.tally.total.dead_lettered == sum(file.records for file in done.dead) == 5
        assert [(folder.path(f.name), f.bytes) for f in done.dead] == [
            (str(path), path.stat().st_size) for path in sorted((tmp_path / "dead_letters").iterdir())
        ]


def inherited(folder: StateFolder, name: str) -> Inherited:
    """Returns what an attempt settled."""
    names = [n for n in folder.names(FOLDER) if name in n]
    known = believed(lines_by_name(folder, RUN, names), Letters(folder))
    return Inherited(known.settled, known.dead)


def test_two_attempts_that_share_blocks_are_believed_up_to_there(tmp_path: Path) -> None:
    folder = StateFolder(str(tmp_path))
    for blocks in (range(5), range(8)):
        id_ = new_attempt_id()
        attempt = Attempt(folder, RUN, "0000000", id_)
        for ordinal in blocks:
            attempt.record(outcome("0000000", id_, ordinal, letters=1))
    known = read_ledger(folder, RUN)["0000000"]
    assert known.tally.total.read == 80
    assert sum(file.records for file in known.dead) == known.tally.total.dead_lettered == 8


def test_what_an_attempt_settled_behind_a_block_that_another_has_is_sent_again(tmp_path: Path) -> None:
    folder = StateFolder(str(tmp_path))
    ids = sorted([new_attempt_id(), new_attempt_id()])
    for id_, blocks in zip(ids, ((0, 3), (0, 1)), strict=True):
        attempt = Attempt(folder, RUN, "0000000", id_)
        for ordinal in blocks:
            attempt.record(outcome("0000000", id_, ordinal, letters=1))
    known = read_ledger(folder, RUN)["0000000"]
    settled = Ledger(folder, RUN, new_attempt_id(), resumed=True).settled_blocks("0000000", "another")
    assert settled == {0, 3}
    assert known.tally.total.read == 20
    assert sum(file.records for file in known.dead) == known.tally.total.dead_lettered == 2


def test_a_ledger_of_another_run_is_not_believed(work: Work) -> None:
    work.start()
    assert read_ledger(work.folder, "another") == {}


def test_on_an_object_store_progress_is_written_every_half_minute_and_a_segment_costs_one_object(
    s3: S3Server,
) -> None:
    folder = StateFolder(s3.url("ledger-test"), Storage(dict(s3.storage_options)))
    time = [0.0]
    id_ = new_attempt_id()
    attempt = Attempt(folder, RUN, "0000000", id_, clock=lambda: time[0])
    for ordinal in range(40):
        attempt.record(outcome("0000000", id_, ordinal, letters=1))
    assert not folder.names(FOLDER)
    time[0] = FLUSH_SECONDS
    attempt.record(outcome("0000000", id_, 40))
    assert read_ledger(folder, RUN)["0000000"].blocks == 41
    attempt.record(outcome("0000000", id_, 41, end=True))
    attempt.commit()
    done = read_ledger(folder, RUN)["0000000"]
    assert (done.done, done.tally.total.dead_lettered, sum(f.records for f in done.dead)) == (True, 40, 40)
    other = Attempt(folder, RUN, "0000001", new_attempt_id(), clock=lambda: time[0])
    other.record(outcome("0000001", id_, 0))
    other.record(outcome("0000001", id_, 1, end=True))
    other.commit()
    assert len([name for name in folder.names(FOLDER) if "0000001" in name]) == 1


def test_why_a_run_was_stopped_is_known_for_that_start_only(tmp_path: Path) -> None:
    folder = StateFolder(str(tmp_path))
    ledger = Ledger(folder, RUN, "one")
    assert ledger.patience() is None
    ledger.write_stop(Stop(401, "no"))
    assert ledger.patience() == drain.STOP_SECONDS
    assert read_stops(folder, RUN, "one") == [Stop(401, "no")]
    assert read_stops(folder, RUN, "two") == []
    Ledger(folder, RUN, "two").ask_to_end()
    assert Ledger(folder, RUN, "two").patience() == drain.DRAIN_SECONDS


def test_a_limit_of_errors_is_a_count_or_a_share() -> None:
    assert ErrorLimit.parse(3).exceeded_by(4, 10)
    assert not ErrorLimit.parse(3).exceeded_by(3, 10)
    assert ErrorLimit.parse("10%").exceeded_by(2, 10)
    assert not ErrorLimit.parse(None).exceeded_by(10, 10)
    ledger = Ledger(StateFolder("x"), max_errors=ErrorLimit.parse("10%"))
    assert ledger.too_many_errors(Counts(read=100, dead_lettered=100)) is None  # too few to tell
    assert "2,000 of 3,000" in (ledger.too_many_errors(Counts(read=3000, dead_lettered=2000)) or "")


def test_a_line_continues_the_line_before() -> None:
    first, number = seal({"at": 1.0, "b": []}, seed(RUN, "a.prog"))
    second, _ = seal({"at": 2.0, "b": []}, number)
    assert [line.at for line, _, _ in read_progress(first + second, seed(RUN, "a.prog"))] == [1.0, 2.0]
    assert [line.at for line, _, _ in read_progress(first + first, seed(RUN, "a.prog"))] == [1.0]
    assert [line.at for line, _, _ in read_progress(second, seed(RUN, "a.prog"))] == []
    assert [line.at for line, _, _ in read_progress(first, seed(RUN, "b.prog"))] == []


def test_a_segment_of_nothing_is_done(tmp_path: Path) -> None:
    (tmp_path / "empty.json").write_bytes(b"")
    segment = Segment("0000000", (FilePart(str(tmp_path / "gone.json"), 0, "v"),))
    work = Work(StateFolder(str(tmp_path / "run")), [pack([tmp_path / "empty.json"])])
    work.start()
    assert work.known()["0000000"].done
    work = Work(StateFolder(str(tmp_path / "run2")), [segment])
    work.start()
    assert not work.known()["0000000"].done
