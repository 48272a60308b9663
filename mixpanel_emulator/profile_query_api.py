"""/api/query/engage: profiles, page by page."""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any
from uuid import uuid4

import orjson
from starlette.requests import Request
from starlette.responses import Response

from mixpanel_emulator import answers
from mixpanel_emulator.bodies import BodyMalformedError, form_data
from mixpanel_emulator.expressions import Subject, compile_expression
from mixpanel_emulator.limiter import QuotaWindow
from mixpanel_emulator.query_api import query_error, refuse
from mixpanel_emulator.settings import Settings
from mixpanel_emulator.store import Store
from mixpanel_emulator.wire import is_form, query, respond, whole_number

PAGE = 1000  # OAI-QRY
MAX_PAGE = 10**9


class ProfileQueryApi:
    """The endpoint, in all the ways in which it is called (ENGQ, HL, UTILS)."""

    def __init__(self, settings: Settings, store: Store, quota: QuotaWindow) -> None:
        """Makes the endpoint over a store; the quota is that of all queries."""
        self._settings = settings
        self._store = store
        self._quota = quota

    async def ask(self, request: Request) -> Response:
        """Answers GET and POST with parameters in the query, a form or a JSON body."""
        try:
            given = {**request.query_params, **await _body_fields(request)}
        except BodyMalformedError as problem:
            return respond(query_error(request, 400, str(problem)))
        # Pages of one answer are one query; else a thousand profiles would use up the hour.
        refusal = refuse(request, self._settings, _FREE if given.get("session_id") else self._quota)
        if refusal:
            return respond(refusal)
        try:
            return respond(answers.as_json(200, await query(self._page, given)))
        except ValueError as problem:
            return respond(query_error(request, 400, str(problem)))

    def _page(self, given: Mapping[str, Any]) -> dict[str, Any]:
        page = whole_number(given, "page", 0, MAX_PAGE)
        session = given.get("session_id")
        if page > 0 and not session:
            raise ValueError("session_id is required for page > 0")
        found = self._found(given)
        return {
            "page": page,
            "page_size": PAGE,
            "results": found[page * PAGE : (page + 1) * PAGE],
            "session_id": session or uuid4().hex,
            "status": "ok",
            "total": len(found),
        }

    def _found(self, given: Mapping[str, Any]) -> list[dict[str, Any]]:
        where = compile_expression(str(given["where"])) if given.get("where") else None
        wanted = _ids(given)
        outputs = _listed(given.get("output_properties"))
        found = []
        for profile, properties in self._profiles(str(given.get("data_group_id") or "")):
            if wanted is not None and profile not in wanted:
                continue
            if where is not None and not where(Subject(properties, {})):
                continue
            kept = (
                properties
                if outputs is None
                else {key: properties[key] for key in outputs if key in properties}
            )
            found.append({"$distinct_id": profile, "$properties": kept})
        return found

    def _profiles(self, group: str) -> list[tuple[str, dict[str, Any]]]:
        keys = [row[0] for row in self._store.rows("SELECT DISTINCT group_key FROM profile")]
        key = next((key for key in keys if key and group in (key, data_group_id(key))), group)
        rows = self._store.rows("SELECT id, properties FROM profile WHERE group_key = ? ORDER BY id", (key,))
        return [(profile, orjson.loads(properties)) for profile, properties in rows]


def data_group_id(group_key: str) -> str:
    """Returns the number by which group profiles are asked for; 19 digits, but made from the key."""
    number = int.from_bytes(blake2b(group_key.encode(), digest_size=8).digest(), "big")
    return str(10**18 + number % (8 * 10**18))


_FREE = QuotaWindow(0)


async def _body_fields(request: Request) -> dict[str, Any]:
    body = await request.body()
    if not body.strip():
        return {}
    if is_form(request):
        return dict(form_data(body))
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BodyMalformedError("request body is not valid JSON") from error
    if not isinstance(fields, dict):
        raise BodyMalformedError("request body must be a JSON object")
    return fields


def _ids(given: Mapping[str, Any]) -> set[str] | None:
    ids = _listed(given.get("distinct_ids"))
    if ids is None and given.get("distinct_id"):
        return {str(given["distinct_id"])}
    return None if ids is None else set(ids)


def _listed(value: Any) -> list[str] | None:
    if value is None or value == "":
        return None
    items = orjson.loads(value) if isinstance(value, str) else value
    if not isinstance(items, list):
        raise ValueError("expected a JSON array")
    return [str(item) for item in items]
