"""Reads infix text as a loss expression; errors show the spot with a caret.

Grammar, loosest first: comparison `<` `>` `<=` `>=` `==` `!=`; sum `+` `-`; product `*` `/`; sign
`-`; then numbers, inputs, calls `name(…)` and parentheses. A minus before a number is part of the
number. A network is `ml3(y, f, "…")`, its weights between the quotes.
"""

import difflib
import re
from dataclasses import dataclass

from evoloss.errors import LossError
from evoloss.lang.expr import Call, Const, Expr, Input, check, children
from evoloss.lang.network import INPUTS, NAME, Network
from evoloss.lang.ops import OPERATORS
from evoloss.lang.types import SUPERVISED, Signature
from evoloss.wording import counted

_TOKEN = re.compile(
    r"\s*(?:(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)|([A-Za-z_]\w*)"
    r'|"([^"]*)"|([<>=!]=|.))'
)
_LEVELS: tuple[dict[str, str], ...] = (
    {"<": "lt", ">": "gt", "<=": "le", ">=": "ge", "==": "eq", "!=": "ne"},
    {"+": "add", "-": "sub"},
    {"*": "mul", "/": "div"},
)
MAX_DEPTH = 100  # of calls and parentheses; well within what Python can recurse
_SHOWN = 400
_AROUND = 60  # characters of a longer text that an error shows, on either side of the spot


class ParseError(LossError):
    """Text that is not an expression; the message ends with the text and a caret below the spot."""

    def __init__(self, message: str, text: str, position: int) -> None:
        line = text.replace("\n", " ")
        if len(line) > _SHOWN:
            begin = max(0, position - _AROUND)
            line, position = line[begin : position + _AROUND], position - begin
        super().__init__(f"{message}\n  {line}\n  {' ' * position}^")


@dataclass(frozen=True)
class _Token:
    kind: str  # number, name, quoted, symbol or end
    text: str
    position: int


def _tokens(text: str) -> list[_Token]:
    found = []
    for match in _TOKEN.finditer(text):
        for group, kind in enumerate(("number", "name", "quoted", "symbol"), start=1):
            if match.group(group) is not None and (match.group(group).strip() or kind == "quoted"):
                found.append(_Token(kind, match.group(group), match.start(group)))
    return [*found, _Token("end", "", len(text.rstrip()))]


class _Reader:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str, signature: Signature) -> None:
        self.text = text
        self.signature = signature
        self.tokens = _tokens(text)
        self.next = 0
        self.depth = 0

    @property
    def token(self) -> _Token:
        return self.tokens[self.next]

    def error(self, message: str, token: _Token | None = None) -> ParseError:
        return ParseError(message, self.text, (token or self.token).position)

    def take(self, symbol: str | None = None) -> _Token:
        token = self.token
        if symbol is not None and token.text != symbol:
            found = f"'{token.text}'" if token.text else "the end"
            raise self.error(f"expected '{symbol}', found {found}")
        self.next += 1
        return token

    def whole(self) -> Expr:
        expr = self.level(0)
        if self.token.kind != "end":
            raise self.error(f"expected an operator or the end, found '{self.token.text}'")
        if _is_too_deep(expr):  # a long chain of terms is a deep tree without being nested text
            raise self.error(f"nested deeper than {MAX_DEPTH} levels", self.tokens[0])
        return expr

    def level(self, precedence: int) -> Expr:
        if precedence == len(_LEVELS):
            return self.sign()
        expr = self.level(precedence + 1)
        while (op := _LEVELS[precedence].get(self.token.text)) is not None:
            self.take()
            expr = Call(op, (expr, self.level(precedence + 1)))
        return expr

    def sign(self) -> Expr:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.error(f"nested deeper than {MAX_DEPTH} levels")
        try:
            if self.token.text != "-":
                return self.atom()
            self.take()
            if self.token.kind == "number":
                return Const(-self.number())
            return Call("neg", (self.sign(),))
        finally:
            self.depth -= 1

    def number(self) -> float:
        token = self.take()
        value = float(token.text)
        if value == float("inf"):
            raise self.error(f"the number {token.text} is too large", token)
        return value

    def atom(self) -> Expr:
        token = self.token
        if token.kind == "number":
            return Const(self.number())
        if token.text == "(":
            self.take()
            expr = self.level(0)
            self.take(")")
            return expr
        if token.kind == "name":
            self.take()
            return self.call(token) if self.token.text == "(" else self.input(token)
        found = f"'{token.text}'" if token.text else "the end"
        raise self.error(f"expected a number, an input or a function, found {found}")

    def input(self, token: _Token) -> Expr:
        if token.text in self.signature.inputs:
            return Input(token.text)
        if token.text in OPERATORS:
            raise self.error(f"{token.text} is a function: write {token.text}(…)", token)
        known = ", ".join(self.signature.inputs)
        raise self.error(f"unknown input '{token.text}' (inputs: {known})", token)

    def call(self, token: _Token) -> Expr:
        if token.text == NAME:
            return self.network()
        row = OPERATORS.get(token.text)
        if row is None:
            near = difflib.get_close_matches(token.text, OPERATORS, 1)
            hint = f", did you mean {near[0]}?" if near else f" (known: {', '.join(OPERATORS)})"
            raise self.error(f"unknown operator '{token.text}'{hint}", token)
        self.take("(")
        args = [self.level(0)]
        while self.token.text == ",":
            self.take()
            args.append(self.level(0))
        self.take(")")
        if len(args) != row.arity:
            raise self.error(
                f"{row.name} takes {counted(row.arity, 'operand')}, found {len(args)}", token
            )
        return Call(row.name, tuple(args))

    def network(self) -> Network:
        """What follows the name: its inputs and its weights."""
        for symbol in ("(", INPUTS[0], ",", INPUTS[1], ","):
            self.take(symbol)
        token = self.take()
        if token.kind != "quoted":
            raise self.error(f'expected the weights of {NAME} in quotes, as in "…"', token)
        try:
            network = Network.decoded(token.text)
        except LossError as error:
            raise self.error(str(error), token) from error
        self.take(")")
        return network


def _is_too_deep(expr: Expr) -> bool:
    layer = [expr]
    for _ in range(MAX_DEPTH + 1):
        layer = [child for node in layer for child in children(node)]
    return bool(layer)


def parse_expression(text: str, signature: Signature = SUPERVISED) -> Expr:
    """The expression of a text, whether or not it is a complete loss. Raises ParseError."""
    return _Reader(text, signature).whole()


def parse(text: str, signature: Signature = SUPERVISED) -> Expr:
    """The loss of a text, such as `square(y - f)`.

    Raises ParseError with a caret at the spot, or LossError if the expression is not a loss of
    the signature (an input that is missing, a wrong type).
    """
    return check(parse_expression(text, signature), signature)
