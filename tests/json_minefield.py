"""JSON as it should not be, as it may be, and as it oddly is: made by rule, class by class.

After the classes that test suites of parsers have: what RFC 8259 says must be parsed, what must be refused,
and what a parser may do either with. Each case has a name; none holds a newline, as each is to be a line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from typing import Final

Cases = dict[str, bytes]

_INTEGERS: Final = ("0", "-0", "1", "-1", "9", "-123", "1234567890", "12345678901234567890")
_FRACTIONS: Final = ("", ".0", ".25", ".000000000000000000000000000001")
_EXPONENTS: Final = ("", "e0", "E5", "e+2", "E-10")
_ESCAPES: Final = ('\\"', "\\\\", "\\/", "\\b", "\\f", "\\n", "\\r", "\\t")
_CODE_POINTS: Final = (
    0x0,
    0x1F,
    0x20,
    0x7F,
    0x80,
    0xFF,
    0x3A9,
    0x2028,
    0x2029,
    0xFEFF,
    0xFFFD,
    0xFFFE,
    0xFFFF,
)
_BEYOND: Final = (0x10000, 0x1D11E, 0x1F602, 0xFFFFF, 0x10FFFD, 0x10FFFF)

_NO_NUMBERS: Final = """
+1 01 -01 00 -00 012 0x1 0xFF -0x1 1. -1. .5 -.5 . - + ++1 -- --1 1- 1+ 1e 1E 1e+ 1E- 1ee2 1e1.5 1.5.2 1.e2
.e1 0.e1 0e 0e+ 0E+ 1_000 1a -a -foo 1eE2 0.1.2 0.3e 0.3e+ 1.0e 1.0e- 1e0e1 -2. -1.0. 1f 1L 0b1 0o7 1/2
Inf Infinity -Infinity +Infinity NaN -NaN nan inf INF -Inf 1.2a-3 1.8011670033376514H-308 \uff11
"""
_NO_STRUCTURES: Final = r"""
True False NULL Null TRUE nul tru fals nulll truth undefined None 1null truefalse nullnull
[ ] { } [1 [1, [1,, [,1] [,] [1,] [1,,2] [1,2,] [1;2] [1:2] [1} [1) [} {] [[] []] [1]] ][ [1]x x[1] [x
{"a" {"a": {"a":1 {"a":1, {"a":1,} {"a":1,,"b":2} {,"a":1} {"a"} {"a",1} {"a":} {"a"::1} {"a":1:2} {"a":1]
{a:1} {a:"b"} {'a':1} {"a":'b'} {1:1} {null:1} {[]:1} {"a":1}} {{"a":1}} {"a":1}]
{"a":"b"}#c {"a":"b"}/**/ {"a":"b"}// /**/{} //{} #{} [1]// [1,//2] [1/**/,2] {"a":/*c*/1}
'a' "a "a"b "a""b" “a” `a` a <a> <null> @ * ? & ~ $ % ^ | = ; : , ! \ \u0000
[\u0020 ["a \n ["", ["a",4 ["a" {"a":tru [nul [tru [fals [-] [1e1, [0e {"a":0x1} (1) (1,2)
{}{} [][] ""{} []"" 1"a" {"a":-} {"a":+1} {"a":.5} {"a":1.}
["\"] ["\\\"] ["a\] {"\u12":1} {"a\":1} {"a\x":1}
"""


def must_parse() -> Cases:
    """Returns values that every parser of JSON takes."""
    cases: Cases = {}
    for whole, fraction, exponent in product(_INTEGERS, _FRACTIONS, _EXPONENTS):
        cases[f"number {whole}{fraction}{exponent}"] = f"{whole}{fraction}{exponent}".encode()
    for escape in _ESCAPES:
        cases[f"escape {escape}"] = f'"a{escape}b"'.encode()
    for point in _CODE_POINTS:
        cases[f"escaped U+{point:04X}"] = f'"\\u{point:04x}\\u{point:04X}"'.encode()
        if point >= 0x20:
            cases[f"raw U+{point:04X}"] = f'"{chr(point)}"'.encode()
    for point in _BEYOND:
        cases[f"raw U+{point:X}"] = f'"{chr(point)}"'.encode()
        cases[f"pair U+{point:X}"] = json.dumps(chr(point)).encode()
    for literal in ("true", "false", "null", '""', '" "', "[]", "{}", "[[]]", '[""]', "[null, 1, true]"):
        cases[f"literal {literal}"] = literal.encode()
    for name, space in {"space": " ", "tab": "\t", "return": "\r", "all": " \t\r "}.items():
        cases[f"{name} around a value"] = f"[{space}1{space}]".encode()
        cases[f"{name} around a colon"] = f'{{{space}"a"{space}:{space}1{space}}}'.encode()
        cases[f"{name} around a comma"] = f"[1{space},{space}2]".encode()
    cases |= {
        "empty key": b'{"":0}',
        "same key twice": b'{"a":1,"a":2}',
        "same key and value twice": b'{"a":1,"a":1}',
        "key with an escaped NUL": b'{"a\\u0000b":1}',
        "long strings": b'{"x":[{"id":"%b"}],"id":"%b"}' % (b"x" * 40, b"x" * 40),
        "brackets in a string": b'"]}{[,:"',
        "comment in a string": b'"/* */ // #"',
        "backslashes in a row": b'"\\\\\\\\\\\\"',
        "text like an escape": b'"\\\\u12345"',
        "nesting": b"[" * 90 + b"]" * 90,
        "many values": b"[" + b"1," * 200 + b"1]",
    }
    return cases


def must_refuse() -> Cases:
    """Returns what no parser of JSON may take."""
    return dict(_broken())


def _broken() -> Iterator[tuple[str, bytes]]:
    for token in _NO_NUMBERS.split():
        yield f"number {token}", token.encode()
    for code in range(0x20):
        if code != 0x0A:
            yield f"raw control U+{code:04X} in a string", b'"a%cb"' % code
        if code not in (0x09, 0x0A, 0x0D):
            yield f"raw control U+{code:04X} between values", b"[1,%c2]" % code
    for letter in "acdeghijklmopqsvwxyzABFNRTUX0123'`.é\U0001f602":
        yield f"escape {letter!r}", f'"\\{letter}"'.encode()
    for digits in ("", "0", "00", "00a", "00g0", "D83", "{1F602}", "+123", "-123", " 123", "\uff110000"):
        yield f"short escape {digits!r}", f'"\\u{digits}"'.encode()
    for token in _NO_STRUCTURES.split():
        yield f"structure {token}", token.encode()
    for number, space in enumerate("\u00a0\u0085\u2028\u2060\ufeff"):
        yield f"space that is none {number}", f"[{space}1]".encode()
    yield "number with space inside", b"1 000"
    yield "minus and space", b"- 1"
    yield "values apart by a space", b"[1 true]"
    yield "keys apart by a space", b'{"a":1 "b":2}'
    yield "strings apart by a space", b'["a" "b"]'
    yield "key and value apart by a space", b'{"a" 1}'
    yield "two empty objects apart", b"{} {}"
    yield "two empty arrays apart", b"[] []"
    yield "two values apart", b"1 2"
    yield "form feed between", b"[\x0c]"
    yield "vertical tab between", b"[\x0b]"
    yield "lines ended by CR alone", b'{"event":"a"}\r{"event":"b"}'
    yield "unended nesting", b"[" * 200
    yield "unended objects", b'{"a":' * 200
    yield "unopened nesting", b"[" * 50 + b"]" * 51
    yield "NUL before", b"\0{}"
    yield "NUL behind", b"{}\0"
    yield "DEL", b"\x7f"
    yield "single quote", b'"'
    yield "unended string", b'["abc'
    yield "unended string in an object", b'{"a":"b'
    yield "SQL", b"INSERT INTO x VALUES (1);"
    yield "a header of CSV", b"event,time,distinct_id"
    yield "YAML", b"- event: a"


EITHER: Final[dict[str, tuple[bytes, str]]] = {
    # What a parser may do either with; here with what becomes of it as a property's value.
    "exponent beyond double": (b"1e400", "sent"),
    "negative beyond double": (b"-1e9999", "sent"),
    "exponent below double": (b"1e-400", "sent"),
    "exponent beyond int": (b"1e99999999999", "sent"),
    "negative exponent beyond int": (b"-1e-99999999999", "sent"),
    "integer beyond 64 bits": (b"18446744073709551616", "sent"),
    "negative beyond 64 bits": (b"-9223372036854775809", "sent"),
    "integer of 20 digits": (b"12345678901234567890", "sent"),
    "integer of 1,000 digits": (b"1" * 1000, "sent"),
    "integer of 5,000 digits": (b"7" * 5000, "sent"),
    "digits beyond double": (b"0.1000000000000000055511151231257827021181583404541015625", "sent"),
    "lone high surrogate": (rb'"\uD800"', "lone_surrogate"),
    "lone low surrogate": (rb'"\uDC00"', "lone_surrogate"),
    "surrogates swapped": (rb'"\uDd1e\uD834"', "lone_surrogate"),
    "high surrogate and text": (rb'"\uD800abc"', "lone_surrogate"),
    "high surrogate and escape": (rb'"\uD800\n"', "lone_surrogate"),
    "high surrogate and letter": (rb'"\uD800\u0041"', "lone_surrogate"),
    "two high surrogates": (rb'"\uD800\uD800"', "lone_surrogate"),
    "surrogate in a key": (rb'{"\uDFAA":0}', "lone_surrogate"),
    "half a surrogate": (rb'"\uD800\u1"', "invalid_json"),
    "lone continuation": (b'"\x81"', "invalid_utf8"),
    "bytes FE FF": (b'"\xfe\xff"', "invalid_utf8"),
    "latin-1": (b'"caf\xe9"', "invalid_utf8"),
    "windows-1252": (b'"\x93quoted\x94"', "invalid_utf8"),
    "overlong slash": (b'"\xc0\xaf"', "invalid_utf8"),
    "overlong in six bytes": (b'"\xfc\x83\xbf\xbf\xbf\xbf"', "invalid_utf8"),
    "overlong NUL": (b'"\xc0\x80"', "invalid_utf8"),
    "surrogate in UTF-8": (b'"\xed\xa0\x80"', "invalid_utf8"),
    "beyond U+10FFFF": (b'"\xf4\xbf\xbf\xbf"', "invalid_utf8"),
    "cut sequence": (b'"\xe2\x82"', "invalid_utf8"),
    "cut by the quote": (b'"\xf0\x9f\x98"', "invalid_utf8"),
    "UTF-16 inside": ('"é"'.encode("utf-16-le"), "invalid_utf8"),
    "byte order mark before the value": (b'\xef\xbb\xbf"a"', "invalid_json"),
    "non-character": (b'"\xef\xbf\xbf"', "sent"),
    "nesting of 500": (b"[" * 500 + b"]" * 500, "too_deep"),
    "nesting of 100,000": (b"[" * 100_000 + b"]" * 100_000, "too_deep"),
}
