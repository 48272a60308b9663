"""The emulator's own bars: speed from one client, and memory at five million events."""

import http.client
import time
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import pytest
from isal import isal_zlib

from mixpanel_emulator.process import EmulatorProcess, start_emulator
from tests.emulator.talk import NDJSON, basic

BATCH = 2000
EVENTS_PER_SECOND = 60_000
MOST_MIB = 300
UNLIMITED = {"rate_events": "0", "rate_bytes": "0"}
HEADERS = {"Authorization": basic("t"), "Content-Encoding": "gzip", "Content-Type": NDJSON}


def batch(first: int) -> bytes:
    """Returns one compressed request of events of about 450 bytes."""
    filler = {f"property_{place}": f"value {place} {'x' * 12}" for place in range(9)}
    rows = [
        {
            "event": f"Event {number % 20}",
            "properties": {
                "time": 1700000000 + number,
                "distinct_id": f"user-{number % 50000}",
                "$insert_id": f"{number:032x}",
                **filler,
            },
        }
        for number in range(first, first + BATCH)
    ]
    return bytes(isal_zlib.compress(b"\n".join(orjson.dumps(row) for row in rows), 1, 31))


def flood(emulator: EmulatorProcess, first: int, requests: int) -> float:
    """Returns how many seconds it took to send so many full requests, one after the other."""
    address = urlsplit(emulator.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    bodies = [batch(first + number * BATCH) for number in range(requests)]
    started = time.perf_counter()
    for body in bodies:
        connection.request("POST", "/import?strict=1", body, HEADERS)
        assert connection.getresponse().read() == b'{"code":200,"num_records_imported":2000,"status":"OK"}'
    took_s = time.perf_counter() - started
    connection.close()
    return took_s


def peak_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmHWM")


def test_a_flood_is_taken_in_a_fraction_of_the_memory_it_would_fill(tmp_path: Path) -> None:
    with start_emulator(str(tmp_path / "store.db"), settings=UNLIMITED) as running:
        flood(running, 0, 50)
        assert running.stats()["distinct"] == 100_000
        assert peak_mib(running.pid) < 150


@pytest.mark.soak
def test_one_client_sends_sixty_thousand_events_a_second(tmp_path: Path) -> None:
    with start_emulator(str(tmp_path / "store.db"), settings=UNLIMITED) as running:
        flood(running, 0, 20)
        rates = [200 * BATCH / flood(running, round_ * 10**6, 200) for round_ in range(1, 4)]
        print([f"{rate:,.0f} events/s" for rate in rates])
        assert max(rates) >= EVENTS_PER_SECOND


@pytest.mark.soak
def test_five_million_events_stay_within_memory(tmp_path: Path) -> None:
    with start_emulator(str(tmp_path / "store.db"), settings=UNLIMITED) as running:
        for first in range(0, 5_000_000, 100 * BATCH):
            flood(running, first, 100)
        counts = running.stats()
        print(f"peak {peak_mib(running.pid):.0f} MiB")
        assert counts["distinct"] == counts["stored"] == 5_000_000
        assert peak_mib(running.pid) < MOST_MIB
