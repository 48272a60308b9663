"""Intents: which records are about to be sent that must not be sent twice, written down before they are.

`$add` and `$append` done twice are done wrong. Before a request with such records leaves, their lines are
noted in `ledger/<segment>.<attempt>.intent`; an attempt that ends without an outcome for their block leaves
them doubtful. A resume lists doubtful records as ambiguous and does not send them, unless told to.
"""

from __future__ import annotations

import base64
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pipelines.attempt import FOLDER
from pipelines.believing import Known, attempt_of
from pipelines.ledger_lines import ProgressLine, seal, seed, unseal
from pipelines.state import StateFolder
from transforms.elements import EarlierSends
from transforms.line_sets import united

SUFFIX: Final = ".intent"
Bitmaps = dict[int, bytes]


@dataclass(frozen=True)
class Intents:
    """Writes the intents of one run. Safe to share between threads; cheap to pickle.

    Attributes:
        folder: the run's folder.
        run: the run's identity.
    """

    folder: StateFolder
    run: str = ""
    _written: Counter[str] = field(default_factory=Counter, init=False, repr=False, compare=False)

    def intend(self, segment: str, attempt: str, lines: Mapping[int, bytes]) -> None:
        """Makes durable that some lines, by block as bitmaps, are about to be sent.

        Raises:
            StateUnusable: if it cannot be written; then they must not be sent.
        """
        name = f"{FOLDER}/{segment}.{attempt}"
        values = {"b": [[ordinal, base64.b64encode(bits).decode()] for ordinal, bits in lines.items()]}
        with _lock:
            number = self._written[name]
            self._written[name] += 1
        if not self.folder.is_local:
            numbered = f"{name}.{number}{SUFFIX}"
            self.folder.write(numbered, seal(values, seed(self.run, numbered))[0])
            return
        whole = name + SUFFIX
        # A line of its own, also behind what another thread could not write to its end.
        self.folder.append(whole, b"\n" + seal(values, seed(self.run, whole))[0])
        if number == 0:
            self.folder.keep_names(FOLDER)


_lock: Final = threading.Lock()


def read_intents(folder: StateFolder, run: str, names: Iterable[str]) -> dict[str, Bitmaps]:
    """Returns the lines that attempts intended to send, by attempt and block.

    A line that is not whole was being written when its attempt ended: its records were not sent.
    """
    found: dict[str, Bitmaps] = {}
    for name, content in folder.read_all([name for name in names if name.endswith(SUFFIX)]):
        blocks = found.setdefault(attempt_of(name), {})
        for raw in content.splitlines(keepends=True):
            opened = unseal(raw, seed(run, name))
            for ordinal, bits in opened[0].get("b", ()) if opened else ():
                blocks[ordinal] = united(blocks.get(ordinal, b""), base64.b64decode(bits))
    return found


def earlier_sends(
    known: Known, progress: Mapping[str, list[ProgressLine]], intents: Mapping[str, Bitmaps]
) -> dict[int, EarlierSends]:
    """Returns for blocks that are not settled which of their lines are imported, or may be.

    What a block's last outcome says counts, and intents that are later than that outcome.

    Args:
        known: what is believed of the segment.
        progress: the progress of its attempts, by file.
        intents: by attempt.
    """
    wrote = {
        id(block): attempt_of(name)
        for name, lines in progress.items()
        for line in lines
        for block in line.blocks
    }
    found: dict[int, EarlierSends] = {}
    since: dict[int, str] = {}
    for block in known.open:
        if not block.provisional and not block.end:
            found[block.ordinal] = block.sends
            since[block.ordinal] = wrote[id(block)]
    for attempt, blocks in intents.items():
        for ordinal, bits in blocks.items():
            if ordinal not in known.settled and attempt > since.get(ordinal, ""):
                before = found.get(ordinal, EarlierSends())
                found[ordinal] = EarlierSends(before.imported, united(before.doubtful, bits))
    return found
