"""Answers of /import as tests make them, and how they are read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mixpanel_http.answers import Answer, read_answer

SENT = 2000
IDS = [f"id-{i}" for i in range(SENT)]
GOOD = {"code": 200, "num_records_imported": SENT, "status": "OK"}


def answer(status: int, body: object, sent: int = SENT, ids: Sequence[str | None] = IDS) -> Answer:
    """Returns what an answer to a request of so many events means."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_answer(status, {}, content, sent, 0.0, lambda: ids)


def refusal(entries: object, imported: object, **more: Any) -> dict[str, Any]:
    """Returns a 400 that lists refused records."""
    error = "some data points in the request failed validation"
    return {
        "code": 400,
        "error": error,
        "status": "Bad Request",
        "num_records_imported": imported,
        "failed_records": entries,
        **more,
    }
