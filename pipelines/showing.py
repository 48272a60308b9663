"""What the verb `show` does: it prints records beside what would be sent of them, and changes nothing."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

from mixpanel_http.kinds import KINDS
from mixpanel_http.prepared import PreparedRecords
from mixpanel_http.verdicts import RecordRefused
from pipelines.absent_sources import AbsentSources
from pipelines.config import Config
from pipelines.config_jobs import JobsConfig
from pipelines.config_reading import ConfigError, load_run
from pipelines.plan import list_files, plan_segments
from pipelines.refusals import REFUSALS, refuse_for
from pipelines.report import ExitCode
from pipelines.resuming import pattern_of
from pipelines.streams import print_out
from record_maps.functions import folder_of
from record_maps.mapper import MappedLines, Mapper
from transforms.dead_letters import LinePlaces
from transforms.duplicate_keys import refuse_duplicates
from transforms.elements import Block, block_lines
from transforms.letters_again import open_letters
from transforms.map_records import map_block
from transforms.prepare_records import prepare_block
from transforms.segment_reader import BlockLimits, SegmentReader
from transforms.storage import Storage

_AS_IT_STANDS: Final = "records.kind {} is sent as it stands"


def show_records(config_path: str, *, overrides: Sequence[str] = (), count: int = 5) -> int:
    """Prints the first records of a configuration's source and what becomes of each; returns the exit code.

    Args:
        config_path: the configuration's file; of several jobs each is shown.
        overrides: `key.path=value`, each replacing one value of it.
        count: how many records, of each job.
    """
    try:
        config = load_run(config_path, overrides)
        for declared in config.maps:
            declared.check_secrets()
        for line in _lines(config, count):
            print_out(f"{line}\n")
    except REFUSALS as error:
        return refuse_for(error)
    return int(ExitCode.DONE)


def _lines(config: Config | JobsConfig, count: int) -> Iterator[str]:
    if isinstance(config, Config):
        yield from shown_lines(config, count)
        return
    for job in config.jobs:
        yield f"# {job.name}"
        if KINDS[job.records.kind].prepare is None:
            yield f"! {_AS_IT_STANDS.format(job.records.kind)}"
        else:
            yield from shown_lines(config.config_of(job), count)


def shown_lines(config: Config, count: int) -> Iterator[str]:
    """Yields some records, each with its place and what would be sent of it, in the order of the run.

    Raises:
        ConfigError: if the kind has no records.
        NothingMatched, SourceUnreadable: if there is no input.
    """
    prepare = KINDS[config.records.kind].prepare
    if prepare is None:
        raise ConfigError([f"show: {_AS_IT_STANDS.format(config.records.kind)}"])
    mapper, absent = _mapper(config), _absent(config)
    left = count
    for block in _blocks(config, count):
        mapped = map_block(block, mapper) if mapper is not None else block
        fates = _fates(mapped, prepare_block(mapped, config.rules(), time.time(), prepare).records)
        for index in sorted(fates)[:left]:
            yield from _record(block, index, fates[index])
            if mapper is not None and absent is not None:
                _see(absent, mapper, block, index)
        left -= len(fates)
        yield from (f"! {note.uri}: {note.problem}" for note in block.notes if note.problem)
        if left <= 0:
            break
    if absent is not None:
        yield from (f"! {line}" for line in absent.told())


def _fates(mapped: Block, prepared: PreparedRecords) -> dict[int, list[str]]:
    """Returns what becomes of each line of a block."""
    fates: dict[int, list[str]] = {}
    kept = range(prepared.count) if prepared.kept is None else prepared.kept
    for index, line in zip(kept, prepared.body.split(b"\n"), strict=False):
        fates.setdefault(index, []).append(line.decode(errors="replace"))
    by_map = mapped.mapped or MappedLines()
    for index, reason in by_map.filtered:
        fates.setdefault(index, []).append(f"filtered: {reason}")
    for refused in (*by_map.rejections, *prepared.rejections):
        fates.setdefault(refused.index, []).append(f"dead letter: {refused.reason}: {refused.message}")
    return fates


def _absent(config: Config) -> AbsentSources | None:
    return AbsentSources(config.records.map) if config.records.map is not None else None


def _see(absent: AbsentSources, mapper: Mapper, block: Block, index: int) -> None:
    with suppress(RecordRefused):
        for fields in mapper.records(block_lines(block)[index]):
            absent.see(fields)


def _record(block: Block, index: int, fates: Sequence[str]) -> Iterator[str]:
    if block.oversize is not None:
        yield f"{block.spans[0].uri}: a line of {block.oversize.length:,} bytes"
    else:
        lines = block_lines(block)
        place = LinePlaces(block, lines).sources[index]
        yield f"{place.uri}" + (f", line {place.line}" if place.line else "")
        yield f"< {lines[index].decode(errors='replace')}"
    yield from (f"> {fate}" for fate in fates)


def _mapper(config: Config) -> Mapper | None:
    declared = config.records.map
    if declared is None:
        return None
    return Mapper(declared.to_spec(), folder_of(declared.function) if declared.function else None)


def _blocks(config: Config, count: int) -> Iterator[Block]:
    """Yields the run's blocks, in small pieces, as they are before they are mapped."""
    storage = Storage(config.source.storage_options)
    limits = BlockLimits(min(count, config.limits.records_per_request), config.limits.bytes_per_request)
    choice = config.format_choice()
    reader = SegmentReader(storage.open_to_read, limits, format=choice)
    segments = plan_segments(list_files(pattern_of(config), storage), storage, choice)
    for block in itertools.chain.from_iterable(reader.blocks(segment, "show") for segment in segments):
        opened = open_letters(block) if config.source.format == "dead_letters" else block
        yield refuse_duplicates(opened) if config.records.duplicate_keys == "refuse" else opened
