"""MapRecords: from lines of any shape to lines of Mixpanel's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PCollection

from record_maps.mapper import Mapper
from record_maps.spec import MapSpec
from transforms.elements import Block, block_lines


def map_block(block: Block, mapper: Mapper) -> Block:
    """Returns a block with what a map makes of its lines; they stay, as books and letters speak of them."""
    if block.oversize or not block.raw:
        return block
    refused = (*block.torn, *(line.index for line in block.refused))
    return replace(block, mapped=mapper.map_lines(block_lines(block), block.wanted, refused))


@dataclass
class MapRecords(beam.PTransform[PCollection[Block], PCollection[Block]]):
    """Maps a block's records; what the map refuses or leaves out rides along.

    The same line always becomes the same records, so that their ids stay the same however often a block is
    mapped, in this run, in a resumed one, or in a replay of its dead letters.

    Attributes:
        spec: the map; it holds no secret, only a reference to one.
        folder: where the map's function was found, for workers on the same machine.
    """

    spec: MapSpec
    folder: str | None = None

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, blocks: PCollection[Block]) -> PCollection[Block]:
        return blocks | "Map" >> beam.ParDo(_MapFn(self.spec, self.folder))

    def display_data(self) -> dict[str, Any]:
        return {"function": self.spec.function or "", "drop_nulls": self.spec.drop_nulls}


@dataclass(eq=False)
class _MapFn(beam.DoFn):
    spec: MapSpec
    folder: str | None
    _mapper: Mapper | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        super().__init__()

    def setup(self) -> None:
        self._mapper = Mapper(self.spec, self.folder)

    def process(self, block: Block) -> Iterator[Block]:
        assert self._mapper is not None
        yield map_block(block, self._mapper)
