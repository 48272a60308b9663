"""Objects with the same key twice: taken as they are, or refused where a run asks for it."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.backfills import Backfills, event, ndjson
from tests.files import parts_of, read_blocks
from transforms.dead_letters import LinePlaces
from transforms.duplicate_keys import has_key_twice, refuse_duplicates
from transforms.elements import block_lines

TWICE = ndjson([event(1)]).rstrip().replace(b'"amount":', b'"amount": 7, "amount":')


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"a":1,"a":1}', True),
        (b'{"a":1,"\\u0061":2}', True),
        (b'[{"a":[{"b":1,"c":2,"b":3}]}]', True),
        (b'{"":1,"":2}', True),
        (b'{"a":1,"b":{"a":2},"c":[{"a":3},{"a":4}]}', False),
        (b'{"a":1,"A":2}', False),
        (b'{"x":"\\"a\\":1,\\"a\\":2"}', False),
        (b'{"a":1,"a":', False),
        (b'{"a":1,"a":\xff}', False),
        (b"[" * 100_000, False),
        (b"", False),
    ],
)
def test_a_key_twice_is_found_at_any_depth_and_however_it_is_spelled(line: bytes, expected: bool) -> None:
    assert has_key_twice(line) == expected


LINES = st.sampled_from(
    [b'{"a":1}', b"", b'{"a":1,"a":2}', b'{"n":{"b":1,"b":1},"x":"' + b"y" * 30 + b'"}', b"no"]
)


@given(st.lists(LINES, min_size=1, max_size=12))
def test_lines_that_are_refused_keep_their_places_and_so_do_their_neighbours(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    path: Path = tmp_path_factory.mktemp("twice") / "a.json"
    path.write_bytes(b"\n".join(lines) + b"\n")
    for block in read_blocks(parts_of(path))[:-1]:
        refused = refuse_duplicates(block)
        before, after = block_lines(block), block_lines(refused)

        assert [line.index for line in refused.refused] == [
            i for i, x in enumerate(before) if has_key_twice(x)
        ]
        places, moved = LinePlaces(block, before), LinePlaces(refused, after)
        assert [places.sources[i] for i in range(len(before))] == [
            moved.sources[i] for i in range(len(after))
        ]
        for index, (was, now) in enumerate(zip(before, after, strict=True)):
            assert (base64.b64decode(now) if has_key_twice(was) else now) == was, index


@pytest.mark.parametrize("policy", ["last", "refuse"])
def test_a_run_takes_them_or_refuses_them(policy: str, backfills: Backfills) -> None:
    path = backfills.write("a.json", [event(0), TWICE, event(2)])
    outcome = backfills.run(str(path), {"records.duplicate_keys": policy, "run.allow_dead_letters": 1})

    assert outcome.code == 0, outcome.err
    arrived = set(backfills.emulator.records())
    assert arrived >= set(ndjson([event(0), event(2)]).splitlines())
    assert (TWICE in arrived) == (policy == "last")
    if policy == "refuse":
        (letter,) = outcome.dead_letters()
        assert (letter["reason"], letter["source"]["line"]) == ("duplicate_keys", 2)
        assert base64.b64decode(letter["raw_b64"]) == TWICE
