"""The section `records.map.personal_data`: what is hashed or removed before it is sent."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mixpanel_http.secret_refs import SecretRef
from pipelines.config_fields import Reference, Section
from record_maps.spec import PersonalData, Traits


class TraitsConfig(Section):
    """What personal data is told by."""

    keys: list[str] = Field(default_factory=list, description="names of properties, globs, in any case")
    patterns: list[Literal["email", "ip", "phone", "card"]] = Field(
        default_factory=list, description="what is found anywhere in texts"
    )

    def to_traits(self) -> Traits:
        """Returns the same for the map."""
        return Traits(tuple(self.keys), tuple(self.patterns))


class PersonalDataConfig(Section):
    """What becomes of personal data."""

    hash: TraitsConfig = Field(default_factory=TraitsConfig, description="replaced by a salted hash")
    remove: TraitsConfig = Field(default_factory=TraitsConfig, description="removed")
    salt: Reference | None = Field(None, description="reference to the secret salt, for `hash`")

    @model_validator(mode="after")
    def _salted(self) -> PersonalDataConfig:
        if bool(self.hash.keys or self.hash.patterns) != (self.salt is not None):
            raise ValueError("hash and salt go together: without a secret salt, values can be tried out")
        return self

    def to_personal_data(self) -> PersonalData:
        """Returns the same for the map."""
        salt = SecretRef(self.salt) if self.salt is not None else None
        return PersonalData(self.hash.to_traits(), self.remove.to_traits(), salt)
