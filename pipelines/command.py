"""What the command line does: runs a backfill and says how it went, to a person or to a script."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import orjson

from mixpanel_http.client import EndpointRefused
from mixpanel_http.secret_refs import SecretUnavailable
from pipelines.backfill import Launch, RunMismatch, prepare_launch, run_launch
from pipelines.config import Config, ConfigError, load_config
from pipelines.manifest import ManifestUnusable
from pipelines.plan import NothingMatched, SourceUnreadable
from pipelines.progress import show_progress
from pipelines.replay import prepare_replay, replaying
from pipelines.report import ExitCode
from pipelines.state import StateUnusable
from pipelines.summary import shown, summary


def run(
    config_path: str,
    *,
    overrides: Sequence[str] = (),
    resume: str | None = None,
    replay: str | None = None,
    dry_run: bool = False,
    as_json: bool = False,
    beam_args: Sequence[str] = (),
) -> int:
    """Runs a backfill and returns the exit code.

    Args:
        config_path: the configuration's file.
        overrides: `key.path=value`, each replacing one value of it.
        resume: the run to go on with, or None for a new one.
        replay: the run whose dead letters and undelivered records are to be sent, or None.
        dry_run: read and validate only.
        as_json: print the report as JSON on stdout.
        beam_args: options for Beam.
    """
    _set_up_logging()
    try:
        config = load_config(config_path, overrides)
        launch = _launch(config, resume, replay, dry_run)
    except (
        ConfigError,
        RunMismatch,
        ManifestUnusable,
        SecretUnavailable,
        StateUnusable,
        EndpointRefused,
    ) as error:
        return _refuse(str(error), ExitCode.USAGE)
    except NothingMatched as error:
        return _refuse(str(error), ExitCode.NO_INPUT)
    except SourceUnreadable as error:
        return _refuse(str(error), ExitCode.DAMAGED_INPUT)
    manifest = launch.manifest
    print(
        f"Run {manifest.run_id}: {manifest.files:,} files, {manifest.bytes:,} bytes, "
        f"{len(manifest.segments):,} segments; state in {shown(launch.folder.uri)}",
        file=sys.stderr,
        flush=True,
    )
    report = run_launch(launch, beam_args, show_progress)
    if as_json:
        sys.stdout.write(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        sys.stdout.write(summary(report))
    sys.stdout.flush()
    return int(report["exit_code"])


def _launch(config: Config, resume: str | None, replay: str | None, dry_run: bool) -> Launch:
    if resume is not None:
        return prepare_launch(replaying(config, resume), resume=resume, dry_run=dry_run)
    if replay is not None:
        return prepare_replay(config, replay, dry_run=dry_run)
    return prepare_launch(config, dry_run=dry_run)


def _set_up_logging() -> None:
    """Shows warnings on stderr, except the one of Beam about a library that nobody here needs."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    handler.addFilter(lambda record: not str(record.msg).startswith("apitools not found"))
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(handler)


def _refuse(message: str, code: ExitCode) -> int:
    for line in message.splitlines():
        print(f"error: {line}", file=sys.stderr)
    return int(code)
