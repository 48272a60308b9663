"""Which Beam runner a run uses, and with what options."""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.runners.runner import PipelineRunner
from apache_beam.transforms.environments import Environment, SubprocessSDKEnvironment

from pipelines.config import Config
from pipelines.config_beam import BeamConfig
from pipelines.config_jobs import JobsConfig
from pipelines.config_reading import ConfigError
from pipelines.lanes import MACHINE_TYPE, Lanes, choose_lanes

# Dataflow otherwise writes what was under way at an exception to a bucket, and records with it.
NO_SAMPLING: Final = "disable_always_on_exception_sampling"
_SETUP: Final = Path(__file__).parent.parent / "setup.py"
_CODE: Final = frozenset({"setup_file", "sdk_container_image", "prebuild_sdk_container_engine"})
OWN_OPTIONS: Final = (
    "--config",
    "--resume",
    "--detach",
    "--allow-new",
    "--dry-run",
    "--set",
    "--log-format",
    "--json",
)


def unknown_options(config: Config | JobsConfig, beam_args: Sequence[str]) -> list[tuple[str, str]]:
    """Returns (option, hint) for each argument or configured option that Beam does not know."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for kind in _option_classes(PipelineOptions):
        kind._add_argparse_args(parser)  # type: ignore[arg-type]  # Beam's own subclass adds nothing needed
    known = {name for action in parser._actions for name in action.option_strings}
    names = {action.dest for action in parser._actions}
    _, left = parser.parse_known_args(list(beam_args))
    unknown = [argument.split("=", 1)[0] for argument in left]
    found = [(argument, _hint(argument, OWN_OPTIONS) or _hint(argument, list(known))) for argument in unknown]
    return found + [
        (f"beam.options.{name}", _hint(name, list(names)))
        for name in config.beam.options
        if name not in names
    ]


def _option_classes(kind: type[PipelineOptions]) -> Iterator[type[PipelineOptions]]:
    for inner in kind.__subclasses__():
        yield inner
        yield from _option_classes(inner)


def _hint(name: str, candidates: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, candidates, 1)
    return f"; did you mean {close[0]}?" if close else ""


def runner_of(config: Config) -> PipelineRunner | str:
    """Returns the runner that a configuration names.

    `DirectRunner` means Beam's in-process FnApiRunner: Beam's own runner of that name first downloads another
    one, and runs the pipeline a second time where that fails.
    """
    if not config.beam.on_one_machine:
        return config.beam.runner
    return FnApiRunner() if config.beam.in_process else FnApiRunner(_own_processes())


def _own_processes() -> Environment:
    """Returns how workers on this machine are started."""
    environment: Environment = SubprocessSDKEnvironment.from_command_string(worker_command())
    return environment


def worker_command() -> str:
    """Returns the shell command that starts a worker as Beam does, but deaf to signals.

    Ctrl-C and service managers signal whole groups of processes. Workers end what is under way when the
    launcher asks them to; a signal would end them in the midst of it.
    """
    python, folder = shlex.quote(sys.executable), str(_SETUP.parent)
    # Where the project is not installed, this program has it from its own folder, and a worker would not.
    is_own = bool(sys.path) and sys.path[0] == folder
    path = f"PYTHONPATH={shlex.quote(folder)}${{PYTHONPATH:+:$PYTHONPATH}} " if is_own else ""
    return f"trap '' INT TERM HUP; {path}exec {python} -m apache_beam.runners.worker.sdk_worker_main"


def parsed_options(beam_args: Sequence[str]) -> dict[str, Any]:
    """Returns what arguments say, by the names that Beam's options have in a configuration."""
    return PipelineOptions(list(beam_args)).get_all_options(drop_default=True)


def check_engine(beam: BeamConfig) -> None:
    """Refuses an engine that is not told enough to start, before anything is planned.

    Raises:
        ConfigError: with everything that is missing.
    """
    errors = []
    if beam.runner == "DataflowRunner":
        errors = [
            f"beam.options.{name}: DataflowRunner needs it"
            for name in ("project", "region", "temp_location")
            if not beam.options.get(name)
        ]
        if importlib.util.find_spec("google.cloud.dataflow_v1beta3") is None:
            errors.append("beam.runner: DataflowRunner needs the extra gcp: pip install -e '.[gcp]'")
    if beam.ships_code and not (_SETUP.exists() or beam.options.keys() & _CODE):
        errors.append(
            "beam.options: nothing brings the project to the workers; give sdk_container_image "
            "(docker/Dockerfile) or setup_file"
        )
    if errors:
        raise ConfigError(errors)


def pipeline_options(config: Config, run_id: str = "") -> PipelineOptions:
    """Returns Beam's options: the project's defaults, and what the configuration says otherwise."""
    options: dict[str, Any] = {"save_main_session": False, **config.beam.options}
    if config.beam.on_one_machine and not config.beam.in_process:
        del options["direct_running_mode"]  # by which Beam would start workers in its own way
    if config.beam.ships_code and not options.keys() & _CODE:
        options["setup_file"] = str(_SETUP)
    if config.beam.runner == "DataflowRunner":
        options = _on_dataflow(options, choose_lanes(config), run_id)
    return PipelineOptions([], **options)


def _on_dataflow(options: dict[str, Any], lanes: Lanes, run_id: str) -> dict[str, Any]:
    """Returns options with what the run's limits call for, where nothing else is given."""
    experiments = [*_listed(options.get("experiments")), NO_SAMPLING]
    return {
        "job_name": re.sub(r"[^a-z0-9-]+", "-", f"mixpanel-backfill-{run_id}".lower()).rstrip("-"),
        "machine_type": MACHINE_TYPE,
        # As many from the first moment on: each lane has its part of the rate from the first moment on, too.
        "num_workers": lanes.workers,
        "max_num_workers": lanes.workers,
        **options,
        "experiments": list(dict.fromkeys(experiments)),
    }


def _listed(value: object) -> list[str]:
    return value.split(",") if isinstance(value, str) else list(value) if isinstance(value, list) else []
