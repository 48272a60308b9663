"""The page for people, in a real browser, live and over the store of an earlier run."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mixpanel_emulator.process import EmulatorProcess, start_emulator
from tests.emulator.talk import JSON, call, event, send
from tests.processes import PATIENCE_S

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--virtual-time-budget=4000"),
]
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed: the page is not looked at"
)
EVIL = '<img src=x onerror="document.title=1"><script>document.title=2</script>'


def fill(emulator: EmulatorProcess) -> None:
    send(
        emulator.url,
        [{**event(n, time=1700000000 + n * 40000), "event": f"Event {n % 3}"} for n in range(30)],
    )
    send(emulator.url, [{**event(100, **{EVIL: EVIL}), "event": EVIL}, event(101, time=None, note=EVIL)])
    update = {"$token": "t", "$distinct_id": EVIL, "$set": {"$name": EVIL}}
    call(emulator.url, "POST", "/engage", json.dumps([update]).encode(), {"Content-Type": JSON})
    emulator.faults([{"name": "outage " + EVIL, "path": "/import", "do": {"status": 503}}])
    send(emulator.url, [event()])


def seen_in_browser(url: str, profile: Path) -> str:
    """Returns the page's document once its script has run."""
    command = [CHROMIUM or "", *FLAGS, f"--user-data-dir={profile}", "--dump-dom", url]
    return subprocess.run(command, capture_output=True, timeout=PATIENCE_S, check=True).stdout.decode()


def assert_shows_everything(page: str) -> None:
    assert 'data-ready="yes"' in page
    assert re.search(r"<b>31</b><span>events stored</span>", page)
    assert re.search(r"<b>1</b><span>user profiles</span>", page)
    assert "<b>1</b><span>records refused</span>" in page
    assert page.count("<rect") > 15
    for text in ("Event 0", "Event 1", "Event 2", "2023-11-14", "must be specified as seconds since epoch"):
        assert text in page
    assert "POST /import" in page
    assert "POST /engage" in page


def assert_runs_nothing_of_a_record(page: str) -> None:
    body = page[page.index("<body") :]
    assert "<img" not in body
    assert body.count("<script>") == 1
    assert "<title>Mixpanel emulator</title>" in page
    assert "&lt;img src=x" in body


@needs_browser
def test_the_page_shows_what_came_in(emulator: EmulatorProcess, tmp_path: Path) -> None:
    fill(emulator)
    page = seen_in_browser(emulator.url, tmp_path / "profile")
    assert_shows_everything(page)
    assert_runs_nothing_of_a_record(page)
    assert "Requests of the last minute" in page
    assert "outage &lt;img" in page


@needs_browser
def test_the_page_shows_the_store_of_an_earlier_run(tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    with start_emulator(path) as first:
        fill(first)
    with start_emulator(path) as second:
        assert_shows_everything(seen_in_browser(second.url, tmp_path / "profile"))


@needs_browser
def test_the_page_of_an_empty_store_says_so(emulator: EmulatorProcess, tmp_path: Path) -> None:
    page = seen_in_browser(emulator.url, tmp_path / "profile")
    assert "nothing received yet" in page
    assert "No events yet." in page


def test_the_page_needs_nothing_from_elsewhere_and_allows_no_other_script(emulator: EmulatorProcess) -> None:
    reply = call(emulator.url, "GET", "/")
    assert reply.status == 200
    assert set(re.findall(rb"https?://[^\s\"'`]+", reply.body)) == {b"http://www.w3.org/2000/svg"}
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy


def test_the_numbers_behind_the_page_are_those_of_the_store(emulator: EmulatorProcess) -> None:
    fill(emulator)
    overview = call(emulator.url, "GET", "/_emulator/overview").json()
    assert sum(count for _, count in overview["series"]) == 31
    assert dict(overview["names"]) == {"Event 0": 10, "Event 1": 10, "Event 2": 10, EVIL: 1}
    assert overview["reasons"][0][0] == "properties.time"
    assert sum(row[2] for row in overview["minute"]) == emulator.stats()["requests"] == 4
