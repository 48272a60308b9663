"""The dialects there are, by name."""

from __future__ import annotations

from typing import Final

from record_maps.dialects import flat
from record_maps.spec import Dialect

DIALECTS: Final[dict[str, Dialect]] = {dialect.name: dialect for dialect in (flat.DIALECT,)}
