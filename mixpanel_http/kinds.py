"""The kinds of records that a run imports, and what differs between them: one small value each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeAlias

from mixpanel_http.endpoints import EVENTS, GROUPS, PEOPLE, Endpoint
from mixpanel_http.event_blocks import prepare_events
from mixpanel_http.event_rules import EventRules, Place
from mixpanel_http.identity_rules import IdentityRules, PrepareIdentity
from mixpanel_http.mixed_records import MixedRules, PrepareMixed
from mixpanel_http.prepared import PreparedRecords
from mixpanel_http.profile_blocks import prepare_updates
from mixpanel_http.profile_rules import ProfileRules

KindName = Literal["events", "profiles", "groups", "identity", "mixed", "lookup_tables"]
Rules: TypeAlias = EventRules | ProfileRules | IdentityRules | MixedRules


class PrepareBlock(Protocol):
    """What makes a block's records fit for Mixpanel, by the rules of their kind."""

    def __call__(
        self, raw: bytes, rules: Any, now_s: float, place: Callable[[int], Place] | None = None, /
    ) -> PreparedRecords:
        """Returns a block's records ready to be sent; the arguments are those of `prepare_events`."""
        ...


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of records.

    Attributes:
        prepare: makes a block's records fit, by the kind's rules; None where there are no blocks.
        in_order: whether what is sent later may overwrite what is sent before, so that the order counts.
        endpoint: where all of them go; None where there are several, or another for each.
        wants_token: whether the project's token stands in each record, so that a service account cannot do.
    """

    prepare: PrepareBlock | None
    in_order: bool = False
    endpoint: Endpoint | None = None
    wants_token: bool = False


KINDS: Final[dict[KindName, Kind]] = {
    "events": Kind(prepare_events, endpoint=EVENTS),
    "profiles": Kind(prepare_updates, in_order=True, endpoint=PEOPLE, wants_token=True),
    "groups": Kind(prepare_updates, in_order=True, endpoint=GROUPS, wants_token=True),
    "identity": Kind(PrepareIdentity(), in_order=True, endpoint=EVENTS),
    "mixed": Kind(PrepareMixed(), in_order=True, wants_token=True),
    "lookup_tables": Kind(None),
}
