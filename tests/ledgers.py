"""A segment's way from file to ledger without Beam, so that a test can end it anywhere."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mixpanel_http.event_rules import EventRules
from mixpanel_http.receipts import Receipt
from pipelines.books import Books, close_books
from pipelines.digest import write_digest
from pipelines.ledger import Ledger, read_ledger
from pipelines.ledger_lines import SegmentRecord
from pipelines.state import StateFolder
from transforms.attempt_ids import new_attempt_id
from transforms.elements import EncodedBlock, FilePart, Segment
from transforms.encode_requests import encode_requests
from transforms.prepare_records import prepare_block
from transforms.segment_reader import BlockLimits, SegmentReader
from transforms.settle_block import settle_block
from transforms.storage import FileSystem, Storage, path_of, version_of

RUN = "run 2024-01-01"
NOW = 1_750_000_000.0


@dataclass
class Service:
    """Takes what it is sent, and keeps count of the copies; fails when a test says so."""

    received: list[str] = field(default_factory=list)
    fate: Callable[[], str] = lambda: "imported"

    def deliver(self, body: bytes, count: int, compressed: bytes | None = None) -> Receipt:
        """Returns that all records met the same fate."""
        receipt = Receipt()
        fate = self.fate()
        receipt.settle(0, count, fate)
        if fate == "imported":
            self.received += [json.loads(line)["properties"]["$insert_id"] for line in body.split(b"\n")]
        return receipt


def local(uri: str) -> FileSystem:
    """Returns the file system of a local file."""
    return Storage().open(uri)


def pack(paths: Sequence[Path], number: int = 0) -> Segment:
    """Returns files as one segment."""
    parts = []
    for path in paths:
        info = local(str(path)).info(path_of(str(path)))
        parts.append(FilePart(str(path), info["size"], version_of(info)))
    return Segment(f"{number:07d}", tuple(parts))


@dataclass
class Work:
    """Starts of one run over its segments, one after the other."""

    folder: StateFolder
    segments: Sequence[Segment]
    service: Service = field(default_factory=Service)
    records: int = 4
    filesystem: Callable[[str], FileSystem] = local

    def start(self, blocks: int = 1 << 30) -> int:
        """Works until everything is done or so many blocks were settled, and returns how many were."""
        launch = new_attempt_id()
        ledger = Ledger(self.folder, RUN, launch, resumed=True)
        known = read_ledger(self.folder, RUN)
        write_digest(self.folder, RUN, launch, known, least=1)
        count = 0
        for segment in self.segments:
            if segment.id in known and known[segment.id].done:
                continue
            id_ = new_attempt_id()
            reader = SegmentReader(self.filesystem, BlockLimits(self.records, 1 << 20))
            attempt = ledger.open_attempt(segment.id, id_)
            for block in reader.blocks(segment, id_, ledger.settled_blocks(segment.id, id_) or ()):
                if count == blocks:
                    return count
                prepared = prepare_block(block, EventRules(), NOW)
                requests = tuple(encode_requests(prepared.records, 2000, 1 << 20))
                encoded = EncodedBlock(block, prepared.records, requests)
                attempt.record(settle_block(encoded, self.service))
                count += 1
            if attempt.is_complete():
                attempt.commit()
            else:
                attempt.close()
        return count

    def known(self) -> Mapping[str, SegmentRecord]:
        """Returns what the ledger says."""
        return read_ledger(self.folder, RUN)

    def books(self) -> Books:
        """Returns the books of what the ledger says."""
        return close_books(self.segments, self.known())

    def letters(self) -> list[str]:
        """Returns the lines of the committed dead letters, as far as they are committed."""
        found = []
        for record in self.known().values():
            for file in record.dead:
                content = gzip.decompress(self.folder.read(file.name)[: file.bytes])
                letters = [json.loads(line) for line in content.splitlines()]
                assert len(letters) == file.records
                found += [f"{x['source']['uri']}:{x['source']['line']}" for x in letters]
        return found


def line(number: int) -> bytes:
    """Returns a valid event with its own id."""
    properties = {"time": 1_700_000_000, "distinct_id": "u", "ip": "0", "$insert_id": f"id-{number:06d}"}
    return json.dumps({"event": "e", "properties": properties}).encode()


def write(folder: Path, name: str, numbers: Sequence[int | None]) -> Path:
    """Writes a file of events; None is a line that is refused."""
    path = folder / name
    path.write_bytes(b"".join((b"{" if n is None else line(n)) + b"\n" for n in numbers))
    return path


def id_of(number: int) -> str:
    """Returns the id of an event."""
    return f"id-{number:06d}"
