"""The section `beam` of a configuration: which engine runs the pipeline, and what is known of each."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, field_validator

from pipelines.config_fields import Section, secret_options

# Runners that lose data without a word, or that nobody has held this pipeline against.
_REFUSED: Final = {
    "DaskRunner": "loses data in silence: it drops what a step yields at the end of a bundle, computes only "
    "the last branch, and mixes up outputs",
    "BundleBasedDirectRunner": "cannot run all steps, and repeats bundles that fail as a whole; DirectRunner "
    "is Beam's in-process runner here",
    "SwitchingDirectRunner": "downloads another runner, and runs the pipeline a second time where that "
    "fails; DirectRunner is Beam's in-process runner here",
    "PrismRunner": "downloads a program without a checksum, and the pipeline is not tested on it",
    "InteractiveRunner": "keeps every record that passes",
    "RayRunner": "is not tested",
    "FnApiRunner": "is what DirectRunner means here: write DirectRunner",
}


def _runner(value: object) -> object:
    """Refuses runners by name, with the reason; a module's path before a name changes nothing."""
    name = str(value).rpartition(".")[2]
    for refused, reason in _REFUSED.items():
        if name.lower() in (refused.lower(), refused.removesuffix("Runner").lower()):
            raise ValueError(f"{refused} is refused: it {reason}")
    return name


# Of Beam's FnApiRunner; any other word would count as the first without a word.
_MODES: Final = ("in_memory", "multi_threading", "multi_processing")


Runner = Annotated[
    Literal["DirectRunner", "DataflowRunner", "PortableRunner", "FlinkRunner", "SparkRunner"],
    BeforeValidator(_runner),
]


class BeamConfig(Section):
    """The engine."""

    runner: Runner = Field("DirectRunner", description="`DirectRunner` is Beam's in-process runner")
    options: dict[str, Any] = Field(
        default_factory=dict, description="Beam pipeline options, as Beam names them"
    )

    @property
    def on_one_machine(self) -> bool:
        """True if all work is done on the launcher's machine."""
        return self.runner == "DirectRunner"

    @property
    def in_process(self) -> bool:
        """True if the launcher does the work itself."""
        return self.on_one_machine and self.options.get("direct_running_mode") != "multi_processing"

    @property
    def ships_code(self) -> bool:
        """True if workers have to be sent the project."""
        return not self.on_one_machine and self.options.get("environment_type") != "LOOPBACK"

    @property
    def replaces_workers(self) -> bool:
        """True if the runner itself replaces workers that are lost, or ends the job."""
        return self.runner not in ("DirectRunner", "PortableRunner")

    @field_validator("options")
    @classmethod
    def _public(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key in secret_options(value):
            raise ValueError(f"{key}: pipeline options are public; give secrets where workers resolve them")
        if "runner" in value:
            raise ValueError("runner: give it as beam.runner")
        return value

    @field_validator("options")
    @classmethod
    def _at_once(cls, value: dict[str, Any]) -> dict[str, Any]:
        workers, mode = value.get("direct_num_workers", 1), value.get("direct_running_mode", _MODES[0])
        if type(workers) is not int or workers < 0:
            raise ValueError("direct_num_workers: must be a whole number; 0 stands for the number of cores")
        if mode not in _MODES:
            raise ValueError(f"direct_running_mode: must be one of {', '.join(_MODES)}")
        return value
