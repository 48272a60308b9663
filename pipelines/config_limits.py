"""The section `limits` of the configuration: how much at once, how fast, how patiently."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mixpanel_http import limits
from pipelines.config_fields import Section


class RetryConfig(Section):
    """How patiently a request is repeated."""

    first_wait_seconds: float = Field(
        2.0, gt=0, description="the longest first wait; the bound doubles with each try"
    )
    longest_wait_seconds: float = Field(
        60.0, gt=0, description="no wait is longer, unless the service asks for it"
    )
    give_up_after_seconds: float = Field(
        900.0, gt=0, description="then the request is undelivered and the run goes on"
    )
    non_idempotent: Literal["list", "retry"] = Field(
        "list",
        description="`$add` and `$append` that may have got through: list them as ambiguous, or repeat them",
    )


class LimitsConfig(Section):
    """How much at once and how fast."""

    records_per_request: int = Field(
        limits.MAX_RECORDS_PER_REQUEST, ge=1, le=limits.MAX_RECORDS_PER_REQUEST, description="records"
    )
    bytes_per_request: int = Field(
        9_800_000,
        ge=10_000,
        le=limits.MAX_REQUEST_BYTES,
        description="bytes, uncompressed; a 413 teaches a lower one",
    )
    events_per_second: float = Field(
        limits.EVENTS_PER_SECOND, gt=0, description="events a second, over the whole run"
    )
    bytes_per_minute: float = Field(limits.BYTES_PER_MINUTE, gt=0, description="uncompressed bytes a minute")
    in_flight: int = Field(16, ge=1, le=256, description="requests at once, over the whole run")
    lanes: int | None = Field(
        None, ge=1, le=256, description="parts in which work and limits are shared by workers; see scale.md"
    )
    retry: RetryConfig = Field(default_factory=RetryConfig, description="see below")
