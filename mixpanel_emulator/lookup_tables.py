"""PUT and GET /lookup-tables: CSV that replaces a whole table, or nothing."""

import csv
import io
import time
from collections import deque
from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import Response

from mixpanel_emulator import answers
from mixpanel_emulator.access import may_import, read_credentials
from mixpanel_emulator.answers import Answer
from mixpanel_emulator.bodies import BodyMalformedError, BodyTooLargeError, deflate, inflate
from mixpanel_emulator.settings import Settings
from mixpanel_emulator.store import Store
from mixpanel_emulator.wire import encoding_of, read_wire, respond, work

LISTED_ROWS = 10  # LTAPI: at most ten failing rows are listed
DAY_S = 86_400
FIELD_CHARACTERS = 16 * 1024 * 1024

csv.field_size_limit(FIELD_CHARACTERS)


class LookupTableApi:
    """The two endpoints."""

    def __init__(self, settings: Settings, store: Store) -> None:
        """Makes the endpoints over a store."""
        self._settings = settings
        self._store = store
        self._calls: deque[float] = deque()

    async def put(self, request: Request) -> Response:
        """Answers PUT /lookup-tables/{id}."""
        if not self._is_allowed(request):
            return respond(answers.error(401, answers.INVALID_CREDENTIALS))
        if not self._within_rate():
            return respond(answers.error(429, answers.RATE_EXCEEDED))
        try:
            wire = await read_wire(request, self._settings.max_table_bytes)
            encoding = encoding_of(request)
            table = request.path_params["table"]
            return respond(await work(self._replace, table, wire, encoding))
        except BodyTooLargeError:
            return respond(answers.too_large(self._settings.max_table_bytes))

    async def get(self, request: Request) -> Response:
        """Answers GET /lookup-tables."""
        if not self._is_allowed(request):
            return respond(answers.error(401, answers.INVALID_CREDENTIALS))
        stored = dict(self._store.rows("SELECT id, name FROM lookup_table ORDER BY id"))
        known = {table: f"Lookup table {table}" for table in self._settings.lookup_tables}
        results = [{"id": table, "name": name} for table, name in {**known, **stored}.items()]
        return respond(answers.as_json(200, {"code": 200, "status": "OK", "results": results}))

    def _is_allowed(self, request: Request) -> bool:
        credentials = read_credentials(request.headers.get("authorization", ""))
        return may_import(self._settings, credentials, request.query_params)

    def _within_rate(self) -> bool:
        now = time.monotonic()
        while self._calls and self._calls[0] <= now - DAY_S:
            self._calls.popleft()
        if self._settings.table_calls_per_day and len(self._calls) >= self._settings.table_calls_per_day:
            return False
        self._calls.append(now)
        return True

    def _replace(self, table: str, wire: bytes, encoding: str) -> Answer:
        if self._settings.lookup_tables and table not in self._settings.lookup_tables:
            # OAI-ING: the sample of this 404 has code 200 in its body
            content = {
                "code": 200,
                "error": f"Lookup table with id '{table}' was not found.",
                "status": "Not Found",
            }
            return answers.as_json(404, content)
        try:
            body = inflate(wire, encoding, self._settings.max_table_bytes)
        except BodyMalformedError as problem:
            return answers.error(400, str(problem))
        failures = check_table(body)
        if failures:
            return _refused(failures)
        row = (table, f"Lookup table {table}", deflate(body))
        with self._store.writing() as connection:
            connection.execute("INSERT OR REPLACE INTO lookup_table (id, name, csv) VALUES (?, ?, ?)", row)
        return answers.as_json(200, {"code": 200, "status": "OK"})


def check_table(body: bytes) -> list[tuple[int, str]]:
    r"""Returns the failing rows of a CSV by index, the header being row 0; at most ten.

    >>> check_table(b"id,f\nk,1\nk,2\n")
    [(2, 'invalid row: row indexes 1 and 2 have the same primary key')]
    """
    try:
        rows = csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
        header = next(rows, [])
        problem = _header_problem(header)
        return [(0, problem)] if problem else _bad_rows(rows, len(header))
    except UnicodeDecodeError:
        return [(0, "invalid row: string should be valid utf8")]
    except csv.Error as error:
        return [(0, f"invalid row: {error}")]


def _header_problem(header: list[str]) -> str:
    if len(header) < 2:  # LTAPI: at least two columns
        return "invalid header: at least two columns are required"
    return "" if len(set(header)) == len(header) else "invalid header: column names must be unique"


def _bad_rows(rows: Iterator[list[str]], width: int) -> list[tuple[int, str]]:
    seen: dict[str, int] = {}
    failures = []
    for index, row in enumerate(rows, start=1):
        problem = _row_problem(row, width, seen, index)
        if problem:
            failures.append((index, problem))
        if len(failures) == LISTED_ROWS:
            break
    return failures


def _row_problem(row: list[str], width: int, seen: dict[str, int], index: int) -> str:
    if len(row) != width:
        return "invalid row: wrong number of fields"  # LTAPI
    if not row[0].strip():
        return "primary key is required and cannot be blank"  # OAI-ING
    first = seen.setdefault(row[0], index)
    return f"invalid row: row indexes {first} and {index} have the same primary key" if first != index else ""


def _refused(failures: list[tuple[int, str]]) -> Answer:
    rows = [{"index": index, "message": message} for index, message in failures]
    content = {
        "code": 400,
        "error": answers.FAILED_VALIDATION,
        "failed_records": rows,
        "status": "Bad Request",
    }
    return answers.as_json(400, content)
