"""Plans a run and builds its pipeline, without running it, and prints what that took.

python -m benchmarks.plan CONFIG
"""

from __future__ import annotations

import json
import sys
import time

from pipelines.config_reading import load_config
from pipelines.launch import prepare_launch


def main() -> None:
    """Plan a configuration's run; print seconds, files, segments and the bytes of the pipeline's graph."""
    started = time.monotonic()
    launch = prepare_launch(load_config(sys.argv[1]))
    seconds = time.monotonic() - started

    # Only now, so that importing Beam is no part of the planning.
    import apache_beam as beam

    from pipelines.graph import BackfillEvents
    from pipelines.ledger import Ledger

    ledger = Ledger(launch.folder)
    pipeline = beam.Pipeline()
    destination = launch.config.destination.to_destination()
    _ = pipeline | BackfillEvents(launch.config, destination, ledger)
    graph = pipeline.to_runner_api().SerializeToString()
    planned = {"files": launch.manifest.files, "segments": len(launch.manifest.segments)}
    json.dump({"seconds": seconds, **planned, "graph_bytes": len(graph)}, sys.stdout)


if __name__ == "__main__":
    main()
