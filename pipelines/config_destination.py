"""The section `destination` of the configuration: where the records go, and as whom."""

from __future__ import annotations

from typing import Final

from pydantic import Field, field_validator, model_validator

from mixpanel_http.destinations import HOSTS, Destination, Region, check_endpoint
from mixpanel_http.event_rules import IdentityModel
from mixpanel_http.secret_refs import SecretRef
from pipelines.config_fields import Name, Reference, Section

EMULATOR_TOKEN: Final = "BACKFILL_EMULATOR_TOKEN"  # a variable; any token will do


class ServiceAccountConfig(Section):
    """A service account with the role of an owner or admin in the project."""

    username: Reference = Field(description="reference to the user name")
    secret: Reference = Field(description="reference to the secret")


class CredentialsConfig(Section):
    """Who sends: a project token, or a service account."""

    project_token: Reference | None = Field(None, description="reference to the project's token")
    service_account: ServiceAccountConfig | None = Field(
        None, description="instead of a token; needs `project_id`"
    )
    project_id: Name | None = Field(None, description="the project's number")

    @model_validator(mode="after")
    def _one_of_them(self) -> CredentialsConfig:
        if (self.project_token is None) == (self.service_account is None):
            raise ValueError("give either project_token or service_account")
        if self.service_account is not None and not self.project_id:
            raise ValueError("service_account needs project_id")
        return self


class DestinationConfig(Section):
    """Where the records go."""

    emulator: bool = Field(False, description="start a local Mixpanel for this run and import into it")
    region: Region = Field("us", description="where the project's data lives")
    endpoint: str | None = Field(None, description="another host instead of the region's")
    allow_any_endpoint: bool = Field(
        False, description="allow a host that is neither Mixpanel's nor this machine"
    )
    identity: IdentityModel = Field(
        "simplified", description="the project's identity model (project settings, identity merge)"
    )
    credentials: CredentialsConfig | None = Field(None, description="see below; not needed with `emulator`")

    @model_validator(mode="after")
    def _consistent(self) -> DestinationConfig:
        if self.emulator and self.endpoint:
            raise ValueError("emulator and endpoint exclude each other")
        if not self.emulator and self.credentials is None:
            raise ValueError("credentials are needed, unless emulator is true")
        if self.endpoint is not None:
            check_endpoint(self.endpoint, self.allow_any_endpoint)
        return self

    @field_validator("endpoint")
    @classmethod
    def _looks_like_a_host(cls, value: str | None) -> str | None:
        if value is not None:
            check_endpoint(value, allow_any=True)
        return value

    def to_destination(self, emulator_url: str | None = None) -> Destination:
        """Returns where to send.

        Raises:
            EndpointRefused: if records must not go there.
        """
        if emulator_url is not None:
            return Destination(emulator_url, SecretRef(f"env:{EMULATOR_TOKEN}"))
        assert self.credentials is not None
        base = check_endpoint(self.endpoint or HOSTS[self.region], self.allow_any_endpoint)
        account = self.credentials.service_account
        return Destination(
            base,
            SecretRef(self.credentials.project_token) if self.credentials.project_token else None,
            SecretRef(account.username) if account else None,
            SecretRef(account.secret) if account else None,
            self.credentials.project_id,
        )
