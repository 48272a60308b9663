"""/api/app/projects/{id}/schemas: the Lexicon's definitions of events and profile properties."""

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from mixpanel_emulator import answers
from mixpanel_emulator.access import may_import, read_credentials
from mixpanel_emulator.answers import Answer
from mixpanel_emulator.settings import Settings
from mixpanel_emulator.store import Store
from mixpanel_emulator.wire import query, respond

TYPES = ("event", "profile", "group", "lookup")
METADATA = "com.mixpanel"


class LexiconApi:
    """The endpoints (OAI-LEX)."""

    def __init__(self, settings: Settings, store: Store) -> None:
        """Makes the endpoints over a store."""
        self._settings = settings
        self._store = store

    async def answer(self, request: Request) -> Response:
        """Answers GET, POST, PATCH and DELETE on all schemas, those of a type, and a single one."""
        credentials = read_credentials(request.headers.get("authorization", ""))
        project = {"project_id": request.path_params["project"]}
        if not may_import(self._settings, credentials, project):
            return respond(answers.as_json(401, {"error": answers.INVALID_CREDENTIALS, "status": "error"}))
        kind, name = request.path_params.get("type"), request.path_params.get("name")
        name = name or request.query_params.get("entity_name")
        if kind is not None and kind not in TYPES:
            return respond(_error(400, f"entity type must be one of {', '.join(TYPES)}"))
        try:
            return respond(await query(self._act, request.method, kind, name, await request.body()))
        except ValueError as problem:
            return respond(_error(400, str(problem)))

    def _act(self, method: str, kind: str | None, name: str | None, body: bytes) -> Answer:
        if method == "GET":
            return self._list(kind, name)
        if method == "DELETE":
            return self._delete(kind, name)
        content = orjson.loads(body)
        if not isinstance(content, dict):
            raise ValueError("request body must be a JSON object")
        if kind and name:
            self._put([(kind, name, content)])
            return answers.as_json(200, {"status": "ok"})
        return self._put_many(content)

    def _list(self, kind: str | None, name: str | None) -> Answer:
        rows = self._store.rows(
            "SELECT type, name, definition FROM lexicon WHERE (?1 IS NULL OR type = ?1)"
            " AND (?2 IS NULL OR name = ?2) ORDER BY type, name",
            (kind, name),
        )
        results = [
            {"entityType": one, "name": called, "schemaJson": orjson.loads(text)}
            for one, called, text in rows
        ]
        return answers.as_json(200, {"results": results, "status": "ok"})

    def _put_many(self, content: dict[str, Any]) -> Answer:
        try:
            entries = [
                (one["entityType"], one["name"], one["schemaJson"]) for one in content.get("entries", [])
            ]
        except (KeyError, TypeError) as error:
            raise ValueError("every entry must have entityType, name and schemaJson") from error
        deleted = 0
        if content.get("truncate"):
            (deleted,) = self._store.rows("SELECT count(*) FROM lexicon")[0]
            self._delete(None, None)
        self._put(entries)
        return answers.as_json(200, {"results": {"added": len(entries), "deleted": deleted}, "status": "ok"})

    def _put(self, entries: list[tuple[str, str, dict[str, Any]]]) -> None:
        sql = "SELECT definition FROM lexicon WHERE type = ? AND name = ?"
        with self._store.writing() as connection:
            for kind, name, definition in entries:
                row = connection.execute(sql, (kind, name)).fetchone()
                merged = _merged(definition, orjson.loads(row[0]) if row else {})
                values = (kind, name, orjson.dumps(merged).decode())
                connection.execute(
                    "INSERT OR REPLACE INTO lexicon (type, name, definition) VALUES (?, ?, ?)", values
                )

    def _delete(self, kind: str | None, name: str | None) -> Answer:
        with self._store.writing() as connection:
            cursor = connection.execute(
                "DELETE FROM lexicon WHERE (?1 IS NULL OR type = ?1) AND (?2 IS NULL OR name = ?2)",
                (kind, name),
            )
            return answers.as_json(200, {"results": {"delete_count": cursor.rowcount}, "status": "ok"})


def _merged(new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """Returns the new definition with the metadata it leaves out from the old one; null clears (OAI-LEX)."""
    before = (old.get("metadata") or {}).get(METADATA) or {}
    after = (new.get("metadata") or {}).get(METADATA)
    if not before or (METADATA in (new.get("metadata") or {}) and after is None):
        return new
    kept = {key: value for key, value in {**before, **(after or {})}.items() if value is not None}
    return {**new, "metadata": {**(new.get("metadata") or {}), METADATA: kept}}


def _error(status: int, message: str) -> Answer:
    return answers.as_json(status, {"error": message, "status": "error"})
