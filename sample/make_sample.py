"""Makes the sample that `make run` moves: ten days of an online shop, a few records bad on purpose.

    python -m sample.make_sample [FOLDER]

The same seed gives the same files, so that a change here shows as a change of the files. What is bad or
fixed, and where it stands, is written to README.md; `tests/test_sample.py` holds it to the rules.
"""

from __future__ import annotations

import gzip
import json
import random
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from sample.oddities import FIXED, REFUSED, Oddity

SEED = 20240301
DAYS = [date(2024, 3, 1) + timedelta(days=n) for n in range(10)]
EVENTS_PER_DAY = 2_150
VISITORS = 900
PLAIN_SHARE = 0.15  # the first file of a day is plain, so that it can be read here as it is
GZIP_FILES = 3  # the others of a day
TWINS = 6
BLANKS = 7

CITIES = [
    ("Berlin", "Berlin", "DE", "Europe/Berlin"),
    ("Köln", "Nordrhein-Westfalen", "DE", "Europe/Berlin"),
    ("São Paulo", "São Paulo", "BR", "America/Sao_Paulo"),
    ("Kraków", "Małopolskie", "PL", "Europe/Warsaw"),
    ("東京", "東京都", "JP", "Asia/Tokyo"),
    ("서울", "서울특별시", "KR", "Asia/Seoul"),
    ("Austin", "Texas", "US", "America/Chicago"),
    ("Montréal", "Québec", "CA", "America/Toronto"),
    ("Αθήνα", "Αττική", "GR", "Europe/Athens"),
    ("मुंबई", "महाराष्ट्र", "IN", "Asia/Kolkata"),
]
PRODUCTS = [
    ("LMP-104", "Lampe de chevet “Lune”", "lighting", 39.9),
    ("MUG-221", "Mug, 0.3 l", "kitchen", 9.5),
    ("KTL-310", "Wasserkessel „Föhr“", "kitchen", 54.0),
    ("CHR-007", "Oak chair", "furniture", 189.0),
    ("RUG-450", "Wool rug 2×3 m", "textiles", 320.0),
    ("PLN-018", "Monstera 🌿", "plants", 24.0),
    ("BKS-500", "Shelf, 5 boards", "furniture", 129.0),
    ("CND-012", "Candle \\ cedar/moss", "lighting", 14.0),
    ("BLK-330", "Decke “Ñandú”", "textiles", 79.0),
    ("TEA-090", "煎茶 100 g", "pantry", 12.8),
]
SEARCHES = [
    "lamp",
    "kleine lampe",
    "mug gift",
    "椅子",
    "rug 2x3",
    "étagère",
    "wool {grey}",
    "100% cotton",
    'a "b"',
]
CAMPAIGNS = [
    ("google", "cpc", "spring_24"),
    ("newsletter", "email", "march-1"),
    ("instagram", "social", "plants"),
]
BROWSERS = [("Chrome", 122), ("Safari", 17), ("Firefox", 123), ("Edge", 122)]
PAGES = ["/", "/sale", "/c/lighting", "/c/kitchen", "/c/plants", "/journal/how-to-hang-a-shelf", "/account"]
TESTS = ["checkout-v2:on", "checkout-v2:off", "free-shipping:on", "hero:b", "hero:c"]

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who acts, and from where."""

    distinct_id: str
    device_id: str
    ip: str
    plan: str
    place: tuple[str, str, str, str]
    browser: tuple[str, int]
    on_mobile: bool


@dataclass(frozen=True, slots=True)
class Listed:
    """An oddity and where it stands; lines are counted from 1, blank ones too."""

    file: str
    line: int
    oddity: Oddity


def make_sample(folder: Path) -> list[Listed]:
    """Write `events/dt=…/part-*` and `README.md` to a folder, and return what is odd in them."""
    rng = random.Random(SEED)
    visitors = [_visitor(rng, number) for number in range(VISITORS)]
    files: dict[str, list[bytes]] = {}
    for day in DAYS:
        files |= _files_of(day, _lines_of(rng, visitors, day))
    listed = _place_oddities(rng, files)
    _add_twins(rng, files, listed)
    _add_blanks(rng, files, listed)
    # One file has no newline at its end, as a writer leaves it that adds them between records.
    unended = next(name for name in files if name.startswith(f"dt={DAYS[6]}"))
    for name, lines in files.items():
        _write(folder / "events" / name, b"\n".join(lines) + (b"" if name == unended else b"\n"))
    (folder / "README.md").write_text(_readme(files, listed, unended), encoding="utf-8")
    return listed


def _visitor(rng: random.Random, number: int) -> Visitor:
    on_mobile = rng.random() < 0.4
    device_id = str(uuid.UUID(int=rng.getrandbits(128), version=4))
    return Visitor(
        distinct_id=f"u-{100_000 + number * 7}" if rng.random() < 0.7 else device_id,
        device_id=device_id,
        ip=f"203.0.113.{rng.randrange(1, 255)}",
        plan=rng.choice(["free", "free", "member", "member", "business"]),
        place=rng.choice(CITIES),
        browser=("App", 8) if on_mobile else rng.choice(BROWSERS),
        on_mobile=on_mobile,
    )


def _lines_of(rng: random.Random, visitors: list[Visitor], day: date) -> list[bytes]:
    """A day's lines in the order of their times."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=timezone.utc).timestamp()
    timed: list[tuple[float, bytes]] = []
    while len(timed) < EVENTS_PER_DAY:
        timed += _session(rng, rng.choice(visitors), midnight + rng.randrange(80_000))
    return [line for _, line in sorted(timed[:EVENTS_PER_DAY])]


def _session(rng: random.Random, visitor: Visitor, start: float) -> Iterator[tuple[float, bytes]]:
    session_id = f"{rng.getrandbits(48):012x}"
    shown = {**_client_properties(rng, visitor), "session_id": session_id}
    time = start
    for position, (name, properties, by_server) in enumerate(_journey(rng, visitor)):
        time += rng.randrange(2, 90) + rng.randrange(1000) / 1000
        if by_server:
            yield time, _server_line(name, visitor, time, properties)
        else:
            insert_id = str(uuid.UUID(int=rng.getrandbits(128), version=4))
            sent = {**shown, "position": position, **properties, "$insert_id": insert_id}
            yield time, _client_line(name, visitor, time, sent)


def _journey(rng: random.Random, visitor: Visitor) -> Iterator[tuple[str, Event, bool]]:
    """What a visitor does in one session: event, properties, and whether the server reports it."""
    yield "Page Viewed", {"path": rng.choice(PAGES), "load_ms": int(rng.expovariate(1 / 420)) + 60}, False
    if rng.random() < 0.4:
        yield "Search Performed", {"query": rng.choice(SEARCHES), "results": rng.randrange(0, 60)}, False
    basket: list[Event] = []
    for sku, name, category, price in rng.sample(PRODUCTS, rng.randrange(1, 5)):
        product = {"sku": sku, "product": name, "category": category, "price": price}
        seen = {"in_stock": rng.random() < 0.9, "related": [p[0] for p in rng.sample(PRODUCTS, 3)]}
        yield "Product Viewed", {**product, **seen}, False
        if rng.random() < 0.45:
            basket.append({"sku": sku, "name": name, "quantity": rng.randrange(1, 4), "price": price})
            yield "Product Added", {**product, "basket_size": len(basket)}, False
    if basket and rng.random() < 0.6:
        yield from _purchase(rng, visitor, basket)
    if rng.random() < 0.25:
        yield from _account(rng)


def _purchase(rng: random.Random, visitor: Visitor, basket: list[Event]) -> Iterator[tuple[str, Event, bool]]:
    city, region, country, _ = visitor.place
    total = round(sum(item["price"] * item["quantity"] for item in basket), 2)
    yield (
        "Checkout Started",
        {"items": len(basket), "total": total, "coupon": rng.choice([None, "SPRING10"])},
        False,
    )
    order_id = f"A{rng.randrange(10**7):07}"
    order = {
        "order_id": order_id,
        "items": basket,
        "total": total,
        "currency": rng.choice(["EUR", "USD", "JPY"]),
        "shipping": {"method": rng.choice(["standard", "express"]), "to": {"city": city, "country": country}},
        "first_order": rng.random() < 0.3,
        "ip": visitor.ip,
    }
    yield "Order Completed", order, True
    yield "Payment Captured", {"order_id": order_id, "amount": total, "attempts": rng.randrange(1, 3)}, True
    if rng.random() < 0.3:
        yield "Email Sent", {"template": "order-confirmation", "order_id": order_id, "region": region}, True


def _account(rng: random.Random) -> Iterator[tuple[str, Event, bool]]:
    plan, revenue = rng.choice(["member", "business"]), round(rng.uniform(5, 400), 2)
    yield "Plan Changed", {"to": plan, "seats": rng.randrange(1, 20), "revenue": revenue}, True
    comment = rng.choice([None, "très bien 👍", "ok\n"])
    yield "Survey Answered", {"score": rng.randrange(0, 11), "comment": comment}, False


def _client_properties(rng: random.Random, visitor: Visitor) -> Event:
    city, region, country, zone = visitor.place
    browser, version = visitor.browser
    shown: Event = {"$device_id": visitor.device_id, "plan": visitor.plan, "timezone": zone}
    if visitor.on_mobile:
        shown |= {
            "$os": rng.choice(["iOS", "Android"]),
            "$app_version_string": "8.14.2",
            "$wifi": rng.random() < 0.6,
        }
        shown |= {"$city": city, "$region": region, "mp_country_code": country}
    else:
        shown |= {"$browser": browser, "$browser_version": version, "ip": visitor.ip}
        shown |= {"screen": {"width": rng.choice([1280, 1440, 1920]), "height": rng.choice([720, 900, 1080])}}
    if rng.random() < 0.35:
        source, medium, campaign = rng.choice(CAMPAIGNS)
        shown |= {"utm_source": source, "utm_medium": medium, "utm_campaign": campaign}
    return {**shown, "tests": sorted(rng.sample(TESTS, rng.randrange(0, 3)))}


def _client_line(name: str, visitor: Visitor, time: float, properties: Event) -> bytes:
    """As the shop's apps write: compact, UTF-8, time in milliseconds from the phone and in seconds else."""
    clock = int(time * 1000) if visitor.on_mobile else int(time)
    event = {"event": name, "properties": {"time": clock, "distinct_id": visitor.distinct_id, **properties}}
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


def _server_line(name: str, visitor: Visitor, time: float, properties: Event) -> bytes:
    """As the shop's server writes: spaced, all beyond ASCII escaped, the ids last, no `$insert_id`."""
    ids = {"distinct_id": visitor.distinct_id, "time": int(time)}
    return json.dumps({"event": name, "properties": {**properties, "source": "backend", **ids}}).encode()


def _files_of(day: date, lines: list[bytes]) -> dict[str, list[bytes]]:
    plain = int(len(lines) * PLAIN_SHARE)
    step = -(-(len(lines) - plain) // GZIP_FILES)
    files = {f"dt={day}/part-00000.json": lines[:plain]}
    for number in range(GZIP_FILES):
        start = plain + number * step
        files[f"dt={day}/part-{number + 1:05}.json.gz"] = lines[start : start + step]
    return files


def _place_oddities(rng: random.Random, files: Mapping[str, list[bytes]]) -> list[Listed]:
    oddities = [*REFUSED, *FIXED]
    listed = []
    for name, oddity in zip(sorted(rng.sample(sorted(files), len(oddities))), oddities, strict=True):
        # Never at either end: what stands there may look like a file that was cut.
        at = rng.randrange(5, len(files[name]) - 5)
        files[name][at] = oddity.line(json.loads(files[name][at]))
        listed.append(Listed(name, at + 1, oddity))
    return listed


def _add_twins(rng: random.Random, files: Mapping[str, list[bytes]], listed: list[Listed]) -> None:
    for name in rng.sample(_untouched(files, listed), TWINS // 2):
        lines = files[name]
        without_id = [at for at, line in enumerate(lines) if b"$insert_id" not in line]
        first, second = rng.sample(without_id[:-1], 2)
        lines.insert(first, lines[first])
        lines.append(lines[second])


def _add_blanks(rng: random.Random, files: Mapping[str, list[bytes]], listed: list[Listed]) -> None:
    for number in range(BLANKS):
        lines = files[rng.choice(_untouched(files, listed))]
        lines.insert(rng.randrange(1, len(lines)), [b"", b"  "][number % 2])


def _untouched(files: Mapping[str, list[bytes]], listed: list[Listed]) -> list[str]:
    """Files whose lines may move, because none of them is listed by its number."""
    return sorted(set(files) - {each.file for each in listed})


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        content = gzip.compress(content, compresslevel=9, mtime=0)
    path.write_bytes(content)


def _readme(files: Mapping[str, list[bytes]], listed: list[Listed], unended: str) -> str:
    lines = sum(len(rows) for rows in files.values())
    table = {
        part: "\n".join(
            f"| `{each.file}` | {each.line} | {each.oddity.what} | `{each.oddity.outcome}` |"
            for each in listed
            if each.oddity in part_of
        )
        for part, part_of in (("refused", REFUSED), ("fixed", FIXED))
    }
    return README.format(
        files=len(files),
        records=lines - BLANKS,
        sent=lines - BLANKS - len(REFUSED),
        refused=len(REFUSED),
        refused_table=table["refused"],
        fixed_table=table["fixed"],
        twins=TWINS,
        blanks=BLANKS,
        unended=unended,
    )


README = """\
# The sample

Ten days of an online shop, made up: {records:,} records in {files} files, the first of each day plain and the
others gzip. Made by `python -m sample.make_sample`; the same seed gives the same files.

A run over it imports {sent:,} records and refuses {refused}. Browsers and phones send an `$insert_id`, the
shop's server sends none. Lines are counted from 1.

## Refused

| file | line | what is wrong | reason |
| --- | --: | --- | --- |
{refused_table}

## Fixed, then imported

| file | line | what is wrong | how |
| --- | --: | --- | --- |
{fixed_table}

## Allowed

- {twins} rows without an `$insert_id` stand there twice. The same content gets the same id, so that Mixpanel
  shows one of each.
- {blanks} lines are blank; they are no records.
- `{unended}` does not end with a newline; its last record counts as any other.
"""


def main() -> None:
    """Write the sample to the folder named on the command line, or beside this file."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    listed = make_sample(folder)
    size = sum(path.stat().st_size for path in folder.glob("events/*/*"))
    print(f"{folder}: {size:,} bytes of events, {len(listed)} of them odd")


if __name__ == "__main__":
    main()
