"""The dialects there are, by name."""

from __future__ import annotations

from typing import Final

from record_maps.dialects import (
    amplitude,
    flat,
    ga4,
    heap,
    mixpanel,
    mparticle,
    posthog,
    segment,
    snowplow,
)
from record_maps.spec import Dialect

_MODULES: Final = (amplitude, flat, ga4, heap, mixpanel, mparticle, posthog, segment, snowplow)
DIALECTS: Final[dict[str, Dialect]] = {module.DIALECT.name: module.DIALECT for module in _MODULES}
