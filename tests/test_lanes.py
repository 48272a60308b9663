"""Lanes and workers: chosen from the limits, and said why."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import Config
from pipelines.graph import segments_of_lane
from pipelines.lanes import choose_lanes, cores_of
from pipelines.manifest import Manifest, write_manifest
from pipelines.runners import pipeline_options
from pipelines.state import StateFolder
from transforms.elements import FilePart, Segment


def config(runner: str, options: dict[str, Any] | None = None, **limits: Any) -> Config:
    return Config.model_validate(
        {
            "source": {"uri": "gs://b/*"},
            "destination": {"credentials": {"project_token": "env:T"}},
            "limits": limits,
            "run": {"state": "gs://b/state"},
            "beam": {"runner": runner, "options": options or {}},
        }
    )


@pytest.mark.parametrize(
    ("runner", "options", "limits", "lanes", "workers"),
    [
        ("DirectRunner", {}, {}, 1, None),
        ("DirectRunner", {"direct_num_workers": 2}, {}, 2, None),
        ("DirectRunner", {"direct_num_workers": 0}, {"in_flight": 256}, multiprocessing.cpu_count(), None),
        ("PortableRunner", {"sdk_worker_parallelism": 3}, {}, 3, None),
        ("FlinkRunner", {"parallelism": 4}, {}, 4, None),
        ("DataflowRunner", {}, {}, 4, 2),
        ("DataflowRunner", {}, {"events_per_second": 300_000}, 6, 3),
        ("DataflowRunner", {"max_num_workers": 4}, {}, 8, 4),
        ("DataflowRunner", {"machine_type": "n1-standard-8", "num_workers": 3}, {}, 16, 3),
        ("DataflowRunner", {}, {"lanes": 2}, 2, 2),
        ("DataflowRunner", {}, {"in_flight": 3}, 3, 2),
    ],
)
def test_lanes_are_what_works_at_once_and_no_more_than_requests_in_flight(
    runner: str, options: dict[str, Any], limits: dict[str, Any], lanes: int, workers: int | None
) -> None:
    chosen = choose_lanes(config(runner, options, **limits))

    assert (chosen.count, chosen.workers) == (lanes, workers)
    assert chosen.why


@pytest.mark.parametrize("workers", [-1, "x", "2", 1.5, True, None])
def test_a_number_of_workers_that_is_none_is_refused(workers: object) -> None:
    with pytest.raises(ValueError, match="direct_num_workers: must be a whole number"):
        config("DirectRunner", {"direct_num_workers": workers})


def test_a_running_mode_that_beam_does_not_have_is_refused_with_those_that_it_has() -> None:
    with pytest.raises(ValueError, match="in_memory, multi_threading, multi_processing"):
        config("DirectRunner", {"direct_running_mode": "multiprocessing"})


def test_more_lanes_than_requests_in_flight_are_refused() -> None:
    with pytest.raises(ValueError, match=r"limits\.lanes must not be above limits\.in_flight"):
        config("DataflowRunner", lanes=9, in_flight=8)


def test_dataflow_is_asked_for_as_many_workers_at_first_as_at_most() -> None:
    options = pipeline_options(config("DataflowRunner", {"experiments": ["x"]}), "Run_1").get_all_options()

    assert (options["num_workers"], options["max_num_workers"]) == (2, 2)
    assert options["machine_type"] == "n1-standard-2"
    assert options["job_name"] == "mixpanel-backfill-run-1"
    assert options["experiments"] == ["x", "disable_always_on_exception_sampling"]
    assert options["save_main_session"] is False


def test_what_the_configuration_says_comes_first() -> None:
    given = {"max_num_workers": 7, "num_workers": 1, "job_name": "mine", "sdk_container_image": "image"}
    options = pipeline_options(config("DataflowRunner", given), "run").get_all_options()

    assert {name: options[name] for name in given} == given
    assert options["setup_file"] is None


@pytest.mark.parametrize(("machine", "cores"), [("e2-standard-4", 4), ("custom-2-8192", 2), ("e2-micro", 1)])
def test_the_cores_of_a_machine_are_told_by_its_name(machine: str, cores: int) -> None:
    assert cores_of(machine) == cores


def test_lanes_deal_all_segments_and_each_keeps_the_order(tmp_path: Path) -> None:
    folder = StateFolder(str(tmp_path))
    segments = tuple(Segment(f"{number:07d}", (FilePart("/a", 1, "1"),)) for number in range(11))
    write_manifest(folder, Manifest("run", "now", {}, 1, 1, segments))

    dealt = [[segment.id for segment in segments_of_lane(lane, folder, 3)] for lane in range(3)]

    assert all(lane == sorted(lane) for lane in dealt)
    assert sorted(id_ for lane in dealt for id_ in lane) == [segment.id for segment in segments]
    assert [len(lane) for lane in dealt] == [4, 4, 3]
