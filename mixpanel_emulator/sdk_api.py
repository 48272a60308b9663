"""/track, /engage and /groups: what SDKs use, with the token in each record and answers of `1` or `0`."""

import base64
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from mixpanel_emulator import answers
from mixpanel_emulator.access import knows_token
from mixpanel_emulator.answers import Answer
from mixpanel_emulator.bodies import (
    BodyMalformedError,
    BodyTooLargeError,
    decode_data,
    find_records,
    form_data,
    inflate,
)
from mixpanel_emulator.event_rules import DAY_MS, Event, EventRules, Refusal, event_time_ms
from mixpanel_emulator.exchange import Exchange, exchange_of
from mixpanel_emulator.intake import Batch, EventIntake, Outcome
from mixpanel_emulator.limiter import RateLimiter
from mixpanel_emulator.profile_intake import ProfileIntake
from mixpanel_emulator.settings import Settings
from mixpanel_emulator.wire import FORM_EXPANSION, encoding_of, is_form, read_wire, respond, work

TRACK_DAYS = 5  # TRK, EHIST: older events are dropped
PIXEL = base64.b64decode(b"R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")  # 1x1, transparent
NO_DATA = "data, missing or empty"


class TrackRules:
    """The rules of /track: a token in every event, and nothing older than five days."""

    def __init__(self, settings: Settings) -> None:
        """Prepares the rules that the settings choose."""
        self._settings = settings
        self._rules = EventRules(settings)

    def judge(self, raw: bytes, now_ms: int, *, ip: str = "") -> Event | Refusal | None:
        """Returns the event, why it is refused, or None where it is dropped although the answer is `1`."""
        found = self._rules.read(raw)
        if isinstance(found, Refusal):
            return found
        name, properties = found
        token = properties.get("token")
        if not isinstance(token, str) or not token:
            return Refusal("token", "token, missing or empty")  # I-AGILE
        if not knows_token(self._settings, token):
            return None  # E401
        properties.setdefault("time", now_ms // 1000)  # RESV: receive time
        # OAI-ING: hashed from the IP with ip=1
        properties.setdefault("distinct_id", f"$ip:{ip}" if ip else "")
        if self._is_old(properties["time"], now_ms):
            silent = self._settings.track_old_events == "silent"
            return None if silent else Refusal("properties.time", "event is older than 5 days; use /import")
        return self._rules.check(name, properties, now_ms, needs_insert_id=False, ip=ip)

    def _is_old(self, value: object, now_ms: int) -> bool:
        time_ms = event_time_ms(value)
        return time_ms is not None and time_ms < now_ms - TRACK_DAYS * DAY_MS


class Endpoint(NamedTuple):
    """What differs between the endpoints: what a batch is of, who takes it in, whether it is rated."""

    noun: str
    most: int
    gzip: bool
    rated: bool
    take: Callable[[Batch, Exchange, str], Outcome]


class SdkApi:
    """The three endpoints."""

    def __init__(
        self,
        settings: Settings,
        events: EventIntake,
        profiles: ProfileIntake,
        groups: ProfileIntake,
        limiter: RateLimiter,
    ) -> None:
        """Makes the endpoints over their intakes; /track shares its limit with /import (RATE)."""
        self._settings = settings
        self._limiter = limiter
        rules = TrackRules(settings)

        def take_events(batch: Batch, exchange: Exchange, ip: str) -> Outcome:
            return events.take(batch, exchange, partial(rules.judge, ip=ip))

        updates, gzip = settings.max_updates, settings.engage_gzip
        self._track = Endpoint("events", settings.max_events, True, True, take_events)
        self._engage = Endpoint("updates", updates, gzip, False, lambda *given: profiles.take(*given[:2]))
        self._groups = Endpoint("updates", updates, gzip, False, lambda *given: groups.take(*given[:2]))

    async def track(self, request: Request) -> Response:
        """Answers /track."""
        return await self._take(request, self._track)

    async def engage(self, request: Request) -> Response:
        """Answers /engage."""
        return await self._take(request, self._engage)

    async def groups(self, request: Request) -> Response:
        """Answers /groups."""
        return await self._take(request, self._groups)

    async def _take(self, request: Request, endpoint: Endpoint) -> Response:
        exchange = exchange_of(request)
        exchange.strict = False
        try:
            wire = await read_wire(request, self._settings.max_body_bytes)
            answer = await work(self._answer, request, exchange, endpoint, wire)
        except BodyTooLargeError:
            answer = answers.too_large(self._settings.max_body_bytes)
        return respond(answer)

    def _answer(self, request: Request, exchange: Exchange, endpoint: Endpoint, wire: bytes) -> Answer:
        options = dict(request.query_params)
        try:
            batch, fields = self._read(request, endpoint, wire, options)
        except BodyMalformedError as problem:
            return _shape(options, Outcome(0, [(0, Refusal("data", str(problem)))]))
        options = {**fields, **options}
        exchange.bytes_raw = len(batch.body)
        if len(batch.spans) > endpoint.most:
            return answers.too_many(endpoint.most, endpoint.noun)
        if not batch.spans:
            return _shape(options, Outcome(0, [(0, Refusal("data", NO_DATA))]))
        if endpoint.rated and (wait_s := self._limiter.admit(len(batch.spans), len(batch.body))):
            return answers.rate_exceeded(self._settings, wait_s, strict=False, now=time.time())
        ip = request.client.host if request.client and options.get("ip") == "1" else ""
        return _shape(options, endpoint.take(batch, exchange, ip))

    def _read(
        self, request: Request, endpoint: Endpoint, wire: bytes, options: Mapping[str, str]
    ) -> tuple[Batch, dict[str, str]]:
        encoding = encoding_of(request)
        if encoding and not endpoint.gzip:
            raise BodyMalformedError("request body must not be compressed")
        fields: dict[str, str] = {}
        if request.method == "GET" or not wire:
            body = decode_data(options.get("data", ""))
        elif is_form(request):
            fields = form_data(inflate(wire, encoding, self._settings.max_body_bytes * FORM_EXPANSION))
            body = decode_data(fields.get("data", ""))
        else:
            body = inflate(wire, encoding, self._settings.max_body_bytes)
        if len(body) > self._settings.max_body_bytes:
            raise BodyTooLargeError
        return Batch(body, find_records(body)), fields


def _shape(options: Mapping[str, str], outcome: Outcome) -> Answer:
    """Returns the answer in the form that the request's options ask for."""
    good = outcome.accepted > 0  # OAI-ING: 1 means that at least one object was valid
    if options.get("img") == "1":
        return Answer(200, PIXEL, "image/gif")
    if options.get("callback"):
        return Answer(200, f"{options['callback']}({int(good)});".encode(), "text/javascript")
    if options.get("strict", "0") == "1":
        return _strictly(outcome)
    if options.get("verbose", "0") not in ("", "0"):
        return answers.verbosely(outcome.refusals[0][1].message if outcome.refusals else None)
    return answers.plain(good)


def _strictly(outcome: Outcome) -> Answer:
    """Returns the per-record answer; its shape is not published, this one has the names that AK reads."""
    content: dict[str, object] = {
        "code": 200,
        "num_good_events": outcome.accepted,
        "status": 1,
        "error": None,
    }
    if outcome.refusals:
        rows = [
            {"index": index, "field": refusal.field, "message": refusal.message}
            for index, refusal in outcome.refusals
        ]
        content |= {"code": 400, "status": 0, "error": answers.FAILED_VALIDATION, "failed_records": rows}
    return answers.as_json(200, content)  # PSET: 200 even when validation fails
