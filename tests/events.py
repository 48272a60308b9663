"""Events for tests of rules and steps: an ordinary one, with whatever a test changes in it."""

import json
from typing import Any, Final

NOW: Final = 1_750_000_000.0
GIVEN_ID: Final = "29fc2962-6d9c-455d-95ad-95b84f09b9e4"
GONE: Final = object()


def properties(**changes: Any) -> dict[str, Any]:
    """Returns properties that no rule changes or refuses, apart from the changes; `GONE` leaves one out."""
    ordinary = {"time": 1_700_000_000, "distinct_id": "user-1", "$insert_id": GIVEN_ID, "ip": "136.24.0.114"}
    return {name: value for name, value in (ordinary | changes).items() if value is not GONE}


def event(**changes: Any) -> dict[str, Any]:
    """Returns an ordinary event, with changes to its properties."""
    return {"event": "Signup", "properties": properties(**changes)}


def line(record: Any) -> bytes:
    """Returns a record as one line of compact JSON, without the newline."""
    return json.dumps(record, separators=(",", ":")).encode()


def tokens(record: bytes) -> Any:
    """Returns a record's content, each number as it is spelled; of a key given twice the last counts."""
    return json.loads(record, parse_int=lambda t: f"int {t}", parse_float=lambda t: f"float {t}")
