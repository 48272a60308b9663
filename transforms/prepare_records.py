"""PrepareRecords: from lines to records that Mixpanel takes, and refusals."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PCollection
from msgspec import structs

from mixpanel_http.event_blocks import prepare_events
from mixpanel_http.event_rules import EventRules, Place
from mixpanel_http.identity_rules import IdentityRules
from mixpanel_http.kinds import PrepareBlock, Rules
from mixpanel_http.long_strings import TRUNCATED, count_truncated
from mixpanel_http.mixed_records import MixedRules
from mixpanel_http.prepared import PreparedRecords
from mixpanel_http.profile_rules import ProfileRules
from mixpanel_http.verdicts import Reason, Rejection
from record_maps.mapper import MappedLines
from transforms.dead_letters import LinePlaces
from transforms.elements import Block, PreparedBlock, block_lines


def prepare_block(
    block: Block, rules: Rules, now_s: float, prepare: PrepareBlock = prepare_events
) -> PreparedBlock:
    """Returns a block's records ready to be sent, and what was refused and why."""
    if block.oversize:
        return PreparedBlock(block, _refuse_oversize(block.oversize.length))
    if not block.raw:
        return PreparedBlock(block, PreparedRecords(b"", 0))
    if block.mapped is not None:
        mapped = _prepare_mapped(block, block.mapped, rules, now_s, prepare)
        return PreparedBlock(block, _with_truncated(mapped))
    places = LinePlaces(block, block_lines(block)) if _keeps_rows(rules) else None
    place = places.id_place if places else None
    refused = _refused_lines(block)

    def judge(raw: bytes) -> PreparedRecords:
        return prepare(raw, rules, now_s, place)

    records = _judge_others(block, refused, judge) if refused else judge(block.raw)
    return PreparedBlock(block, _with_truncated(records))


def _refused_lines(block: Block) -> tuple[Rejection, ...]:
    """Returns the lines that are refused whatever they look like."""
    torn = "the file's readable content ends inside this line"
    return (
        *(
            Rejection(line.index, line.reason, line.field, line.message)
            for line in block.refused
            if line.index not in block.torn
        ),
        *(Rejection(index, Reason.TRUNCATED_TAIL.value, None, torn) for index in block.torn),
    )


def _with_truncated(records: PreparedRecords) -> PreparedRecords:
    """Returns the same, with the number of records that Mixpanel will shorten."""
    count = count_truncated(records.body)
    if not count:
        return records
    return replace(records, alterations=records.alterations + Counter({TRUNCATED: count}))


def _refuse_oversize(length: int) -> PreparedRecords:
    message = f"the line has {length:,} bytes; the dead letter holds its beginning"
    return PreparedRecords(b"", 0, kept=(), rejections=(Rejection(0, Reason.TOO_LARGE.value, None, message),))


def _keeps_rows(rules: Rules) -> bool:
    events = rules.events if isinstance(rules, MixedRules) else rules
    return isinstance(events, EventRules) and events.insert_id.keeps_rows


def _prepare_mapped(
    block: Block, mapped: MappedLines, rules: Rules, now_s: float, prepare: PrepareBlock
) -> PreparedRecords:
    """Prepares what a map made of a block; whatever is said of a record is said of the line it comes from."""
    places = LinePlaces(block, block_lines(block)) if _keeps_rows(rules) else None
    sources, outputs = mapped.sources, mapped.outputs

    def place(index: int) -> Place:
        assert places is not None
        uri, offset = places.id_place(sources[index])
        return f"{uri}\0{outputs[index]}" if outputs[index] else uri, offset

    prepared = prepare(b"\n".join(mapped.lines), rules, now_s, place if places else None)
    kept = range(prepared.count) if prepared.kept is None else prepared.kept
    rejections = [
        structs.replace(rejection, index=sources[rejection.index], output=outputs[rejection.index])
        for rejection in prepared.rejections
    ]
    return replace(
        prepared,
        kept=tuple(sources[index] for index in kept),
        outputs=tuple(outputs[index] for index in kept),
        rejections=(*rejections, *_refused_lines(block)),
        blank=len(mapped.blank),
    )


def _judge_others(
    block: Block, refused: tuple[Rejection, ...], judge: Callable[[bytes], PreparedRecords]
) -> PreparedRecords:
    """Prepares the other lines of a block than those that are refused already."""
    lines = block_lines(block)
    for refusal in refused:
        lines[refusal.index] = b""  # taken for a blank line, and then counted as what it is
    prepared = judge(b"\n".join(lines) + b"\n")
    return replace(prepared, blank=prepared.blank - len(refused), rejections=(*prepared.rejections, *refused))


@dataclass
class PrepareRecords(beam.PTransform[PCollection[Block], PCollection[PreparedBlock]]):
    """Validates a block's records, fixes what can be fixed and stamps `$insert_id`.

    Ids come from the data alone, so that a block prepared twice yields the same records. What is refused
    rides along.

    Attributes:
        rules: what the run asks of its records.
        clock: seconds since the epoch, for the rule on future times.
        prepare: what applies the rules to a block: that of the records' kind.
    """

    rules: Rules
    clock: Callable[[], float] = time.time
    prepare: PrepareBlock = prepare_events

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, blocks: PCollection[Block]) -> PCollection[PreparedBlock]:
        return blocks | "ValidateAndStamp" >> beam.ParDo(_PrepareFn(self.rules, self.clock, self.prepare))

    def display_data(self) -> dict[str, Any]:
        if isinstance(self.rules, ProfileRules):
            return {"operation": self.rules.operation, "id_field": self.rules.id_field or ""}
        if isinstance(self.rules, IdentityRules):
            return {"identity": self.rules.model}
        events = self.rules.events if isinstance(self.rules, MixedRules) else self.rules
        return {
            "insert_id_mode": events.insert_id.mode,
            "insert_id_fields": ", ".join(events.insert_id.fields),
            "identical_rows": events.insert_id.identical_rows,
            "identity": events.identity,
        }


@dataclass(eq=False)
class _PrepareFn(beam.DoFn):
    rules: Rules
    clock: Callable[[], float]
    prepare: PrepareBlock

    def __post_init__(self) -> None:
        super().__init__()

    def process(self, block: Block) -> Iterator[PreparedBlock]:
        yield prepare_block(block, self.rules, self.clock(), self.prepare)
