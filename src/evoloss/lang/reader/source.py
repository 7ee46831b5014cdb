"""Python text to a syntax tree, within limits that keep Python's own parser quick and safe.

The text is looked at before it is parsed: brackets nested too deep, long runs of signs and endless
numbers are what a parser can be made to choke on. The tree is never compiled.
"""

from __future__ import annotations

import ast
import re
import warnings

from evoloss.lang.reader.limits import (
    MAX_DIGITS,
    MAX_NESTING,
    MAX_OPERATORS,
    MAX_SOURCE,
    Refusal,
)

_DEPTH = 100  # of a syntax tree: a sum of 100 terms is 100 deep
_TOKENS = re.compile(
    r"#[^\n]*"
    r"|\"\"\"[\s\S]*?(?:\"\"\"|\Z)|'''[\s\S]*?(?:'''|\Z)"
    r"|\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'"
    r"|(?P<number>\d[\w.]*)|\w+|(?P<open>[(\[{])|(?P<close>[)\]}])|\n|[^\w\s]"
)
_PREFIXES = frozenset({"-", "+", "~", "not", "lambda", "await", "yield", "*"})


def tree_of(text: str, line: int) -> ast.stmt | None:
    """The statement of a text that begins at a line of the reply; None if it is empty.

    Raises Refusal for a text that is not one statement, or beyond the limits.
    """
    _check_text(text, line)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of texts with a stray backslash
            module = ast.parse(text)
    except SyntaxError as error:
        raise Refusal(f"syntax error: {error.msg}", line + (error.lineno or 1) - 1) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise Refusal(f"Python cannot parse this: {error}", line) from None
    _check_depth(module, line)
    ast.increment_lineno(module, line - 1)
    if len(module.body) > 1:
        raise Refusal("more than one statement at the top level", module.body[1].lineno)
    return module.body[0] if module.body else None


def _check_text(text: str, line: int) -> None:
    if len(text) > MAX_SOURCE:
        raise Refusal(f"a function of more than {MAX_SOURCE:,} characters", line)
    depth = run = 0
    for match in _TOKENS.finditer(text):
        token = match.group()
        here = line + text.count("\n", 0, match.start()) if depth >= MAX_NESTING else line
        run = run + 1 if token in _PREFIXES else 0
        depth += bool(match.group("open")) - bool(match.group("close"))
        if depth > MAX_NESTING:
            raise Refusal(f"brackets nested deeper than {MAX_NESTING} levels", here)
        if run > MAX_OPERATORS:
            raise Refusal(f"more than {MAX_OPERATORS} signs in a row", line)
        if match.group("number") and len(token) > MAX_DIGITS:
            raise Refusal(f"a number of more than {MAX_DIGITS} digits", line)


def _check_depth(module: ast.Module, line: int) -> None:
    """Refuses a tree that is too deep to be walked by functions that call themselves."""
    layer: list[ast.AST] = [module]
    for _ in range(_DEPTH):
        layer = [child for node in layer for child in ast.iter_child_nodes(node)]
        if not layer:
            return
    raise Refusal(f"an expression or a block nested deeper than {_DEPTH} levels", line)
