"""Replays a run: its committed dead letters and undelivered records become the input of a new run.

The letters are copied into the new run's folder first. So the new run's input cannot change under it, however
the first run goes on, and it is resumed like any other.
"""

from __future__ import annotations

from typing import Final

from pipelines.config import Config
from pipelines.config_source import SourceConfig
from pipelines.launch import Launch, new_run_id, prepare_launch
from pipelines.ledger import DeadFile, read_ledger
from pipelines.manifest import NAME as MANIFEST
from pipelines.manifest import read_manifest, read_origin
from pipelines.plan import NothingMatched, literally
from pipelines.resuming import REPLAYED, RunMismatch, check_not_replayed, check_run_id, state_folder
from pipelines.state import StateFolder, StateUnusable

INPUT: Final = "input"


def prepare_replay(config: Config, origin: str, *, dry_run: bool = False) -> Launch:
    """Returns the launch of a new run that sends what another could not, or was not allowed to.

    Raises:
        ManifestUnusable: if there is no such run.
        NothingMatched: if it has neither dead letters nor undelivered records.
        RunMismatch, StateUnusable: if the state cannot be used.
    """
    check_run_id(origin)
    if config.records.kind == "lookup_tables":
        raise RunMismatch("a lookup table is sent as a whole: mend its file and start a new run")
    state = state_folder(config.run)
    source = state.below(origin)
    check_not_replayed(source, config)
    if not letters_of(source):
        raise NothingMatched(f"run {origin} has neither dead letters nor undelivered records")
    run_id = config.run.id or new_run_id()
    folder = state.below(run_id)
    if not folder.exists(MANIFEST):
        copy_letters(source, folder)
    named = config.model_copy(update={"run": config.run.model_copy(update={"id": run_id})})
    launch = prepare_launch(reading_letters(named, folder), dry_run=dry_run, origin=origin)
    note_replayed(source, launch)
    return launch


def note_replayed(source: StateFolder, launch: Launch) -> None:
    """Notes in a run's folder which run sends what it had left, before that one sends anything."""
    if not launch.dry_run:
        source.write(REPLAYED, launch.manifest.run_id.encode())


def replaying(config: Config, run_id: str) -> Config:
    """Returns the configuration to resume a run with: where it replays another, its source is letters."""
    check_run_id(run_id)
    folder = state_folder(config.run).below(run_id)
    return config if read_origin(folder) is None else reading_letters(config, folder)


def reading_letters(config: Config, folder: StateFolder) -> Config:
    """Returns a configuration whose source is the letters that were copied into a run's folder."""
    source = SourceConfig(
        uri=f"{literally(folder.uri)}/{INPUT}/*.jsonl.gz",
        format="dead_letters",
        storage_options=config.run.storage_options,
    )
    return config.model_copy(update={"source": source})


def letters_of(folder: StateFolder) -> list[DeadFile]:
    """Returns a run's files of letters that are committed, as far as they are.

    Raises:
        ManifestUnusable: if there is no such run.
    """
    ledger = read_ledger(folder, read_manifest(folder).key)
    return [file for name in sorted(ledger) for file in (*ledger[name].dead, *ledger[name].undelivered)]


def copy_letters(source: StateFolder, target: StateFolder) -> None:
    """Copies a run's letters as far as they are committed; what a crash left behind them is not in the books.

    Raises:
        StateUnusable: if a file is shorter than the ledger says.
    """
    files = letters_of(source)
    names = [file.name for file in files]
    for file, (name, content) in zip(files, source.read_all(names), strict=True):
        if len(content) < file.bytes:
            raise StateUnusable(f"{source.uri_of(name)}: shorter than the ledger says")
        target.write(f"{INPUT}/{name.replace('/', '.')}", content[: file.bytes])
