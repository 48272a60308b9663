"""The `where` and `on` expressions of the query and export APIs, as far as they are simple."""

import re
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, NamedTuple

TOKENS = 2000  # an expression longer than this is refused, so that parsing it cannot exhaust the stack
NESTING = 50
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<number>-?\d+(?:\.\d+)?)"""
    r"""|(?P<word>[A-Za-z_]\w*)|(?P<mark>==|!=|<=|>=|<|>|\(|\)|\[|\]|,))"""
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda left, right: bool(left == right),
    "!=": lambda left, right: bool(left != right),
    "<": lambda left, right: bool(left < right),
    "<=": lambda left, right: bool(left <= right),
    ">": lambda left, right: bool(left > right),
    ">=": lambda left, right: bool(left >= right),
    "in": lambda left, right: left in right,
}


class ExpressionError(ValueError):
    """An expression that cannot be understood."""


class Subject(NamedTuple):
    """What an expression is evaluated on: properties of an event or profile, and `event[...]`."""

    properties: dict[str, Any]
    event: dict[str, Any]


Expression = Callable[[Subject], Any]


def compile_expression(text: str) -> Expression:
    """Returns a function that evaluates an expression on a subject.

    >>> compile_expression('properties["n"] > 2 and not properties["n"] == 4')(Subject({"n": 3}, {}))
    True
    """
    parser = _Parser(_tokens(text))
    expression = parser.either(0)
    if parser.peek() is not None:
        raise ExpressionError(f"unexpected {parser.peek()} in expression")
    return expression


class _Parser:
    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._next = 0

    def peek(self) -> str | None:
        return self._tokens[self._next][1] if self._next < len(self._tokens) else None

    def either(self, depth: int) -> Expression:
        if depth > NESTING:
            raise ExpressionError("expression is nested too deeply")
        parts = [self._both(depth)]
        while self._takes("or"):
            parts.append(self._both(depth))
        return parts[0] if len(parts) == 1 else lambda subject: any(part(subject) for part in parts)

    def _both(self, depth: int) -> Expression:
        parts = [self._negation(depth)]
        while self._takes("and"):
            parts.append(self._negation(depth))
        return parts[0] if len(parts) == 1 else lambda subject: all(part(subject) for part in parts)

    def _negation(self, depth: int) -> Expression:
        negated = False
        while self._takes("not"):
            negated = not negated
        inner = self._comparison(depth)
        return (lambda subject: not inner(subject)) if negated else inner

    def _comparison(self, depth: int) -> Expression:
        left = self._operand(depth)
        word = self.peek()
        if word == "not":
            self._next += 1
            self._expect("in")
            return _compared("in", left, self._operand(depth), negated=True)
        if word not in _COMPARE:
            return left
        self._next += 1
        return _compared(word, left, self._operand(depth))

    def _operand(self, depth: int) -> Expression:
        if self._next >= len(self._tokens):
            raise ExpressionError("expression ends too early")
        kind, text = self._tokens[self._next]
        self._next += 1
        if kind == "text":
            return _constant(_unquoted(text))
        if kind == "number":
            return _constant(float(text) if "." in text else int(text))
        if kind == "word":
            return self._named(text, depth)
        if text == "(":
            inner = self.either(depth + 1)
            self._expect(")")
            return inner
        if text == "[":
            return self._list(depth)
        raise ExpressionError(f"unexpected {text} in expression")

    def _named(self, name: str, depth: int) -> Expression:
        if name in ("true", "false"):
            return _constant(name == "true")
        if name in ("null", "undefined"):
            return _constant(None)
        if name in ("properties", "user", "event"):
            self._expect("[")
            key = self._text()
            self._expect("]")
            return _looked_up(name, key)
        self._expect("(")
        inner = self.either(depth + 1)
        self._expect(")")
        return _called(name, inner)

    def _list(self, depth: int) -> Expression:
        items = []
        while self.peek() != "]":
            items.append(self._operand(depth + 1))
            if not self._takes(","):
                break
        self._expect("]")
        return lambda subject: [item(subject) for item in items]

    def _text(self) -> str:
        if self._next < len(self._tokens) and self._tokens[self._next][0] == "text":
            self._next += 1
            return _unquoted(self._tokens[self._next - 1][1])
        raise ExpressionError("expected a property name in quotes")

    def _takes(self, word: str) -> bool:
        if self.peek() != word:
            return False
        self._next += 1
        return True

    def _expect(self, word: str) -> None:
        if not self._takes(word):
            raise ExpressionError(f"expected {word}, got {self.peek() or 'the end'}")


def _tokens(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    position = 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise ExpressionError(f"cannot read expression at character {position}")
        if len(found) >= TOKENS:
            raise ExpressionError("expression is too long")
        found.append((match.lastgroup, match[match.lastgroup]))
        position = match.end()
    return found


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])


def _constant(value: Any) -> Expression:
    return lambda subject: value


def _looked_up(name: str, key: str) -> Expression:
    if name == "event":
        return lambda subject: subject.event.get(key)
    return lambda subject: subject.properties.get(key)


def _compared(word: str, left: Expression, right: Expression, *, negated: bool = False) -> Expression:
    compare = _COMPARE[word]

    def holds(subject: Subject) -> bool:
        try:
            return compare(left(subject), right(subject)) != negated
        except TypeError:  # values that do not compare, such as a text with a number
            return word == "!=" or negated

    return holds


def _called(name: str, inner: Expression) -> Expression:
    if name not in _FUNCTIONS:
        raise ExpressionError(f"no such function: {name}")
    function = _FUNCTIONS[name]
    return lambda subject: function(inner(subject))


def _datetime(value: Any) -> float | None:
    """Returns epoch seconds of an ISO text (UTC) or of a number."""
    if isinstance(value, int | float):
        return float(value)
    try:
        moment = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "defined": lambda value: value is not None,
    "datetime": _datetime,
    "string": lambda value: None if value is None else str(value),
    "number": _number,
    "boolean": bool,
}
