"""Running a single step in process, and reading what it shows of its settings."""

from typing import Any

from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.transforms.display import DisplayData, HasDisplayData


def step_pipeline() -> TestPipeline:
    """Returns a pipeline for a test's steps, run when its `with` ends."""
    return TestPipeline(runner=FnApiRunner())


def shown_settings(step: HasDisplayData) -> dict[str, Any]:
    """Returns a step's display data."""
    return {item.key: item.value for item in DisplayData.create_from(step).items}
