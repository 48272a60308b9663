"""The ledger against a model: work in any order, failures, crashes, torn writes, lost files, two attempts."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
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
from pipelines.ledger import Ledger, trim_dead_letters
from pipelines.state import StateFolder
from tests.ledgers import NOW, RUN, Work, id_of, pack, write
from transforms.elements import Block, EncodedBlock, Segment, new_attempt_id
from transforms.encode_requests import encode_requests
from transforms.import_requests import settle_block
from transforms.prepare_records import prepare_block
from transforms.segment_reader import BlockLimits, SegmentReader

COUNT = 24
BAD = (3, 10, 11, 20)
FATES = st.sampled_from(["imported", "imported", "imported", "undelivered", "not_attempted"])


class LedgerMachine(RuleBasedStateMachine):
    """A run of two segments, worked on by attempts that end anywhere.

    What holds at every moment: what the ledger calls imported the service has received, the books close, and
    no letter counts twice. In the end a start that nothing disturbs leaves everything there, once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="ledger-model-"))
        numbers = [None if n in BAD else n for n in range(COUNT)]
        paths = [write(self.place, f"{i}.json", numbers[6 * i : 6 * i + 6]) for i in range(4)]
        segments = [pack(paths[:2], 0), pack(paths[2:], 1)]
        self.work = Work(StateFolder(str(self.place / "run")), segments, records=3)
        self.begin_start()

    def teardown(self) -> None:
        shutil.rmtree(self.place)

    def begin_start(self) -> None:
        self.ledger = Ledger(self.work.folder, RUN, new_attempt_id(), resumed=True)
        self.attempts: list[tuple[Segment, Attempt, list[Block]]] = []

    @precondition(lambda self: len(self.attempts) < 3)
    @rule(number=st.integers(0, 1))
    def open_attempt(self, number: int) -> None:
        """A worker takes a segment up; two may have the same, as a zombie and its successor do."""
        segment = self.work.segments[number]
        known = self.work.known().get(segment.id)
        if known is not None and known.done:
            return
        id_ = new_attempt_id()
        done = self.ledger.settled_blocks(segment.id, id_) or set()
        reader = SegmentReader(self.work.filesystem, BlockLimits(self.work.records, 1 << 20))
        blocks = list(reader.blocks(segment, id_, done))
        self.attempts.append((segment, self.ledger.open_attempt(segment.id, id_), blocks))

    @precondition(lambda self: self.attempts)
    @rule(which=st.integers(0, 2), place=st.integers(0, 3), fate=FATES)
    def settle_one_block(self, which: int, place: int, fate: str) -> None:
        """Some block's answer comes, in any order."""
        _, attempt, blocks = self.attempts[which % len(self.attempts)]
        if not blocks:
            return
        block = blocks.pop(place % len(blocks))
        self.work.service.fate = lambda: fate
        prepared = prepare_block(block, EventRules(), NOW)
        requests = tuple(encode_requests(prepared.records, 2000, 1 << 20))
        attempt.record(settle_block(EncodedBlock(block, prepared.records, requests), self.work.service))
        if attempt.is_complete():
            attempt.commit()

    @precondition(lambda self: self.attempts)
    @rule(torn=st.integers(0, 400), seed=st.integers(0, 99))
    def crash(self, torn: int, seed: int) -> None:
        """The process dies, perhaps in the middle of an append; the next start takes the run up."""
        files = sorted((self.place / "run").rglob("*.prog"))
        if files and torn:
            newest = max(files, key=lambda path: path.name.split(".")[1])
            content = newest.read_bytes()
            newest.write_bytes(content[: max(0, len(content) - random.Random(seed).randrange(torn))])
        trim_dead_letters(self.work.folder, self.work.known())
        self.begin_start()

    @precondition(lambda self: self.work.known())
    @rule(seed=st.integers(0, 1 << 20))
    def lose_a_file(self, seed: int) -> None:
        """The store forgets a file, or shows an old listing."""
        files = sorted(path for path in (self.place / "run").rglob("*") if path.is_file())
        random.Random(seed).choice(files).unlink()
        trim_dead_letters(self.work.folder, self.work.known())
        self.begin_start()

    @invariant()
    def what_is_called_imported_was_received(self) -> None:
        books = self.work.books()
        assert books.balanced, books.unbalanced
        assert books.total.imported <= len(set(self.work.service.received))
        assert max(Counter(self.work.letters()).values(), default=1) == 1

    @rule()
    def finish(self) -> None:
        """A start that nothing disturbs leaves everything there, once."""
        self.work.service.fate = lambda: "imported"
        trim_dead_letters(self.work.folder, self.work.known())
        self.work.start()
        books = self.work.books()
        assert books.segments_done == 2
        assert (books.total.read, books.total.dead_lettered) == (COUNT, len(BAD))
        assert len(self.work.letters()) == len(BAD)
        assert set(self.work.service.received) == {id_of(n) for n in range(COUNT) if n not in BAD}
        assert self.work.start() == 0
        self.begin_start()


def run_machine(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        LedgerMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_ledger_holds_what_its_model_promises() -> None:
    run_machine(12, 25)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_the_ledger_holds_for_thousands_of_steps() -> None:
    run_machine(100, 60)
