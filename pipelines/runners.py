"""Which Beam runner a run uses, and with what options."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterator, Sequence
from typing import Any, Final

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.runners.runner import PipelineRunner

from pipelines.config import Config

OWN_OPTIONS: Final = ("--config", "--resume", "--allow-new", "--dry-run", "--set", "--log-format", "--json")


def unknown_options(config: Config, beam_args: Sequence[str]) -> list[tuple[str, str]]:
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
    return FnApiRunner() if config.beam.runner == "DirectRunner" else config.beam.runner


def pipeline_options(config: Config, beam_args: Sequence[str] = ()) -> PipelineOptions:
    """Returns Beam's options: those of the configuration, then those of the command line."""
    options: dict[str, Any] = {"save_main_session": False, **config.beam.options}
    return PipelineOptions(list(beam_args), **options)
