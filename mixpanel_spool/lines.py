"""What a spool file holds: a line `[endpoint, message]` for each message of the SDK."""

from __future__ import annotations

import json
from typing import Any, Final

ENDPOINTS: Final = frozenset({"events", "people", "groups", "imports"})  # those of the SDK's consumers


def spool_lines(endpoint: str, json_message: str, *, keep_token: bool = False) -> list[bytes]:
    r"""Returns the lines of a message, or of a list of them, without the project's token unless it is kept.

    >>> spool_lines("people", '{"$token": "secret", "$distinct_id": "u", "$set": {"a": 1}}')
    [b'["people",{"$distinct_id":"u","$set":{"a":1}}]\n']

    Raises:
        ValueError: if there is no such endpoint, or the message is no JSON object.
    """
    if endpoint not in ENDPOINTS:
        raise ValueError(f"no endpoint {endpoint!r}; there are {', '.join(sorted(ENDPOINTS))}")
    try:
        given = json.loads(json_message)
    except ValueError:
        raise ValueError("the message is no JSON") from None
    messages = given if isinstance(given, list) else [given]
    return [_line(endpoint, message if keep_token else _without_token(message)) for message in messages]


def _line(endpoint: str, message: object) -> bytes:
    if not isinstance(message, dict):
        raise ValueError("the message is no JSON object")
    return json.dumps([endpoint, message], separators=(",", ":")).encode("ascii") + b"\n"


def _without_token(message: Any) -> Any:
    if not isinstance(message, dict):
        return message
    message.pop("$token", None)
    properties = message.get("properties")
    if isinstance(properties, dict):
        properties.pop("token", None)
    return message
