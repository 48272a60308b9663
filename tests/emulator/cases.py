"""The documented cases of tests/data/error-cases.jsonl: expanding and sending them."""

import base64
import copy
import gzip
import json
import re
import time
import uuid
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from tests.emulator.talk import FORM, JSON, NDJSON, Reply, basic, call

CASES = Path(__file__).parent.parent / "data" / "error-cases.jsonl"
TABLE = "11111111-1111-4111-8111-111111111111"
BAD_BYTE = "@bad-byte@"


class Case(NamedTuple):
    """One case as the file has it."""

    case: str
    endpoint: str
    input: Any
    verdict: str
    field: str | None
    message_contains: str | None
    note: str

    @property
    def settings(self) -> dict[str, str]:
        """Returns the kind of project that the case is about."""
        if self.case.startswith("Original"):
            return {"identity": "original"}
        if "wrong service-account" in self.case or "service account without" in self.case:
            return {"service_accounts": "user:right"}
        if self.case == "track: unknown but well-formed token":
            return {"tokens": "ANOTHER_TOKEN"}
        if self.case == "ingestion rate exceeded":
            return {"rate_events": "2"}
        if self.case == "lookup: unknown table id":
            return {"lookup_tables": TABLE}
        return {}


def read_cases() -> list[Case]:
    """Returns all cases."""
    rows = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]
    names = [name for name in Case._fields if name != "note"]
    return [Case(**{name: row[name] for name in names}, note=row.get("note", "")) for row in rows]


def send_case(url: str, case: Case) -> Reply:
    """Returns the answer to a case's request."""
    method, rest = case.endpoint.split(" ", 1)
    path = rest.split(" (")[0].replace("{id}", TABLE).replace("project_id=...", "project_id=1")
    if path.startswith("/api/2.0/export"):
        query = urlencode(_expanded(case.input))
        return call(url, method, f"{path}?{query}", None, {"Authorization": basic("PROJECT_TOKEN")})
    if path.startswith("/lookup-tables"):
        return _send_table(url, case, method, path)
    return _send_records(url, case, method, path)


def _send_table(url: str, case: Case, method: str, path: str) -> Reply:
    path = path.replace(TABLE, case.input.get("id", TABLE))
    text = case.input["csv"]
    size = re.fullmatch(r"@\{bytes:(\d+)\}", text)
    body = b"id,f\n" + b"k" * (int(size[1]) - 5) if size else text.encode()
    headers = {"Content-Type": "text/csv", "Authorization": basic("user", "right")}
    return call(url, method, path, body, headers)


def _send_records(url: str, case: Case, method: str, path: str) -> Reply:
    headers = {"Authorization": _authorization(case)}
    records = _records(case)
    if case.case == "ingestion rate exceeded":
        records = [{"event": "e", "properties": {}}] * 3
    body = case.input["raw_line"].encode() if "raw_line" in case.input else _array(records)
    media_type = JSON
    if "x-ndjson" in case.endpoint and "raw_line" not in case.input:
        body, media_type = b"\n".join(_bytes(record) for record in records), NDJSON
    elif "raw_line" in case.input:
        media_type = NDJSON
    if "x-www-form-urlencoded" in case.endpoint:
        text = _array(records).decode()
        text = base64.b64encode(text.encode()).decode() if "base64" in case.case else text
        body, media_type = urlencode({"data": text}).encode(), FORM
    if "Content-Encoding: gzip" in case.endpoint:
        body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
    return call(url, method, path, body, {**headers, "Content-Type": media_type})


def _authorization(case: Case) -> str:
    kinds = {"basic wrong": basic("user", "wrong"), "basic service account": basic("user", "right")}
    return kinds.get(case.input.get("auth", ""), basic("PROJECT_TOKEN"))


def _records(case: Case) -> list[Any]:
    given = case.input
    if "batch" in given:
        return [_expanded(item) for item in given["batch"]]
    if "batch_of" in given:
        item = given.get("event") or given.get("profile")
        return [_expanded(copy.deepcopy(item)) for _ in range(given["batch_of"])]
    return [] if "rate" in given or "raw_line" in given else [_expanded(given)]


def _array(records: list[Any]) -> bytes:
    return b"[" + b",".join(_bytes(record) for record in records) + b"]"


def _bytes(record: Any) -> bytes:
    return json.dumps(record).encode().replace(BAD_BYTE.encode(), b"\xff")


def _expanded(value: Any) -> Any:
    if isinstance(value, dict):
        full = {_text(key): _expanded(item) for key, item in value.items() if key != "@{fill_props_to}"}
        wanted = value.get("@{fill_props_to}", 0)
        return {**full, **{f"filler{number}": number for number in range(wanted - len(full))}}
    if isinstance(value, list):
        return [_expanded(item) for item in value]
    return _text(value) if isinstance(value, str) else value


def _text(text: str) -> Any:
    match = re.fullmatch(r"@\{(.*)\}", text, re.DOTALL)
    if match is None:
        return text
    clock = re.fullmatch(r"now_(s|ms)([+-]\d+)", match[1])
    if clock:
        return int(time.time() * (1 if clock[1] == "s" else 1000)) + int(clock[2])
    word, *rest = match[1].split(":")
    if word == "tomorrow":
        return (datetime.now(timezone.utc) + timedelta(days=2)).date().isoformat()
    values: dict[str, Any] = {"uuid": str(uuid.uuid4()), "invalid_utf8": "bad" + BAD_BYTE}
    return values[word] if word in values else _generated(word, rest)


def _generated(word: str, rest: list[str]) -> Any:
    if word == "repeat":
        return rest[0] * int(rest[1])
    if word == "repeat_list":
        return [rest[0] * int(rest[1])] * int(rest[2])
    if word == "array":
        return [f"item{number}" for number in range(int(rest[0]))]
    if word == "object":
        return {f"key{number}": number for number in range(int(rest[0]))}
    raise ValueError(f"unknown placeholder {word}")
