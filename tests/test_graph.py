"""The pipeline's graph: it reads like the drawing in docs/architecture.md, whatever the input's size."""

from __future__ import annotations

import apache_beam as beam
from apache_beam.transforms.display import DisplayData

from pipelines.config_reading import load_config
from pipelines.graph import BackfillEvents
from pipelines.ledger import Ledger
from pipelines.listing import SourceFile
from pipelines.manifest import Manifest, write_manifest
from pipelines.plan import cut_segments
from pipelines.state import StateFolder
from tests.backfills import Backfills

STEPS = [
    "ListSegments",
    "ReadBlocks",
    "PrepareRecords",
    "EncodeRequests",
    "ImportRequests",
    "CommitOutcomes",
]


def graph(backfills: Backfills, files: int) -> tuple[beam.Pipeline, int]:
    config = load_config(str(backfills.config("data/*.json")))
    folder = StateFolder(str(backfills.state / str(files)))
    listed = [SourceFile(None, f"/data/{n}.json", 50_000_000, "1") for n in range(files)]
    segments = tuple(cut_segments(listed, lambda file: "ndjson"))
    write_manifest(folder, Manifest("r", "now", {}, files, 1, segments))
    pipeline = beam.Pipeline()
    _ = pipeline | "BackfillEvents" >> BackfillEvents(
        config, config.destination.to_destination(), Ledger(folder)
    )
    return pipeline, len(pipeline.to_runner_api().SerializeToString())


def test_the_steps_of_the_graph_are_those_of_the_drawing_in_order(backfills: Backfills) -> None:
    pipeline, _ = graph(backfills, 1)
    names = [t.unique_name for t in pipeline.to_runner_api().components.transforms.values()]
    for step in STEPS:
        assert f"BackfillEvents/{step}" in names
    own = [
        name for name in names if "/Lanes/" not in name and "/Reshuffle/" not in name and "/Lane" not in name
    ]
    assert not [name for name in own if "lambda" in name]


def test_the_graph_does_not_grow_with_the_number_of_files(backfills: Backfills) -> None:
    _, small = graph(backfills, 1)
    _, large = graph(backfills, 3000)
    assert abs(large - small) < 100
    assert large < 100_000


def test_the_steps_show_their_settings(backfills: Backfills) -> None:
    config = load_config(str(backfills.config("data/*.json")))
    destination = config.destination.to_destination()
    whole = BackfillEvents(config, destination, Ledger(StateFolder(str(backfills.state))))
    shown: dict[str, object] = {}

    class Collect(beam.pipeline.PipelineVisitor):
        def enter_composite_transform(self, node: beam.pipeline.AppliedPTransform) -> None:
            if node.transform is not None:
                for item in DisplayData.create_from(node.transform).items:
                    shown[item.key] = item.value

    pipeline = beam.Pipeline()
    _ = pipeline | whole
    pipeline.visit(Collect())
    assert shown["endpoint"] == backfills.emulator.url
    assert shown["records_per_request"] == 2000
    assert shown["in_flight"] == 16
    assert shown["insert_id_mode"] == "content"
