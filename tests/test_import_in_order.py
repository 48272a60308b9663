"""The step that sends updates in order: what it leaves behind when a bundle has failed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from mixpanel_emulator.process import EmulatorProcess
from mixpanel_http.destinations import Destination
from mixpanel_http.endpoints import EVENTS
from mixpanel_http.secret_refs import SecretRef
from tests.backfills import event, ndjson
from tests.processes import PATIENCE_S
from transforms import drain
from transforms.import_in_order import Senders
from transforms.import_requests import ImportLimits


def test_what_is_under_way_when_a_bundle_has_failed_is_waited_for_and_not_sent_again(
    emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_TOKEN", "token-of-the-test")
    emulator.faults([{"name": "503", "path": "/import", "do": {"status": 503, "delay_ms": 300}}])
    senders = Senders(Destination(emulator.url, SecretRef("env:TEST_TOKEN")), ImportLimits(10**6, 10**12, 4))
    body = ndjson([event(0)]).rstrip(b"\n")
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(senders.of(EVENTS).deliver, body, 1)
        senders.under_way = {future}  # type: ignore[arg-type]
        senders.close()

        assert drain.settle(PATIENCE_S)
        assert future.done()
    drain.reset()
    assert emulator.stats()["faults"]["503"] <= 1
