"""The ledger against a model: work in any order, failures, crashes, torn writes, stale lists, zombies."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mixpanel_http.event_rules import EventRules
from pipelines.attempt import Attempt
from pipelines.digest import FOLDER as DIGESTS
from pipelines.digest import write_digest
from pipelines.ledger import Ledger, trim_dead_letters
from pipelines.state import StateFolder
from tests.ledgers import NOW, RUN, Work, id_of, pack, write
from transforms.attempt_ids import new_attempt_id
from transforms.elements import Block, EncodedBlock, Segment
from transforms.encode_requests import encode_requests
from transforms.prepare_records import prepare_block
from transforms.segment_reader import BlockLimits, SegmentReader
from transforms.settle_block import settle_block

COUNT = 24
BAD = (3, 10, 11, 20)
SEGMENTS = 2
STEPS_IN_SOAK = 2000
KINDS = (
    *("plan", "send", "acknowledge", "fail", "crash", "torn write", "stale listing", "lost file"),
    *("two attempts", "zombie", "resume", "digests"),
)
happened: Counter[str] = Counter()  # how often each kind of step was really taken
FATES = st.sampled_from(["imported", "imported", "imported", "undelivered", "not_attempted"])


class LedgerMachine(RuleBasedStateMachine):
    """A run of two segments, worked on by attempts that end anywhere.

    What holds at every moment: what the ledger calls imported the service has received, the books close, and
    no letter counts twice. In the end a start that nothing disturbs leaves everything there, once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="ledger-model-"))
        self.segments: list[Segment] = []
        self.work = Work(StateFolder(str(self.place / "run")), self.segments, records=3)
        self.attempts: list[tuple[Segment, Attempt, list[Block]]] = []
        self.asleep: list[tuple[Segment, Attempt, list[Block]]] = []
        self.hidden: list[tuple[Path, bytes]] = []
        self.plan()
        self.begin_start()

    def teardown(self) -> None:
        shutil.rmtree(self.place)

    def begin_start(self) -> None:
        """A start of the run: it reads the ledger, trims the letters, and writes a digest."""
        launch = new_attempt_id()
        known = self.work.known()
        write_digest(self.work.folder, RUN, launch, known, least=2)
        trim_dead_letters(self.work.folder, known)
        self.ledger = Ledger(self.work.folder, RUN, launch, resumed=True)
        self.attempts = []

    @property
    def numbers(self) -> list[int | None]:
        """The lines of the files that are planned; None is refused."""
        return [None if n in BAD else n for n in range(COUNT * len(self.segments) // SEGMENTS)]

    @precondition(lambda self: len(self.segments) < SEGMENTS)
    @rule()
    def plan(self) -> None:
        """New files are taken in, as a segment of their own."""
        happened["plan"] += 1
        number, size = len(self.segments), COUNT // SEGMENTS // 2
        lines = [None if n in BAD else n for n in range(COUNT)]
        starts = [2 * number * size, (2 * number + 1) * size]
        paths = [write(self.place, f"{n}.json", lines[n : n + size]) for n in starts]
        self.segments.append(pack(paths, number))

    @precondition(lambda self: len(self.attempts) < 3)
    @rule(number=st.integers(0, 1))
    def open_attempt(self, number: int) -> None:
        """A worker takes a segment up; two may have the same, as a zombie and its successor do."""
        segment = self.segments[number % len(self.segments)]
        known = self.work.known().get(segment.id)
        if known is not None and known.done:
            return
        happened["two attempts"] += any(segment is other for other, _, _ in [*self.attempts, *self.asleep])
        id_ = new_attempt_id()
        settled = self.ledger.settled_blocks(segment.id, id_) or set()
        happened["resume"] += bool(settled)
        reader = SegmentReader(self.work.filesystem, BlockLimits(self.work.records, 1 << 20))
        blocks = list(reader.blocks(segment, id_, settled))
        self.attempts.append((segment, self.ledger.open_attempt(segment.id, id_), blocks))

    @precondition(lambda self: self.attempts)
    @rule(which=st.integers(0, 2), place=st.integers(0, 3), fate=FATES)
    def settle_one_block(self, which: int, place: int, fate: str) -> None:
        """Some block's answer comes, in any order."""
        _, attempt, blocks = self.attempts[which % len(self.attempts)]
        self.settle(attempt, blocks, place, fate)

    @precondition(lambda self: self.attempts)
    @rule(which=st.integers(0, 2))
    def settle_all_blocks(self, which: int) -> None:
        """Nothing disturbs an attempt until it is done."""
        _, attempt, blocks = self.attempts[which % len(self.attempts)]
        while blocks:
            self.settle(attempt, blocks, 0, "imported")

    def settle(self, attempt: Attempt, blocks: list[Block], place: int, fate: str) -> None:
        if not blocks:
            return
        happened["send"] += 1
        happened["acknowledge" if fate == "imported" else "fail"] += 1
        block = blocks.pop(place % len(blocks))
        self.work.service.fate = lambda: fate
        prepared = prepare_block(block, EventRules(), NOW)
        requests = tuple(encode_requests(prepared.records, 2000, 1 << 20))
        attempt.record(settle_block(EncodedBlock(block, prepared.records, requests), self.work.service))
        if attempt.is_complete():
            attempt.commit()

    @precondition(lambda self: self.attempts)
    @rule()
    def crash(self) -> None:
        """The process dies; the next start takes the run up."""
        happened["crash"] += 1
        self.begin_start()

    @precondition(lambda self: self.attempts)
    @rule(cut=st.integers(1, 400))
    def crash_amid_a_write(self, cut: int) -> None:
        """The process dies in the middle of an append: the end of the last file is missing."""
        files = [path for path in (self.place / "run").rglob("*") if path.suffix in (".prog", ".gz")]
        files += self.completions_in_no_digest()
        if not files:
            return
        happened["torn write"] += 1
        newest = max(files, key=lambda path: path.name.split(".")[1])
        os.truncate(newest, max(0, newest.stat().st_size - cut))
        self.begin_start()

    def completions_in_no_digest(self) -> list[Path]:
        """Returns those that were perhaps being written: a digest takes a completion that is durable."""
        digests = [path.read_bytes() for path in (self.place / "run" / DIGESTS).glob("*")]
        digests += [content for _, content in self.hidden]
        completions = (self.place / "run" / "ledger").glob("*.done")
        return [path for path in completions if not any(path.name.encode() in text for text in digests)]

    @precondition(lambda self: self.attempts and not self.asleep)
    @rule()
    def suspend(self) -> None:
        """The process sleeps so long that another takes the run up."""
        self.asleep = self.attempts
        self.begin_start()

    @precondition(lambda self: self.asleep)
    @rule(which=st.integers(0, 2), place=st.integers(0, 3), fate=FATES, ends=st.booleans())
    def wake(self, which: int, place: int, fate: str, ends: bool) -> None:
        """It wakes up and goes on for a while, beside the other or after it."""
        happened["zombie"] += 1
        _, attempt, blocks = self.asleep[which % len(self.asleep)]
        self.settle(attempt, blocks, place, fate)
        if ends:
            self.asleep = []

    @precondition(lambda self: self.work.known() and not self.hidden)
    @rule(seed=st.integers(0, 1 << 20))
    def list_stale(self, seed: int) -> None:
        """A start lists the store as it was: some files are not there yet, and come to light later."""
        files = sorted((self.place / "run" / "ledger").iterdir())
        happened["stale listing"] += 1
        for path in random.Random(seed).sample(files, min(2, len(files))):
            self.hidden.append((path, path.read_bytes()))
            path.unlink()
        self.begin_start()

    @precondition(lambda self: self.hidden)
    @rule()
    def list_again(self) -> None:
        """What was not listed is listed again."""
        for path, content in self.hidden:
            path.write_bytes(content)
        self.hidden = []

    @precondition(lambda self: self.work.known())
    @rule(seed=st.integers(0, 1 << 20))
    def lose_a_file(self, seed: int) -> None:
        """The store forgets a file."""
        files = sorted(path for path in (self.place / "run").rglob("*") if path.is_file())
        random.Random(seed).choice(files).unlink()
        happened["lost file"] += 1
        self.begin_start()

    @invariant()
    def the_digests_say_nothing_that_the_completions_do_not_say(self) -> None:
        folder = self.place / "run" / DIGESTS
        happened["digests"] += folder.exists() and len(list(folder.iterdir())) > 1
        known = self.work.known()
        if folder.exists():
            folder.rename(self.place / "aside")
        plain = self.work.known()
        if (self.place / "aside").exists():
            (self.place / "aside").rename(folder)
        assert {id_: replace(record, digested=False) for id_, record in known.items()} == plain

    @invariant()
    def what_is_called_imported_was_received(self) -> None:
        happened["steps"] += 1
        books = self.work.books()
        assert books.balanced, books.unbalanced
        assert books.total.imported <= len(set(self.work.service.received))
        assert max(Counter(self.work.letters()).values(), default=1) == 1

    @rule()
    def finish(self) -> None:
        """A start that nothing disturbs leaves everything there, once."""
        self.work.service.fate = lambda: "imported"
        self.begin_start()
        self.work.start()
        books = self.work.books()
        good = [n for n in self.numbers if n is not None]
        assert books.segments_done == len(self.segments)
        assert (books.total.read, books.total.imported) == (len(self.numbers), len(good))
        assert len(self.work.letters()) == len(self.numbers) - len(good)
        assert set(self.work.service.received) == {id_of(n) for n in good}
        assert self.work.start() == 0
        self.begin_start()


def run_machine(examples: int, steps: int) -> Counter[str]:
    """Runs the machine and returns how often each thing was done."""
    happened.clear()
    run_state_machine_as_test(
        LedgerMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    return Counter(happened)


@pytest.fixture(autouse=True)
def each_completion_is_in_a_digest_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes parts of one completion each, so that there are several even of two segments."""
    monkeypatch.setattr("pipelines.digest.LEAST", 1)


def test_the_ledger_holds_what_its_model_promises() -> None:
    run_machine(12, 25)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_the_ledger_holds_for_thousands_of_steps_of_every_kind() -> None:
    found = run_machine(120, 80)
    print(f"\n{dict(found)}")
    assert found["steps"] >= STEPS_IN_SOAK
    assert min(found[kind] for kind in KINDS) >= 10, found
