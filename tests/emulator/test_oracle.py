"""The oracle: its counts are exact, and a comparison finds each kind of difference and no other."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from mixpanel_emulator.oracle import compare, compare_files
from mixpanel_emulator.process import EmulatorProcess
from tests.emulator.talk import event, send


def raw(number: int, **properties: Any) -> bytes:
    return json.dumps(event(number, **properties)).encode()


def test_a_faithful_run_compares_clean(emulator: EmulatorProcess) -> None:
    sent = [raw(number, pad="é" * 50) for number in range(3000)]
    for first in range(0, 3000, 1000):
        send(emulator.url, list(sent[first : first + 1000]), compressed=True)
    found = compare(sent, emulator.records())
    assert found.is_clean
    assert (found.expected, found.stored, found.copies) == (3000, 3000, 0)


def test_what_is_missing_made_up_altered_and_sent_twice_is_told_apart(emulator: EmulatorProcess) -> None:
    expected = [raw(number) for number in range(10)]
    send(emulator.url, [*expected[:8], expected[0], raw(8, extra=1), raw(99)])
    found = compare(expected, emulator.records())
    assert not found.is_clean
    assert (found.missing, found.spurious, found.altered, found.copies) == (1, 1, 1, 1)
    assert found.examples["missing"] == [expected[9]]
    assert json.loads(found.examples["spurious"][0]) == event(99)
    assert json.loads(found.examples["altered"][0]) == event(8, extra=1)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"12345678901234567890123", b"1.2345678901234568e22"),
        (b"1.0", b"1"),
        (b"-0", b"0"),
        (b"1e2", b"100.0"),
        (b'"1"', b"1"),
        (b'"a"', b'"b"'),
        (b"[1,2]", b"[2,1]"),
        (b"null", b"false"),
    ],
)
def test_a_change_of_a_value_is_an_alteration(before: bytes, after: bytes) -> None:
    template = b'{"event":"e","properties":{"time":1,"distinct_id":"u","$insert_id":"i","v":%b}}'
    assert compare([template % before], [template % before]).is_clean
    assert compare([template % before], [template % after]).altered == 1


def test_key_order_white_space_and_escapes_are_no_alteration() -> None:
    one = b'{"event":"e","properties":{"time":1,"distinct_id":"u","$insert_id":"i","t":"\xc3\xa9"}}'
    other = b'{"properties": {"t":"\\u00e9","$insert_id":"i", "distinct_id":"u","time":1}, "event":"e"}'
    assert compare([one], [other]).is_clean


def test_a_stamped_id_can_be_left_out_of_the_comparison() -> None:
    bare = event(1)
    del bare["properties"]["$insert_id"]
    assert compare([json.dumps(bare).encode()], [raw(1)], ignore=["$insert_id"]).is_clean
    assert not compare([json.dumps(bare).encode()], [raw(1, more=1)], ignore=["$insert_id"]).is_clean


def test_a_run_is_compared_with_its_files(tmp_path: Path, emulator: EmulatorProcess) -> None:
    lines = [raw(number) for number in range(20)]
    (tmp_path / "a.json").write_bytes(b"\n".join(lines[:10]) + b"\n")
    with gzip.open(tmp_path / "b.json.gz", "wb") as packed:
        packed.write(b"\r\n".join(lines[10:]))
    send(emulator.url, list(lines))
    assert compare_files([str(path) for path in tmp_path.iterdir()], emulator.records()).is_clean


def test_counts_are_exact_for_any_mix_of_copies(emulator: EmulatorProcess) -> None:
    dice = random.Random(5)
    sent: list[tuple[int, int]] = [(dice.randrange(400), dice.randrange(3)) for _ in range(2000)]
    for first in range(0, 2000, 250):
        send(emulator.url, [raw(number, v=variant) for number, variant in sent[first : first + 250]])
        so_far = sent[: first + 250]
        distinct = {number for number, _ in so_far}
        differ = {number for number in distinct if len({v for n, v in so_far if n == number}) > 1}
        counts = emulator.stats()
        assert counts["received"] == counts["stored"] == len(so_far)
        assert counts["distinct"] == len(distinct)
        assert counts["duplicates"] == len(so_far) - len(distinct)
        assert counts["duplicates_that_differ"] == len(differ)


def test_the_time_in_seconds_and_in_milliseconds_is_one_event(emulator: EmulatorProcess) -> None:
    send(emulator.url, [event(time=1700000000), event(time=1700000000000), event(time=1700000000001)])
    assert emulator.stats()["distinct"] == 2


def test_records_that_carry_a_source_are_counted_by_it(emulator: EmulatorProcess) -> None:
    tagged = [event(number, **{"$source": "s3" if number < 3 else "gcs"}) for number in range(5)]
    send(emulator.url, [*tagged, tagged[0], event(77)])
    assert emulator.stats()["sources"] == {
        "gcs": {"stored": 2, "distinct": 2},
        "s3": {"stored": 4, "distinct": 3},
    }


def test_sizes_requests_and_times_are_counted(emulator: EmulatorProcess) -> None:
    lines = [raw(number) for number in range(100)]
    send(emulator.url, list(lines))
    send(emulator.url, list(lines), compressed=True)
    counts = emulator.stats()
    assert counts["requests"] == counts["connections"] == 2
    assert counts["requests_by_path"] == {"/import": 2}
    size = len(b"\n".join(lines))
    assert counts["bytes_raw"] == 2 * size
    assert size < counts["bytes_wire"] < 2 * size
    assert counts["first_time"] <= counts["last_time"]
    assert counts["duplicates"] == 100


def test_records_are_picked_by_name_person_kind_and_page(emulator: EmulatorProcess) -> None:
    send(emulator.url, [{**event(n), "event": f"E{n % 2}"} for n in range(20)] + [event(time=None)])

    def ids(**wanted: Any) -> list[str]:
        return [json.loads(line)["properties"]["$insert_id"] for line in emulator.records(**wanted)]

    assert ids(event="E1", limit=2, offset=1) == ["id-3", "id-5"]
    assert ids(distinct_id="user-3") == ["id-3", "id-10", "id-17"]
    assert ids(distinct_id="user-3", limit=1, offset=1) == ["id-10"]
    assert ids(limit=0) == []
    (refused,) = emulator.records(kind="refused")
    assert json.loads(refused)["field"] == "properties.time"


def test_a_reset_forgets_everything(emulator: EmulatorProcess) -> None:
    send(emulator.url, [event()])
    emulator.reset()
    counts = emulator.stats()
    assert counts["stored"] == counts["requests"] == counts["connections"] == counts["distinct"] == 0
    assert list(emulator.records()) == []
    send(emulator.url, [event()])
    assert emulator.stats()["distinct"] == 1
