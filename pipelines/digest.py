"""The digest: all completions of a run in one object, so that nobody need read thousands of them one by one.

It says nothing that the completions do not say. It is written when a start of the run has read them all, and
where it is missing, damaged or behind, they are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mixpanel_http.crash_points import crash_point
from mixpanel_http.insert_ids import IdSample
from pipelines.ledger_lines import SegmentRecord, done_record, done_values, seal, seed, unseal
from pipelines.state import StateFolder

FOLDER: Final = "ledger_digest"
LEAST: Final = 100  # so few are read as fast one by one


def read_digest(folder: StateFolder, run: str) -> dict[str, SegmentRecord]:
    """Returns the completions in the last digest by the names of their files; none if it is not whole.

    The sample of ids is that of all; it stands with the first.

    Raises:
        StateUnusable: if the state folder cannot be read.
    """
    name = max(folder.names(FOLDER), default="")
    try:
        before, rows = seed(run, name), []
        for line in folder.read(name).splitlines(keepends=True) if name else []:
            values, before = unseal(line, before) or ({}, 0)
            rows.append(values)
    except FileNotFoundError:  # a newer one has just taken its place
        return {}
    if not rows or rows[0].get("count") != len(rows) - 1:
        return {}
    found = {record.completion: record for row in rows[1:] if (record := _record(row)) is not None}
    if len(found) != len(rows) - 1:
        return {}
    next(iter(found.values())).sample_level, next(iter(found.values())).sample = rows[0]["sample"]
    return found


def write_digest(
    folder: StateFolder, run: str, launch: str, ledger: Mapping[str, SegmentRecord], least: int = LEAST
) -> None:
    """Writes down all completions of a ledger, if many of them are new, and removes older digests.

    Args:
        folder: the run's folder.
        run: the run's identity.
        launch: the start of the run that has read the ledger.
        ledger: what it has read.
        least: how many are many.

    Raises:
        StateUnusable: if the state folder cannot be written.
    """
    done = [record for record in ledger.values() if record.done]
    if sum(not record.digested for record in done) < least:
        return
    name = f"{FOLDER}/{launch}.jsonl"
    sample = IdSample()
    for record in done:
        sample.merge(record.sample_level, record.sample)
    line, before = seal({"count": len(done), "sample": [sample.level, sample.counts]}, seed(run, name))
    lines = [line]
    for record in done:
        line, before = seal(_row(record), before)
        lines.append(line)
    crash_point("before digest")
    folder.write(name, b"".join(lines))
    crash_point("after digest")
    for old in folder.names(FOLDER).keys() - {name}:
        crash_point("before removal of a digest")
        folder.remove(old)


def _row(record: SegmentRecord) -> dict[str, Any]:
    values = {**done_values(record), "sample": [0, {}, record.sample_whole]}
    return {**values, "completion": record.completion}


def _record(row: Mapping[str, Any]) -> SegmentRecord | None:
    record = done_record(str(row.get("segment")), row)
    if record is not None:
        record.completion, record.digested = str(row.get("completion")), True
    return record
