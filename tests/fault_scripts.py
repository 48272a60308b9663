"""Faults that the emulator is told to make, in tests of delivery."""

from __future__ import annotations

import json
from typing import Any

from mixpanel_emulator.process import EmulatorProcess

PATH = "/import"


def fault(do: dict[str, Any], **when: object) -> dict[str, Any]:
    return {"name": "the fault", "path": PATH, "do": do, "when": when}


def refusing(count: int) -> str:
    """Returns an answer that refuses every record of a request."""
    listed = [{"index": i, "field": "properties.region", "message": "unknown"} for i in range(count)]
    said = {"code": 400, "error": "not today", "num_records_imported": 0, "failed_records": listed}
    return json.dumps(said)


def happened(emulator: EmulatorProcess, name: str = "the fault") -> int:
    count: int = emulator.stats()["faults"][name]
    return count
