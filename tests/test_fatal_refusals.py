"""A run that must not go on ends within seconds, also where requests on the wire never get an answer."""

from __future__ import annotations

import gzip
import json
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from mixpanel_http.answers import Answer
from mixpanel_http.client import READ_TIMEOUT_S, ImportClient
from mixpanel_http.destinations import Destination
from mixpanel_http.endpoints import compress
from mixpanel_http.failure_table import AnswerClass
from mixpanel_http.secret_refs import SecretRef
from tests.backfills import TOKEN, Backfills, event, events, ndjson
from tests.loopback import LoopbackServer, http, loopback_server
from tests.processes import PATIENCE_S, start, wait_until
from transforms import drain

STOPS_WITHIN_S = 5.0
HANGING = 3
SMALL: dict[str, Any] = {"limits.records_per_request": 10, "limits.in_flight": 6, "run.id": "r"}


@dataclass
class Service:
    """Takes some requests, lets the next ones hang, and then refuses all others; or all others hang.

    Attributes:
        path: where it does so; elsewhere it takes what comes.
        takes: how many requests are taken first.
        refusal: what the others are answered with; None lets them hang.
        held: how often each record was taken.
        hanging: requests that got no answer.
        refused: requests that were refused.
        refused_at: when it refused the first one, by the monotonic clock.
        healed: whether it takes everything from now on.
        over: lets go of what hangs.
    """

    path: str = "/import"
    takes: int = 1
    refusal: bytes | None = None
    held: Counter[str] = field(default_factory=Counter)
    hanging: int = 0
    refused: int = 0
    refused_at: float = 0.0
    healed: bool = False
    over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, connection: socket.socket, request: bytes) -> None:
        """Answers a request, or does not."""
        with self._lock:
            what = self._decide(request)
        if what == "hang":
            self.over.wait()
        elif what == "refuse":
            assert self.refusal is not None
            self.refused_at = self.refused_at or time.monotonic()
            connection.sendall(self.refusal)
        else:
            connection.sendall(http(200, json.dumps(self._taken(request)).encode()))

    def _decide(self, request: bytes) -> str:
        if self.healed or not request.split(b" ")[1].startswith(self.path.encode()):
            return "take"
        self.takes -= 1
        if self.takes >= 0:
            return "take"
        if self.hanging < HANGING or self.refusal is None:
            self.hanging += 1
            return "hang"
        self.refused += 1
        return "refuse"

    def _taken(self, request: bytes) -> dict[str, Any]:
        body = request.partition(b"\r\n\r\n")[2]
        lines = gzip.decompress(body).split(b"\n") if body[:2] == b"\x1f\x8b" else json.loads(body)
        records = [json.loads(line) if isinstance(line, bytes) else line for line in lines]
        with self._lock:
            self.held.update(_name_of(record) for record in records if record)  # {} proves the token
        return {"code": 200, "num_records_imported": len(records), "status": "OK"}


def _name_of(record: dict[str, Any]) -> str:
    return str(record.get("properties", record).get("$insert_id", json.dumps(record, sort_keys=True)))


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.over.set()


def run_refused(
    backfills: Backfills,
    service: Service,
    server: LoopbackServer,
    changes: dict[str, Any],
    within_s: float = STOPS_WITHIN_S,
) -> Any:
    """Returns what a run left that was refused while requests hung; it has ended in time."""
    outcome = backfills.run(backfills.everything, {**changes, "destination.endpoint": server.url})
    ended_within = time.monotonic() - service.refused_at

    assert service.hanging == HANGING
    assert 1 <= service.refused <= SMALL["limits.in_flight"] - HANGING, "what was on its way by then"
    assert ended_within <= within_s
    assert outcome.code == 3, outcome.err
    assert outcome.books["balanced"]
    assert outcome.books["dead_lettered"] == 0
    assert outcome.report["requests"]["by_status"]["given up"] == HANGING
    return outcome


def assert_a_resume_delivers_all(
    backfills: Backfills, service: Service, server: LoopbackServer, changes: dict[str, Any], count: int
) -> None:
    service.healed = True
    resumed = backfills.run(backfills.everything, {**changes, "destination.endpoint": server.url}, resume="r")
    assert (resumed.code, resumed.books["imported"]) == (0, count), resumed.err
    assert len(service.held) == count


REFUSALS = {
    **{str(status): http(status, b"{}") for status in (401, 402, 403, 404)},
    **{
        str(status): http(status, b"", Location="http://127.0.0.1:9/import")
        for status in (301, 302, 307, 308)
    },
}


@pytest.mark.parametrize(
    ("status", "takes", "within_s"),
    [
        ("401", 9, READ_TIMEOUT_S),  # it did not wait for the answers, however slow the machine is
        *(
            pytest.param(s, t, STOPS_WITHIN_S, marks=pytest.mark.soak)
            for s in REFUSALS
            for t in (1, 9)
            if s != "402"
        ),
    ],
)
def test_a_refusal_stops_a_run_although_other_requests_hang(
    status: str, takes: int, within_s: float, backfills: Backfills, service: Service
) -> None:
    service.takes, service.refusal = takes, REFUSALS[status]
    backfills.write("a.json", events(300))
    with loopback_server(service.answer) as server:
        outcome = run_refused(backfills, service, server, SMALL, within_s)
        assert outcome.books["imported"] == 10 * takes
        assert outcome.books["undelivered"] == 10 * HANGING
        assert outcome.report["stopped_by"][0]["status"] == int(status)
        assert_a_resume_delivers_all(backfills, service, server, SMALL, 300)


@pytest.mark.soak
@pytest.mark.parametrize(("kind", "path"), [("profiles", "/engage"), ("groups", "/groups")])
def test_updates_that_hang_do_not_keep_a_refused_run_from_ending(
    kind: str, path: str, backfills: Backfills, service: Service
) -> None:
    service.path, service.takes, service.refusal = path, 9, REFUSALS["401"]
    named = {"$group_key": "company", "$group_id": "g-%d"} if kind == "groups" else {"$distinct_id": "u-%d"}
    backfills.write(
        "a.json",
        ({k: v.replace("%d", str(n)) for k, v in named.items()} | {"$set": {"n": n}} for n in range(900)),
    )
    changes = {**SMALL, "records.kind": kind}
    with loopback_server(service.answer) as server:
        outcome = run_refused(backfills, service, server, changes)
        assert outcome.books["undelivered"] > 0
        assert outcome.books["ambiguous"] == 0
        assert_a_resume_delivers_all(backfills, service, server, changes, 900)


@pytest.mark.soak
def test_increments_that_hang_when_a_run_is_refused_are_ambiguous_and_stay_so(
    backfills: Backfills, service: Service
) -> None:
    service.path, service.takes, service.refusal = "/engage", 9, REFUSALS["401"]
    backfills.write("a.json", ({"$distinct_id": f"u-{n}", "$add": {f"n{n}": 1}} for n in range(900)))
    changes = {**SMALL, "records.kind": "profiles"}
    with loopback_server(service.answer) as server:
        outcome = run_refused(backfills, service, server, changes)
        assert outcome.books["ambiguous"] > 0
        assert outcome.books["undelivered"] == 0
        service.healed = True
        resumed = backfills.run(
            backfills.everything, {**changes, "destination.endpoint": server.url}, resume="r"
        )
    assert (resumed.code, resumed.books["ambiguous"]) == (5, outcome.books["ambiguous"])
    assert set(service.held.values()) == {1}
    assert len(service.held) == 900 - outcome.books["ambiguous"]


@pytest.mark.soak
def test_too_many_errors_stop_a_run_although_requests_hang(backfills: Backfills, service: Service) -> None:
    service.takes = 20  # then all leave at once; before the first answer one would wait for the other
    backfills.write("a.json", [*events(10 * (20 + HANGING)), *[b"{"] * 3000])
    changes = {**SMALL, "run.max_errors": 1500}
    with loopback_server(service.answer) as server:
        outcome = backfills.run(backfills.everything, {**changes, "destination.endpoint": server.url})
    ended_at = time.time()

    (stop,) = (backfills.state / "r" / "ledger").glob("stop.*")
    assert service.hanging > 0
    assert ended_at - stop.stat().st_mtime <= STOPS_WITHIN_S
    assert outcome.code == 8
    assert outcome.books["balanced"]
    assert (outcome.books["imported"], outcome.books["undelivered"]) == (200, 10 * service.hanging)


@pytest.mark.soak
def test_what_hangs_when_a_drain_ends_is_in_the_books(backfills: Backfills, service: Service) -> None:
    backfills.write("a.json", events(300))
    with loopback_server(service.answer) as server:
        config = backfills.config(backfills.everything, {**SMALL, "destination.endpoint": server.url})
        running = start(config, environment={TOKEN: "token"})
        wait_until(lambda: service.hanging >= HANGING)
        running.signal(signal.SIGTERM)
        asked = time.monotonic()
        code, report, err = running.end()
        took = time.monotonic() - asked
        assert (code, report["state"]) == (143, "interrupted"), err
        assert drain.DRAIN_SECONDS <= took < 30
        assert report["books"]["balanced"]
        assert report["books"]["undelivered"] == 10 * service.hanging
        assert_a_resume_delivers_all(backfills, service, server, SMALL, 300)


def test_a_host_that_is_not_known_stops_a_run_at_the_third_try(backfills: Backfills) -> None:
    backfills.write("a.json", [event(0)])
    outcome = backfills.run(
        backfills.everything,
        {"destination.endpoint": "https://no-such-host.invalid", "destination.allow_any_endpoint": True},
    )

    assert outcome.code == 3
    assert outcome.books["dead_lettered"] == 0
    assert outcome.report["requests"]["by_status"] == {"no connection": 3}


def test_an_endpoint_that_speaks_no_tls_stops_a_run_at_the_third_try(backfills: Backfills) -> None:
    backfills.write("a.json", [event(0)])
    tls = backfills.emulator.url.replace("http:", "https:")
    outcome = backfills.run(backfills.everything, {"destination.endpoint": tls})

    assert outcome.code == 3
    assert (outcome.books["dead_lettered"], outcome.books["not_attempted"]) == (0, 1)
    assert outcome.report["requests"]["by_status"] == {"no connection": 3}


def test_a_client_that_is_cut_off_gives_up_and_connects_no_more(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_TOKEN", "token-of-the-test")
    service.takes = 0
    answers: list[Answer] = []
    body = compress(ndjson([event(0)]).rstrip(b"\n"))
    with loopback_server(service.answer) as server:
        client = ImportClient(Destination(server.url, SecretRef("env:TEST_TOKEN")), 2)
        sending = threading.Thread(target=lambda: answers.append(client.send(body, 1)))
        sending.start()
        wait_until(lambda: service.hanging == 1)
        client.cut_off()
        sending.join(PATIENCE_S)
        late = client.send(body, 1)

    assert [(a.kind, a.label, a.sent) for a in answers] == [(AnswerClass.AMBIGUOUS, "given up", True)]
    assert (late.kind, late.label, late.sent) == (AnswerClass.TRANSIENT, "given up", False)
    assert len(server.requests) == 1
