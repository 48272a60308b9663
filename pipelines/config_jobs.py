"""The configuration of a run of several jobs: what each has of its own, and what all share."""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from pipelines.config import RUN_ID, Config, RunConfig
from pipelines.config_beam import BeamConfig
from pipelines.config_destination import DestinationConfig
from pipelines.config_fields import Name, Section
from pipelines.config_limits import LimitsConfig
from pipelines.config_maps import MapConfig
from pipelines.config_records import RecordsConfig
from pipelines.config_source import SourceConfig

_DAYS: Final = re.compile(r"([1-9][0-9]{0,4})d").fullmatch
_FILES: Final = (".json", ".db")
# What recent_first makes of an events job: its recent days, then the rest.
RECENT: Final = "recent"
HISTORY: Final = "history"


def _days(value: object) -> object:
    if not isinstance(value, str) or not _DAYS(value):
        raise ValueError("must be a number of days, like 30d")
    return value


Days = Annotated[str, BeforeValidator(_days)]


class JobConfig(Section):
    """One job of several."""

    name: Name = Field(description="the job's folder in the run's, and its name in the report")
    source: SourceConfig = Field(description="what is read")
    records: RecordsConfig = Field(default_factory=RecordsConfig, description="what the records are")
    destination: DestinationConfig | None = Field(None, description="in place of the shared one")
    limits: LimitsConfig | None = Field(None, description="in place of the shared ones")
    recent_first: Days | None = Field(
        None, description="like `30d`: the newest days there are go first, then the rest; needs `{date}`"
    )

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not RUN_ID(value):
            raise ValueError("must be letters, digits, dots, underscores or hyphens, the first no dot")
        if value.endswith(_FILES):
            raise ValueError(f"must not end with {' or '.join(_FILES)}, as files of the run's folder do")
        return value

    @model_validator(mode="after")
    def _recent_by_date(self) -> JobConfig:
        if self.recent_first is None:
            return self
        if self.records.kind != "events":
            raise ValueError("recent_first is for events: of anything else the order is the input's")
        if not all("{date}" in uri for uri in self.source.uris):
            raise ValueError("recent_first needs {date} in every uri")
        return self

    @property
    def recent(self) -> dt.timedelta | None:
        """How many days go first."""
        return dt.timedelta(days=int(self.recent_first[:-1])) if self.recent_first else None

    @property
    def stage_names(self) -> list[str]:
        """The names that this job's stages have, of which some may have nothing to do."""
        return [f"{self.name}-{RECENT}", f"{self.name}-{HISTORY}"] if self.recent_first else [self.name]


class JobsConfig(Section):
    """A run of several jobs, one after the other, as the YAML file has it."""

    jobs: list[JobConfig] = Field(min_length=1)
    destination: DestinationConfig
    limits: LimitsConfig = Field(default_factory=LimitsConfig)
    run: RunConfig = Field(default_factory=RunConfig)
    beam: BeamConfig = Field(default_factory=BeamConfig)

    @model_validator(mode="before")
    @classmethod
    def _sections_have_one_place(cls, values: Any) -> Any:
        for name in ("source", "records"):
            if isinstance(values, dict) and name in values:
                raise ValueError(f"{name}: each of the jobs has its own; move it there, or leave jobs out")
        return values

    @model_validator(mode="after")
    def _names_differ(self) -> JobsConfig:
        names = Counter(name for job in self.jobs for name in job.stage_names)
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise ValueError(f"jobs: the name {twice[0]} stands twice")
        return self

    @model_validator(mode="after")
    def _each_could_run_alone(self) -> JobsConfig:
        problems = []
        for index, job in enumerate(self.jobs):
            try:
                self.config_of(job)
            except ValidationError as error:
                said = (detail["msg"].removeprefix("Value error, ") for detail in error.errors())
                problems += [f"jobs.{index}: {words}" for words in said]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def destinations(self) -> list[DestinationConfig]:
        """Where the jobs send to."""
        return [job.destination or self.destination for job in self.jobs]

    @property
    def maps(self) -> list[MapConfig]:
        """The jobs' maps."""
        return [job.records.map for job in self.jobs if job.records.map is not None]

    def config_of(self, job: JobConfig) -> Config:
        """Returns the configuration that a job would have if it were alone."""
        return Config(
            source=job.source,
            records=job.records,
            destination=job.destination or self.destination,
            limits=job.limits or self.limits,
            run=self.run,
            beam=self.beam,
        )
