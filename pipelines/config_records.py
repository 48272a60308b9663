"""The section `records` of the configuration: what the records are and how they are made fit."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mixpanel_http.insert_ids import InsertIdMode, InsertIdPolicy
from mixpanel_http.kinds import KindName
from mixpanel_http.profile_rules import ONLY_OF_USERS, Operation
from pipelines.config_fields import Name, Section
from pipelines.config_maps import MapConfig
from transforms.duplicate_keys import DuplicateKeys


class InsertIdConfig(Section):
    """How records without a valid `$insert_id` get one."""

    mode: InsertIdMode = Field("content", description="what the id is made from")
    fields: list[str] = Field(default_factory=list, description="property names, for `mode: fields`")
    identical_rows: Literal["merge", "keep"] = Field(
        "merge",
        description="`merge`: identical rows are one event; `keep`: file and offset make each its own",
    )

    @model_validator(mode="after")
    def _consistent(self) -> InsertIdConfig:
        InsertIdPolicy(self.mode, tuple(self.fields), self.identical_rows)
        return self


class RecordsConfig(Section):
    """What the records are and how they are made fit."""

    kind: KindName = Field(
        "events",
        description="what is imported: events, updates of user or group profiles, identity records, records "
        "that say it themselves, or lookup tables (CSV)",
    )
    map: MapConfig | None = Field(
        None, description="how records of another shape become Mixpanel's; see below"
    )
    insert_id: InsertIdConfig = Field(default_factory=InsertIdConfig, description="see below")
    duplicate_keys: DuplicateKeys = Field(
        "last",
        description="objects with the same key twice: `last`: rules, ids and maps take the last, and what "
        "needs no change is sent as it stands; `refuse`: a dead letter",
    )
    default_ip: Literal[0] | None = Field(
        0,
        description="`ip` for events and `$ip` for user profiles without one, else they are located where "
        "this runs; `null`: leave them",
    )
    operation: Operation = Field("$set", description="what a flat row does to its profile")
    id_field: str | None = Field(
        None,
        description="the field of a flat row that holds the profile's id; `null`: records are operations",
    )
    group_key: str | None = Field(None, description="the kind of group, for records without `$group_key`")
    order_by: Name | None = Field(
        None,
        description="the field of each record that holds the time by which updates are ordered, such as "
        "`$time`; `null`: the order of the input",
    )
    collapse: bool = Field(
        False,
        description="send one update of a profile in place of several, where that leaves the same profile",
    )
    ignore_time: bool = Field(
        True,
        description="leave `$last_seen` as it is: stamp `$ignore_time` on updates of users without it",
    )
    tables: dict[str, Name] = Field(
        default_factory=dict,
        description="ids of lookup tables by patterns of file names; without any, a file is named by its id",
    )


def check_records(records: RecordsConfig) -> None:
    """Refuses settings that the kind of records knows nothing of."""
    if records.collapse and records.kind not in ("profiles", "groups", "mixed"):
        raise ValueError(f"records.collapse goes with updates of profiles, not with kind {records.kind}")
    if records.kind not in ("profiles", "groups") and records.order_by is not None:
        raise ValueError(f"records.order_by goes with kind profiles or groups, not with {records.kind}")
    if records.kind not in ("profiles", "groups") and records.id_field is not None:
        raise ValueError(f"records.id_field goes with kind profiles or groups, not with {records.kind}")
    if records.id_field is None and records.operation != "$set":
        raise ValueError("records.operation is what a flat row does, and needs records.id_field")
    if records.kind == "groups" and records.operation in ONLY_OF_USERS:
        raise ValueError(f"records.operation {records.operation} is not supported in group profiles")
    if records.kind == "lookup_tables" and records.map is not None:
        raise ValueError("records.map does not go with kind lookup_tables: a table is sent as it stands")
    if records.kind != "lookup_tables" and records.tables:
        raise ValueError(f"records.tables goes with kind lookup_tables, not with {records.kind}")
