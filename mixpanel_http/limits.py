"""Mixpanel's published limits, each with its source beside it.

Sources are pages below https://docs.mixpanel.com: IMP = /reference/import-events, DT =
/docs/data-structure/property-reference/data-type, E413 = /troubleshooting/errors/413-payload-too-large,
EVP = /docs/data-structure/events-and-properties, UP = /docs/data-structure/user-profiles, UPL and GRL =
/reference/user-profile-limits and /reference/group-profile-limits.
"""

from __future__ import annotations

from typing import Final

MAX_RECORDS_PER_REQUEST: Final = 2000  # IMP, E413
MAX_REQUEST_BYTES: Final = 10_000_000  # IMP: 10MB, uncompressed; older samples say 2 MiB, a 413 tells
MAX_RECORD_BYTES: Final = 1_000_000  # IMP: one event below 1MB of uncompressed JSON

PROPERTIES_LIMIT: Final = 255  # IMP: "fewer than 255" properties, keys of a nested object, array elements
MAX_NESTING: Final = 3  # IMP: containers inside one property value; deeper is refused
MAX_STRING: Final = 255  # IMP: longer strings are cut by the service without an error
MAX_INSERT_ID_BYTES: Final = 36  # IMP: letters, digits and hyphen

MIN_TIME_S: Final = 31_536_000  # IMP: 1971-01-01T00:00:00Z
MAX_FUTURE_S: Final = 3600  # IMP: more than an hour ahead of Mixpanel's clock is refused
# IMP takes seconds and milliseconds and does not say how it tells them apart. By size: as seconds, this is
# the year 5138; as milliseconds, 1973-03-03.
MIN_TIME_MS: Final = 100_000_000_000

# IMP, the complete list; it holds for distinct_id and $insert_id. Compared without regard to letter case, as
# Mixpanel's own importer says ingestion does.
DISALLOWED_IDS: Final = frozenset(
    {
        "00000000-0000-0000-0000-000000000000",
        "anon",
        "anonymous",
        "nil",
        "none",
        "null",
        "n/a",
        "na",
        "undefined",
        "unknown",
        "<nil>",
        "0",
        "-1",
        "true",
        "false",
        "[]",
        "{}",
    }
)

# /docs/tracking-methods/id-management: verbs of the Original identity model.
IDENTITY_EVENTS: Final = frozenset({"$identify", "$create_alias", "$merge"})

EVENTS_PER_SECOND: Final = 30_000  # IMP: about, over a rolling minute, per project
BYTES_PER_MINUTE: Final = 2_000_000_000  # IMP: uncompressed JSON, rolling minute, per project
# /docs/tracking-methods/id-management/identifying-users-original: ids of one user, in original projects.
MAX_CLUSTER_IDS: Final = 500

MAX_UPDATES_PER_REQUEST: Final = 2000  # UPL, GRL
GROUPS_PER_REQUEST: Final = 200  # a remark in a bulk importer by a Mixpanel engineer: what /groups takes well
MAX_UPDATE_BYTES: Final = 1_000_000  # UPL, GRL: 1MB per update
MAX_PROFILE_PROPERTIES: Final = 2000  # UP: more in one profile fail
MAX_PROFILE_VALUE_BYTES: Final = 256_000  # DT: list and object values, 256KB
