"""POST /import: history, authenticated by header, validated record by record."""

import time
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from mixpanel_emulator import answers
from mixpanel_emulator.access import may_import, read_credentials
from mixpanel_emulator.answers import Answer
from mixpanel_emulator.bodies import (
    BodyMalformedError,
    BodyTooLargeError,
    Span,
    decode_data,
    find_records,
    form_data,
    inflate,
)
from mixpanel_emulator.event_rules import Event, EventRules, Refusal
from mixpanel_emulator.exchange import Exchange, exchange_of
from mixpanel_emulator.intake import Batch, EventIntake, Judge, Outcome
from mixpanel_emulator.limiter import RateLimiter
from mixpanel_emulator.quick_look import make_quick_look
from mixpanel_emulator.settings import Settings
from mixpanel_emulator.wire import FORM_EXPANSION, encoding_of, is_form, is_on, read_wire, respond, work


class ImportApi:
    """The endpoint and what it shares with /track: the intake and the project's rate limit."""

    def __init__(self, settings: Settings, intake: EventIntake, limiter: RateLimiter) -> None:
        """Makes the endpoint."""
        self._settings = settings
        self._intake = intake
        self._limiter = limiter
        self._rules = EventRules(settings)
        self._quick_look = make_quick_look(settings, self._rules.banned)

    async def post(self, request: Request) -> Response:
        """Answers POST /import."""
        try:
            wire = await read_wire(request, self._settings.max_body_bytes)
        except BodyTooLargeError:
            return respond(answers.too_large(self._settings.max_body_bytes))
        form = is_form(request)
        exchange = exchange_of(request)
        exchange.strict = not form and request.query_params.get("strict", "1") != "0"  # OAI-ING: default 1
        verbose = is_on(request, "verbose")
        return respond(await work(self._answer, request, exchange, wire, form, verbose))

    def _answer(self, request: Request, exchange: Exchange, wire: bytes, form: bool, verbose: bool) -> Answer:
        try:
            fields = form_data(inflate(wire, encoding_of(request), self._wire_limit(form))) if form else {}
            if not self._may_import(request, fields):
                return answers.error(401, answers.INVALID_CREDENTIALS)
            batch = self._batch(request, wire, fields if form else None)
        except BodyTooLargeError:
            return answers.too_large(self._settings.max_body_bytes)
        except BodyMalformedError as problem:
            return _malformed(str(problem), exchange.strict)
        exchange.bytes_raw = len(batch.body)
        if len(batch.spans) > self._settings.max_events:
            return answers.too_many(self._settings.max_events)
        wait_s = self._limiter.admit(len(batch.spans), len(batch.body))
        if wait_s:
            return answers.rate_exceeded(self._settings, wait_s, strict=exchange.strict, now=time.time())
        ip = request.client.host if request.client else ""
        outcome = self._intake.take(batch, exchange, self._judge(exchange.strict, ip))
        return self._outcome(outcome, exchange.strict, verbose or fields.get("verbose") == "1", form)

    def _judge(self, strict: bool, ip: str) -> Judge:
        quick_look, full_rules = self._quick_look, self._rules.judge

        def judge(raw: bytes, now_ms: int) -> Event | Refusal:
            return quick_look(raw, now_ms) or full_rules(raw, now_ms, needs_insert_id=strict, ip=ip)

        return judge

    def _wire_limit(self, form: bool) -> int:
        return self._settings.max_body_bytes * (FORM_EXPANSION if form else 1)

    def _may_import(self, request: Request, fields: Mapping[str, str]) -> bool:
        credentials = read_credentials(request.headers.get("authorization", ""))
        if credentials is None and fields.get("api_key"):
            return True  # PY: older SDKs send only this field, which is ignored
        return may_import(self._settings, credentials, request.query_params)

    def _batch(self, request: Request, wire: bytes, fields: Mapping[str, str] | None) -> Batch:
        if fields is not None:
            body = decode_data(fields.get("data", ""))
            return Batch(body, find_records(body))
        encoding = encoding_of(request)
        body = inflate(wire, encoding, self._settings.max_body_bytes)
        spans: list[Span] = find_records(body)
        if not spans and not body.lstrip().startswith(b"["):
            raise BodyMalformedError("request body must not be empty")
        return Batch(body, spans, wire if encoding == "gzip" else None)

    def _outcome(self, outcome: Outcome, strict: bool, verbose: bool, form: bool) -> Answer:
        accepted, refusals = outcome
        if form:
            return _of_form(accepted, len(refusals), verbose)
        if not strict:
            return answers.leniently_imported(accepted, len(refusals), verbose=verbose)
        if not refusals:
            return answers.imported(accepted)
        return answers.partly_imported(self._settings, accepted, refusals, strings=self._as_strings(outcome))

    def _as_strings(self, outcome: Outcome) -> bool:
        choice = self._settings.failures_as_strings
        return choice == "always" or (choice == "identity" and outcome.of_identity)


def _of_form(accepted: int, failed: int, verbose: bool) -> Answer:
    """Returns the answer to a form post, as older SDKs know it (PY)."""
    if verbose:
        return answers.verbosely(answers.FAILED_VALIDATION if failed else None)
    return answers.plain(accepted > 0 or not failed)


def _malformed(problem: str, strict: bool) -> Answer:
    if not strict:
        return answers.as_json(400, {"code": 400, "error": problem, "status": 0})
    content = {
        "code": 400,
        "error": problem,
        "status": "Bad Request",
        "num_records_imported": 0,
        "failed_records": [],
    }
    return answers.as_json(400, content)
