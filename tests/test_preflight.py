"""One request proves the credentials before workers start, and imports nothing."""

from __future__ import annotations

from mixpanel_http.destinations import Destination
from mixpanel_http.preflight import refusal
from mixpanel_http.secret_refs import SecretRef
from tests.backfills import TOKEN, Backfills
from tests.loopback import always, http, loopback_server


def destination(backfills: Backfills) -> Destination:
    return Destination(backfills.emulator.url, SecretRef(f"env:{TOKEN}"))


def test_good_credentials_are_proved_and_nothing_is_stored(backfills: Backfills) -> None:
    assert refusal(destination(backfills)) is None

    stats = backfills.emulator.stats()
    assert stats["requests"] == 1
    assert stats["distinct"] == 0


def test_refused_credentials_are_told_with_what_mixpanel_says(backfills: Backfills) -> None:
    backfills.emulator.faults([{"name": "no", "when": {"nth": [1]}, "do": {"status": 401}}])

    stop = refusal(destination(backfills))

    assert stop is not None
    assert stop.status == 401


def test_trouble_that_passes_proves_nothing(backfills: Backfills) -> None:
    for status in (429, 503, 500):
        with loopback_server(always(http(status, b"{}"))) as server:
            assert refusal(Destination(server.url, SecretRef(f"env:{TOKEN}"))) is None
    assert refusal(Destination("http://127.0.0.1:9", SecretRef(f"env:{TOKEN}"))) is None
