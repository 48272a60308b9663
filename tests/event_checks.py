"""What the rules say of one event."""

import json
from typing import Any

import pytest

from mixpanel_http.event_rules import Accepted, EventRules, check_event
from mixpanel_http.verdicts import RecordRefused
from tests.events import NOW


def check(record: bytes, **rules: Any) -> Accepted:
    return check_event(record, EventRules(**rules), NOW)


def refusal(record: bytes, **rules: Any) -> RecordRefused:
    with pytest.raises(RecordRefused) as refused:
        check(record, **rules)
    return refused.value


def sent_properties(record: bytes, **rules: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(check(record, **rules).line)["properties"]
    return found
