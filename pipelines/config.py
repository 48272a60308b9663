"""The configuration of a run: its sections, which of their settings go together, and the rules they make."""

from __future__ import annotations

import re
from typing import Final

from pydantic import Field, field_validator, model_validator

from mixpanel_http.event_rules import EventRules
from mixpanel_http.identity_rules import IdentityRules
from mixpanel_http.insert_ids import InsertIdPolicy
from mixpanel_http.kinds import KINDS, Rules
from mixpanel_http.mixed_records import MixedRules
from mixpanel_http.profile_rules import ProfileRules
from mixpanel_http.retrying import RetryPolicy
from pipelines.config_beam import BeamConfig
from pipelines.config_destination import DestinationConfig
from pipelines.config_fields import CREDENTIALS_IN_URL, Amount, Name, Section, StorageOptions
from pipelines.config_limits import LimitsConfig
from pipelines.config_maps import MapConfig
from pipelines.config_records import RecordsConfig, check_records
from pipelines.config_source import Order, SourceConfig
from source_formats.opening import FormatChoice
from source_formats.row_lines import Shape

RUN_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}").fullmatch


class RunConfig(Section):
    """The run itself."""

    id: Name | None = Field(None, description="the run's name; made from the time if not given")
    state: str = Field(
        ".backfill", description="folder for ledger, dead letters, reports: a path, `s3://` or `gs://`"
    )
    storage_options: StorageOptions = Field(
        default_factory=dict, description="handed to fsspec for the state folder; secrets by reference"
    )
    lease_seconds: float = Field(
        90.0,
        gt=0,
        description="without a sign of life for so long, a start on another machine counts as gone",
    )
    stuck_after_seconds: float = Field(
        600.0,
        gt=0,
        description="without progress for so long, while nothing waits on purpose, the run is ended; "
        "a request alone may take 120",
    )
    allow_dead_letters: Amount = Field(
        0, description='count or "1%" of the records read; above it the exit code is 6'
    )
    max_errors: Amount | None = Field(
        None,
        description='count or "1%": above it the run stops with exit code 8; `null` stops at more than '
        "10,000 that are more than half of what was read, `100%` never",
    )

    @field_validator("id")
    @classmethod
    def _plain_name(cls, value: str | None) -> str | None:
        if value is not None and not RUN_ID(value):
            raise ValueError(
                "must be 1 to 100 letters, digits, dots, underscores or hyphens, the first no dot"
            )
        return value

    @field_validator("state")
    @classmethod
    def _known_scheme(cls, value: str) -> str:
        if "://" in value and value.split("://", 1)[0] not in ("s3", "gs", "file"):
            raise ValueError("must be a path, s3:// or gs://")
        if CREDENTIALS_IN_URL(value):
            raise ValueError("holds credentials; give them in storage_options, by reference")
        if not value.partition("://")[2 if "://" in value else 0].strip("/ "):
            raise ValueError("names no folder")
        return value


class Config(Section):
    """A run's configuration, as the YAML file has it."""

    source: SourceConfig
    records: RecordsConfig = Field(default_factory=RecordsConfig)
    destination: DestinationConfig
    limits: LimitsConfig = Field(default_factory=LimitsConfig)
    run: RunConfig = Field(default_factory=RunConfig)
    beam: BeamConfig = Field(default_factory=BeamConfig)

    @model_validator(mode="after")
    def _lanes_have_requests(self) -> Config:
        if self.limits.lanes is not None and self.limits.lanes > self.limits.in_flight:
            raise ValueError("limits.lanes must not be above limits.in_flight: each has a request at least")
        return self

    @model_validator(mode="after")
    def _workers_reach_everything(self) -> Config:
        if self.beam.on_one_machine:
            return self
        if "://" not in self.run.state or self.run.state.startswith("file:"):
            raise ValueError(
                f"run.state must be a folder that {self.beam.runner}'s workers reach: s3:// or gs://"
            )
        if self.destination.emulator:
            raise ValueError(f"destination.emulator runs on this machine only, not with {self.beam.runner}")
        return self

    @model_validator(mode="after")
    def _map_fits(self) -> Config:
        declared = self.records.map
        if declared is None:
            return self
        if self.records.kind != "events" and not declared.is_function_alone:
            raise ValueError(
                "records.map makes events: "
                f"with records.kind {self.records.kind} it may hold a function alone"
            )
        if declared.reads_lines and self.source.format not in ("ndjson", "dead_letters"):
            raise ValueError(
                f"records.map.dialect {declared.dialect} reads the lines itself; give source.format: ndjson"
            )
        return self

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Config:
        kind, credentials = KINDS[self.records.kind], self.destination.credentials
        if kind.in_order and self.source.order == "newest_first":
            raise ValueError(
                f"source.order must be oldest_first with records.kind {self.records.kind}: "
                "a later update is to win over an earlier one"
            )
        if kind.in_order and (self.limits.lanes or 1) > 1:
            raise ValueError(
                f"limits.lanes must be 1 with records.kind {self.records.kind}: updates keep their order"
            )
        check_records(self.records)
        if self.records.kind == "identity" and self.destination.identity == "simplified":
            raise ValueError(
                "records.kind identity needs destination.identity: original. A project with simplified "
                "identity refuses these records: put $device_id and $user_id into its events instead"
            )
        if kind.wants_token and credentials is not None and credentials.project_token is None:
            raise ValueError(
                f"records.kind {self.records.kind} needs destination.credentials.project_token: "
                "each record carries the project's token, for which a service account cannot do"
            )
        return self

    @property
    def destinations(self) -> list[DestinationConfig]:
        """Where the run sends to."""
        return [self.destination]

    @property
    def maps(self) -> list[MapConfig]:
        """The run's maps."""
        return [self.records.map] if self.records.map is not None else []

    @property
    def order(self) -> Order:
        """Which partition is sent first."""
        return self.source.order or ("oldest_first" if KINDS[self.records.kind].in_order else "newest_first")

    def rules(self) -> Rules:
        """Returns the rules for this run's records."""
        kind = self.records.kind
        if kind in ("profiles", "groups"):
            return self.profile_rules(groups=kind == "groups")
        identity = IdentityRules(self.destination.identity)
        if kind == "identity":
            return identity
        events = self.event_rules()
        if kind != "mixed":
            return events
        users, groups = self.profile_rules(groups=False), self.profile_rules(groups=True)
        return MixedRules(events, users, groups, identity)

    def profile_rules(self, *, groups: bool) -> ProfileRules:
        """Returns the rules for this run's updates of profiles of users, or of groups."""
        records = self.records
        return ProfileRules(
            groups,
            records.id_field,
            records.operation,
            records.group_key,
            records.default_ip is not None,
            records.ignore_time,
        )

    def format_choice(self) -> FormatChoice:
        """Returns how files are read; dead letters are lines, and rows are events where nothing maps them."""
        shape: Shape = "events" if self.records.kind == "events" and self.records.map is None else "rows"
        name = "ndjson" if self.source.format == "dead_letters" else self.source.format
        keeps_rows = self.records.insert_id.identical_rows == "keep"
        return FormatChoice(name, self.source.csv.to_layout(shape), keeps_rows)

    def event_rules(self) -> EventRules:
        """Returns the rules for this run's events."""
        policy = self.records.insert_id
        return EventRules(
            InsertIdPolicy(policy.mode, tuple(policy.fields), policy.identical_rows),
            self.destination.identity,
            self.records.default_ip is not None,
        )

    def retry_policy(self) -> RetryPolicy:
        """Returns how this run repeats requests."""
        retry = self.limits.retry
        return RetryPolicy(retry.first_wait_seconds, retry.longest_wait_seconds, retry.give_up_after_seconds)
