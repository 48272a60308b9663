"""What a map costs: CPU-seconds for a million records, beside decoding and encoding them and nothing else.

    python -m benchmarks.maps                   all maps, half a minute or so
    python -m benchmarks.maps --records 2000    a quick look

Each map takes turns with the bare loop on the same lines; what is told is the median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.bars import Bar, verdict
from record_maps.known_dialects import DIALECTS
from record_maps.mapper import Mapper
from record_maps.spec import (
    MIXPANEL_SHAPE,
    EventNames,
    Flatten,
    MapSpec,
    PersonalData,
    TimeSpec,
    Traits,
    parse_value,
    refine,
)

SAMPLES: Final = Path(__file__).resolve().parent.parent / "sample" / "dialects"
ROUNDS: Final = 9
TYPICAL: Final = refine(
    MapSpec(
        event=parse_value("event_name"),
        time=TimeSpec(parse_value("happened_at")),
        distinct_id=parse_value(["user_id", "device_id"]),
        insert_id=parse_value("id"),
    ),
    {
        "rename": (("user_agent", "$browser"),),
        "drop": ("session_started",),
        "tags": (("import", b'"2024"'),),
        "events": EventNames(deny=("Debug*",)),
    },
)
MAPS: Final = {
    "typical: columns, ISO time, new names, a tag": TYPICAL,
    "the same, and nulls dropped": refine(TYPICAL, {"drop_nulls": True}),
    "the same, and flattened": refine(TYPICAL, {"flatten": Flatten("_")}),
    "the same, and personal data removed": refine(
        TYPICAL, {"personal_data": PersonalData(remove=Traits(("*phone*",), ("email", "ip")))}
    ),
}
MOST_RATIO: Final = 4.0  # for the typical map: what takes 1.0 to 1.4 CPU-s then takes 4 to 5.6


def rows(count: int) -> list[bytes]:
    """Returns rows of a warehouse table, some 500 bytes each."""
    chance = random.Random(20_240_305)
    return [json.dumps(_row(chance, number)).encode() for number in range(count)]


def _row(chance: random.Random, number: int) -> dict[str, Any]:
    clock = (
        f"{chance.randrange(24):02}:{chance.randrange(60):02}:{chance.randrange(60):02}.{number % 1000:03}"
    )
    return {
        "event_name": chance.choice(["Order Placed", "Product Viewed", "Cart Opened"]),
        "happened_at": f"2024-03-{1 + number % 28:02} {clock}",
        "user_id": f"user-{chance.randrange(10_000)}",
        "device_id": f"{chance.getrandbits(64):016x}",
        "id": f"{chance.getrandbits(128):032x}",
        "platform": chance.choice(["ios", "android", "web"]),
        "os_version": "17.2",
        "country": chance.choice(["DE", "FR", "US"]),
        "amount": chance.randrange(100_000) / 100,
        "quantity": chance.randrange(1, 9),
        "sku": f"SKU-{chance.randrange(1_000_000):07}",
        "coupon": None,
        "session_started": 1_709_600_000_000 + number,
        "referrer": "https://example.com/search?q=shoes&page=2",
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120",
        "shipping": {"zone": 1, "days": [1, 2, 3]},
    }


def bare(lines: Sequence[bytes]) -> None:
    """Decodes each line into its fields and encodes them again."""
    decode, encode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode, msgspec.json.Encoder().encode
    for line in lines:
        encode({"event": line[:0].decode(), "properties": decode(line)})


def measured(lines: Sequence[bytes], work: Callable[[Sequence[bytes]], object]) -> tuple[float, float]:
    """Returns the CPU-seconds for a million lines, and how many times those of the bare loop they are."""
    found = []
    for _ in range(ROUNDS):
        loop, own = _cpu_s(bare, lines), _cpu_s(work, lines)
        found.append((own / len(lines) * 1e6, own / loop))
    return statistics.median(s for s, _ in found), statistics.median(ratio for _, ratio in found)


def _cpu_s(work: Callable[[Sequence[bytes]], object], lines: Sequence[bytes]) -> float:
    began = time.process_time()
    work(lines)
    return time.process_time() - began


def cases(count: int) -> Iterator[tuple[str, MapSpec, list[bytes]]]:
    """Yields each map with its lines."""
    table = rows(count)
    for name, spec in MAPS.items():
        yield name, spec, table
    shaped = [
        json.dumps(
            {"event": (row := json.loads(line)).pop("event_name"), "properties": row | _SHAPED}
        ).encode()
        for line in table
    ]
    yield "Mixpanel's shape, a tag", refine(MIXPANEL_SHAPE, {"tags": (("import", b"1"),)}), shaped
    for name, dialect in DIALECTS.items():
        (path,) = SAMPLES.glob(f"{name}.*")
        mapper = Mapper(dialect.spec)
        lines = [line for line in path.read_bytes().splitlines() if line.startswith(b"{")]
        good = [line for line in lines if mapper.map_lines([line]).lines]
        yield f"dialect {name}", dialect.spec, (good * (count // len(good) + 1))[:count]


_SHAPED: Final = {"time": 1_709_600_000, "distinct_id": "user-1", "$insert_id": "a1"}


def main() -> int:
    """Prints a line for each map and a bar for the typical one, the first; returns 1 if it is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--records", type=int, default=20_000, help="records a round (default: 20,000)")
    arguments = parser.parse_args()
    bars = []
    for name, spec, lines in cases(arguments.records):
        seconds, ratio = measured(lines, Mapper(spec).map_lines)
        bars.append(Bar("a typical map, over the bare loop", ratio, "times", most=MOST_RATIO, digits=1))
        size = sum(map(len, lines)) // len(lines)
        print(f"      {name:<48} {seconds:>6.1f} CPU-s/M, {ratio:>4.1f} times the bare loop ({size} bytes)")
    return verdict(bars[:1])


if __name__ == "__main__":
    raise SystemExit(main())
