"""Makes the benchmark's input: valid events of an online shop, about 500 bytes each.

    python -m benchmarks.generate FOLDER --events 1000000 [--without-ids] [--gzip]

The same arguments give the same lines. Events have 15 to 23 properties; one in two has an `ip`, one in three
text beyond ASCII, one in five an array of objects.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

SEED = 500
VERSION = 1  # part of a cached folder's name: raise it with every change of what is made
START = 1_704_067_200  # 2024-01-01
SPAN = 90 * 86_400
POOL = 4_000  # different fragments of each kind, so that gzip finds no more to save than in real logs

CITIES = [
    ("Berlin", "DE"),
    ("São Paulo", "BR"),
    ("Austin", "US"),
    ("東京", "JP"),
    ("Lyon", "FR"),
    ("Leeds", "GB"),
]
WORDS = [
    *("oak", "wool", "lamp", "kettle", "shelf", "candle", "rug", "mug", "chair"),
    *("plant", "tea", "blanket", "brass", "linen", "glass", "cedar", "moss", "clay"),
]


@dataclass(frozen=True, slots=True)
class Shape:
    """What a folder of input looks like."""

    events: int
    files: int = 10
    with_ids: bool = True
    gzipped: bool = False

    @property
    def name(self) -> str:
        """A folder's name that says all of it."""
        ids = "ids" if self.with_ids else "no-ids"
        return f"v{VERSION}-{self.events}-in-{self.files}-{ids}-{'gz' if self.gzipped else 'plain'}"


def make_input(cache: Path, shape: Shape) -> Path:
    """Return a folder of that shape below `cache`, made unless it is there."""

    def fill(unfinished: Path) -> None:
        lines = make_lines(shape.events, shape.with_ids)
        for number in range(shape.files):
            count = shape.events // shape.files + (number < shape.events % shape.files)
            _write(unfinished / f"part-{number:05}.json", lines, count, shape.gzipped)

    return made_once(cache / shape.name, fill)


def made_once(folder: Path, fill: Callable[[Path], None]) -> Path:
    """Return a folder, filled unless it is there; it has its name only once it is whole."""
    if folder.exists():
        return folder
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    fill(unfinished)
    return unfinished.rename(folder)


def repeat_input(cache: Path, shape: Shape, times: int) -> Path:
    """Return a folder that holds each file of that shape several times, without taking the space."""
    source = make_input(cache, shape)
    folder = cache / f"{shape.name}-times-{times}"
    folder.mkdir(exist_ok=True)
    for number in range(times):
        for path in sorted(source.iterdir()):
            copy = folder / f"{number:03}-{path.name}"
            if not copy.exists():
                copy.hardlink_to(path)
    return folder


def make_tiny_files(cache: Path, count: int, per_folder: int = 1_000, events: int = 1) -> Path:
    """Return a folder with `count` files of an event or a few each, in folders of a thousand."""

    def fill(unfinished: Path) -> None:
        lines = make_lines(count * events, with_ids=True)
        for number in range(count):
            parent = unfinished / f"part={number // per_folder:05}"
            if number % per_folder == 0:
                parent.mkdir()
            (parent / f"{number:07}.json").write_bytes(b"".join(islice(lines, events)))

    return made_once(cache / f"v{VERSION}-{count}-tiny{events if events > 1 else ''}", fill)


def make_updates(cache: Path, updates: int, profiles: int, files: int = 10) -> Path:
    """Return a folder of updates of user profiles, each of which sets `n` to its number."""

    def fill(unfinished: Path) -> None:
        rng = random.Random(SEED)
        contexts = _pool(rng, _context)
        lines = (
            f'{{"$distinct_id":"u-{rng.randrange(profiles):09}",'
            f'"$set":{{"n":{n},{contexts[n % POOL]}}}}}\n'.encode()
            for n in range(updates)
        )
        for number in range(files):
            count = updates // files + (number < updates % files)
            _write(unfinished / f"part-{number:05}.json", lines, count, gzipped=False)

    return made_once(cache / f"v{VERSION}-{updates}-updates-of-{profiles}", fill)


def make_shuffled_updates(cache: Path, updates: int, profiles: int, files: int = 10) -> Path:
    """Return a folder of updates in any order, each of which sets `n` to its number, which is its time."""

    def fill(unfinished: Path) -> None:
        rng = random.Random(SEED)
        contexts = _pool(rng, _context)
        numbers = list(range(updates))
        rng.shuffle(numbers)
        lines = (
            f'{{"$distinct_id":"u-{n % profiles:09}","$time":{n},'
            f'"$set":{{"n":{n},{contexts[n % POOL]}}}}}\n'.encode()
            for n in numbers
        )
        for number in range(files):
            count = updates // files + (number < updates % files)
            _write(unfinished / f"part-{number:05}.json", lines, count, gzipped=False)

    return made_once(cache / f"v{VERSION}-{updates}-shuffled-updates-of-{profiles}", fill)


def make_lines(count: int, with_ids: bool) -> Iterator[bytes]:
    """Yield that many lines."""
    rng = random.Random(SEED)
    visitors = _pool(rng, _visitor)
    contexts = _pool(rng, _context)
    actions = _pool(rng, _action)
    for number in range(count):
        bits = rng.getrandbits(160)
        time = START + number * SPAN // count
        name, action = actions[bits % POOL]
        who = visitors[bits // POOL % POOL]
        where = contexts[bits // POOL**2 % POOL]
        session = f"{bits >> 112:012x}"
        insert_id = f',"$insert_id":"{_uuid(bits)}"' if with_ids else ""
        text = (
            f'{{"event":"{name}","properties":{{"time":{time},{who},{where},"session_id":"{session}",{action},'
            f'"load_ms":{bits >> 60 & 0xFFF},"scroll":{(bits >> 72 & 0x3FF) / 1024:.3f}{insert_id}}}}}\n'
        )
        yield text.encode()


def _uuid(bits: int) -> str:
    text = f"{bits & (1 << 128) - 1:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _pool(rng: random.Random, make: Callable[[random.Random], Any]) -> list[Any]:
    return [make(rng) for _ in range(POOL)]


def _fragment(properties: dict[str, object]) -> str:
    return json.dumps(properties, ensure_ascii=False, separators=(",", ":"))[1:-1]


def _visitor(rng: random.Random) -> str:
    number = rng.randrange(10**9)
    plan = rng.choice(["free", "member", "business"])
    return _fragment(
        {"distinct_id": f"u-{number:09}", "plan": plan, "signed_up": f"2023-{number % 12 + 1:02}-11"}
    )


def _context(rng: random.Random) -> str:
    city, country = rng.choice(CITIES)
    shown: dict[str, object] = {"$os": rng.choice(["iOS", "Android", "Windows", "macOS"]), "$city": city}
    shown |= {"mp_country_code": country, "$screen_width": rng.choice([390, 1280, 1440, 1920])}
    if rng.random() < 0.5:
        shown |= {"ip": f"198.51.{rng.randrange(100, 104)}.{rng.randrange(256)}"}
    if rng.random() < 0.4:
        shown |= {
            "utm_source": rng.choice(["google", "newsletter", "social"]),
            "utm_campaign": f"c{rng.randrange(90)}",
        }
    return _fragment(
        {**shown, "$browser": rng.choice(["Chrome", "Safari", "Firefox"]), "$browser_version": 122}
    )


def _action(rng: random.Random) -> tuple[str, str]:
    if rng.random() < 0.2:
        return "Order Completed", _fragment({"order_id": f"A{rng.randrange(10**7)}", "items": _items(rng)})
    product = " ".join(rng.sample(WORDS, 3))
    shown = {
        "sku": f"{rng.randrange(10**6):06}",
        "product": product,
        "price": rng.randrange(100, 40_000) / 100,
    }
    shown |= {"path": f"/p/{product.replace(' ', '-')}", "in_stock": rng.random() < 0.9, "coupon": None}
    return rng.choice(["Product Viewed", "Product Added", "Page Viewed", "Search Performed"]), _fragment(
        shown
    )


def _items(rng: random.Random) -> list[dict[str, object]]:
    return [
        {
            "sku": f"{rng.randrange(10**6):06}",
            "quantity": rng.randrange(1, 5),
            "price": rng.randrange(100, 9_000) / 100,
        }
        for _ in range(rng.randrange(1, 4))
    ]


def _write(path: Path, lines: Iterator[bytes], count: int, gzipped: bool) -> None:
    content = b"".join(next(lines) for _ in range(count))
    if gzipped:
        path.with_suffix(".json.gz").write_bytes(gzip.compress(content, compresslevel=6, mtime=0))
    else:
        path.write_bytes(content)


def main() -> None:
    """Make the input that the command line describes and print its folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=10)
    parser.add_argument("--without-ids", action="store_true")
    parser.add_argument("--gzip", action="store_true")
    given = parser.parse_args()
    print(make_input(given.folder, Shape(given.events, given.files, not given.without_ids, given.gzip)))


if __name__ == "__main__":
    main()
