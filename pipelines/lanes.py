"""How many lanes a run has, and how many workers it asks for: chosen from its limits, and said why.

A lane is a fixed part of the work that is done one segment after the other, with a fixed part of the rate.
The lanes' parts add up to the run's limits however many workers there are at the moment, so that nobody has
to count them. There must be no more lanes than what works at once: a lane that waits leaves its part unused.
"""

from __future__ import annotations

import math
import multiprocessing
import re
from dataclasses import dataclass
from typing import Any, Final

from mixpanel_http.kinds import KINDS
from pipelines.config import Config

# What one core reads, prepares and sends, with room to spare (`benchmarks.scale`: 130,000 and more).
EVENTS_PER_CORE: Final = 50_000
LEAST_WORKERS: Final = 2  # while one is replaced, the other goes on
# Beam leaves the machine to Dataflow, whose default changes: with one that is named the lanes can be counted.
MACHINE_TYPE: Final = "n1-standard-2"
_CORES: Final = re.compile(r"-(\d+)(?:-\d+)?$").search


@dataclass(frozen=True, slots=True)
class Lanes:
    """How the work is divided.

    Attributes:
        count: lanes.
        workers: what is asked of an engine that starts workers itself; None where it does not.
        why: how both were chosen, for whoever starts the run.
    """

    count: int
    workers: int | None
    why: str


def choose_lanes(config: Config) -> Lanes:
    """Returns how a run's work is divided; where the order counts it is not."""
    if KINDS[config.records.kind].in_order:
        return Lanes(
            1, 1 if config.beam.runner == "DataflowRunner" else None, "1, as updates keep their order"
        )
    runner, options, limits = config.beam.runner, config.beam.options, config.limits
    if runner == "DataflowRunner":
        chosen = _on_dataflow(config)
    elif runner == "DirectRunner":
        # Beam, too, takes 0 for as many as there are cores.
        at_once = options.get("direct_num_workers", 1) or multiprocessing.cpu_count()
        chosen = Lanes(at_once, None, f"{at_once} by beam.options.direct_num_workers")
    else:
        name = "sdk_worker_parallelism" if runner == "PortableRunner" else "parallelism"
        at_once = _number(options, name, 1)
        chosen = Lanes(at_once, None, f"{at_once} by beam.options.{name}")
    if limits.lanes is not None:
        return Lanes(limits.lanes, chosen.workers, f"{limits.lanes} by limits.lanes")
    if chosen.count > limits.in_flight:
        # A lane has a request in flight at least.
        return Lanes(limits.in_flight, chosen.workers, f"{chosen.why}; at most limits.in_flight")
    return chosen


def _on_dataflow(config: Config) -> Lanes:
    options = config.beam.options
    cores = cores_of(str(options.get("machine_type", options.get("worker_machine_type", MACHINE_TYPE))))
    given = _number(options, "max_num_workers", 0) or _number(options, "num_workers", 0)
    rate = config.limits.events_per_second
    workers = given or max(LEAST_WORKERS, math.ceil(rate / (EVENTS_PER_CORE * cores)))
    why = (
        "beam.options"
        if given
        else f"{rate:,.0f} events/s at {EVENTS_PER_CORE:,} a core, and no fewer than {LEAST_WORKERS}"
    )
    return Lanes(workers * cores, workers, f"{workers} workers by {why}; a lane for each of their cores")


def cores_of(machine_type: str) -> int:
    """Returns the cores of a machine type of Google's; 1 where its name does not tell.

    >>> cores_of("n1-standard-4"), cores_of("custom-8-32768"), cores_of("e2-medium")
    (4, 8, 1)
    """
    found = _CORES(machine_type)
    return int(found[1]) if found else 1


def _number(options: dict[str, Any], name: str, default: int) -> int:
    value = options.get(name, default)
    return int(value) if str(value).isdecimal() and int(value) else default
