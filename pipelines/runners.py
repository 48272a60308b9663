"""Which Beam runner a run uses, and with what options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.runners.runner import PipelineRunner

from pipelines.config import Config


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
