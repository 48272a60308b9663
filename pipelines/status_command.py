"""What the verbs `status` and `runs` do: they print how runs stand, and change nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import orjson

from pipelines.closing import close_detached
from pipelines.config_reading import load_run
from pipelines.refusals import REFUSALS, refuse_for
from pipelines.report import ExitCode
from pipelines.resuming import absolute, check_run_id, state_folder
from pipelines.state import StateFolder
from pipelines.status import RunLine, follow, list_runs, status_of, status_text
from pipelines.streams import print_out


def show_status(
    run_id: str,
    *,
    config_path: str | None = None,
    state: str = ".backfill",
    following: bool = False,
    as_json: bool = False,
) -> int:
    """Prints how a run stands and returns 0, or 2 if that cannot be told.

    Args:
        run_id: the run.
        config_path: a configuration that names the state folder, and how it is reached.
        state: the state folder, without a configuration.
        following: print it again every ten seconds, until the run runs no more.
        as_json: print JSON, one line each time.
    """
    try:
        check_run_id(run_id)
        folder = _state_folder(config_path, state).below(run_id)
        close_detached(folder)
        for status in follow(folder) if following else [status_of(folder)]:
            text = orjson.dumps(status).decode() + "\n" if as_json else status_text(status)
            print_out(text, is_json=as_json)
    except REFUSALS as error:
        return refuse_for(error)
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)
    return int(ExitCode.DONE)


def show_runs(*, config_path: str | None = None, state: str = ".backfill", as_json: bool = False) -> int:
    """Prints which runs there are and how each ended; returns 0, or 2 if that cannot be told."""
    try:
        folder = _state_folder(config_path, state)
        runs = list(list_runs(folder))
    except REFUSALS as error:
        return refuse_for(error)
    lines = (
        (orjson.dumps(dataclasses.asdict(run)).decode() for run in runs) if as_json else _table(runs, folder)
    )
    print_out("".join(f"{line}\n" for line in lines), is_json=as_json)
    return int(ExitCode.DONE)


def _table(runs: list[RunLine], folder: StateFolder) -> Iterator[str]:
    if not runs:
        yield f"There are no runs in {folder.uri}."
        return
    width = max(len(run.run_id) for run in runs)
    yield f"{'run':<{width}}  {'state':<12}{'exit':>4}  {'started':<20}{'imported':>14}{'dead letters':>14}"
    for run in runs:
        code = "" if run.exit_code is None else run.exit_code
        counts = f"{_count(run.imported):>14}{_count(run.dead_lettered):>14}"
        yield f"{run.run_id:<{width}}  {run.state:<12}{code:>4}  {run.started_at[:19]:<20}{counts}"


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _state_folder(config_path: str | None, state: str) -> StateFolder:
    if config_path is None:
        return StateFolder(absolute(state))
    return state_folder(load_run(config_path).run)
