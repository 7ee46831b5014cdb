"""Replies that attack whoever reads them: nothing runs, and time and memory stay within bounds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evoloss.lang.reader import Read, Refused, read
from evoloss.lang.reader.source import tree_of

SOURCES = Path(__file__).resolve().parents[2] / "src"
HEAD = "def loss_fn_1(log_probs_forget, log_probs_retain):\n"
GOOD = "return log_probs_forget.mean() - log_probs_retain.mean()"


def function(body: str, name: str = "loss_fn_1") -> str:
    return HEAD.replace("loss_fn_1", name) + "".join(f"    {line}\n" for line in body.split("\n"))


EFFECTS = [
    "open({path!r}, 'w').write('x')",
    "__import__('pathlib').Path({path!r}).touch()",
    "import pathlib\npathlib.Path({path!r}).touch()",
    "exec(\"open({path!r}, 'w')\")",
    "eval(\"open({path!r}, 'w')\")",
    "torch.save(log_probs_forget, {path!r})",
    "torch.load({path!r})",
    "np.save({path!r}, 1)",
    "math.__loader__.load_module('os').mknod({path!r})",
    "torch.os.mknod({path!r})",
    "torch.__builtins__['open']({path!r}, 'w')",
    "log_probs_forget.__class__.__init__.__globals__['open']({path!r}, 'w')",
    "log_probs_forget.numpy().tofile({path!r})",
    "().__class__.__base__.__subclasses__()[0]",
    "getattr(torch, 'sa' + 've')(1, {path!r})",
    "(lambda: open({path!r}, 'w'))()",
    "[open({path!r}, 'w') for _ in (1,)]",
    "f'{{open({path!r}, \"w\")}}'",
    "'{{0.__class__}}'.format(torch)",
    "print(1, file=open({path!r}, 'w'))",
    "log_probs_forget.register_hook(lambda g: open({path!r}, 'w'))",
    "torch.hub.load('a/b', 'c')",
    "torch.ops.load_library({path!r})",
    "torch.utils.cpp_extension.load('a', {path!r})",
    "globals()['F'] = None",
    "torch.exp = None",
    "del torch",
    "global math\nmath = None",
    "with open({path!r}, 'w') as f:\n    pass",
    "class A:\n    x = open({path!r}, 'w')",
    "@open\ndef g():\n    pass",
    "def g(x=open({path!r}, 'w')):\n    pass",
    "assert open({path!r}, 'w')",
    "x: open({path!r}, 'w') = 1\ny = x.z",
    "yield open({path!r}, 'w')",
    "log_probs_forget.zero_()",
    "log_probs_forget[0] = 1",
    "log_probs_forget.data = 1",
]


@pytest.mark.parametrize("effect", EFFECTS)
def test_nothing_of_a_reply_is_run(effect, tmp_path):
    path = tmp_path / "touched"
    body = effect.format(path=str(path)) + "\n" + GOOD
    (found,) = read(function(body))
    assert isinstance(found, Refused)
    top = [effect.format(path=str(path)), f"a = {effect.format(path=str(path))}"]
    for line in top:
        assert isinstance(read(f"{line}\n{function(GOOD)}")[-1], Read)
    assert not list(tmp_path.iterdir())


AUDITED = """
import json, sys
sys.path.insert(0, sys.argv[1])
from evoloss.lang.reader import read
replies = json.load(sys.stdin)
read(replies[0])  # the operator table's own texts are compiled once, on first use
events = []
sys.addaudithook(lambda event, args: events.append(f"open {args[0]}" if event == "open" else event))
for reply in replies:
    read(reply)
print(json.dumps(sorted(set(events))))
"""


def test_python_itself_sees_nothing_but_parsing():
    """By the interpreter's audit events: no code object runs, nothing is imported or opened."""
    effects = [effect.format(path="/nowhere/touched") for effect in EFFECTS]
    replies = [function(GOOD), *(function(f"{effect}\n{GOOD}") for effect in effects)]
    done = subprocess.run(
        [sys.executable, "-c", AUDITED, str(SOURCES)], input=json.dumps(replies), text=True,
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    # Python looks for the text of a line with a syntax error in a file of that name.
    allowed = {"compile", "builtins.id", "object.__getattr__", "open <unknown>"}
    assert set(json.loads(done.stdout)) <= allowed


HARMLESS_TOPS = ["import os", "from os import system", "print('x')", "x = 10 ** 10 ** 10",
                 "while True: pass", "raise SystemExit"]  # fmt: skip


@pytest.mark.parametrize("line", HARMLESS_TOPS)
def test_what_stands_around_a_good_function_does_no_harm(line):
    (found,) = read(f"{line}\n{function(GOOD)}{line}\n")
    assert isinstance(found, Read)


def numbered(body: str, count: int) -> str:
    return "".join(function(body, f"loss_fn_{k}") for k in range(1, count + 1))


X = "x = log_probs_forget\n"
CONDITION = "c = log_probs_forget.mean() > -1\n"
NAMES = "".join(f"a{i} = " for i in range(2000)) + "0\n"
NESTED = "a = [1]\nb = [1]\nfor i in range(40):\n    a = [a, a, a]\n    b = [b, b, b]\n"
CLOSED = "g = 1\nfor i in range(40):\n    g = (lambda g, h: lambda: g)(g, g)\n"
QUANTILES = (f"{X}for i in range(1, 25):\n    x = log_probs_forget + x.quantile(1 / (i + 1))\n"
             "return x.mean() - log_probs_retain.mean()")  # fmt: skip


def looped(line: str, before: str = "") -> str:
    return f"{before}a = range(999)\nfor i in a:\n    {line}\n{GOOD}"


def summed(term: str) -> str:
    loop = f"{X}s = 0.\nfor i in range(1, 75):\n    s = s + {term}\n"
    return f"{loop}return 100 * x.mean() + 0.001 * s - log_probs_retain.mean()"


BOMBS = {
    "doubling": function(f"{X}for i in range(900):\n    x = x + x\nreturn x.mean()"),
    "growing list": function(f"a = [1]\nfor i in range(100):\n    a = a + a\n{GOOD}"),
    "nested lists": function(f"a = [1]\nfor i in range(100):\n    a = [a, a, a]\n{GOOD}"),
    "nested loops": function("".join(f"{'    ' * i}for i{i} in range(999):\n" for i in range(6))
                             + "    " * 6 + f"pass\n{GOOD}"),
    "comprehension": function("s = [1 for a in range(999) for b in range(999)]\n" + GOOD),
    "sum of a range": function(f"s = sum(range(10 ** 12))\n{GOOD}"),
    "power": function("return log_probs_forget.mean() * 10 ** 10 ** 10"),
    "repeated power": function(f"x = 2\nfor i in range(900):\n    x = x ** 3\n{GOOD}"),
    "shift": function(f"x = 1 << 10 ** 12\n{GOOD}"),
    "product": function(f"x = 9\nfor i in range(900):\n    x = x * x\n{GOOD}"),
    "text": function(f"x = 'a' * 10 ** 12\n{GOOD}"),
    "format": function(f"x = '%999999999d' % 1\n{GOOD}"),
    "list": function(f"x = [0] * 10 ** 12\n{GOOD}"),
    "tensor": function(f"x = torch.zeros(10 ** 12)\n{GOOD}"),
    "repeat": function("return log_probs_forget.repeat(10 ** 12).mean()"),
    "branches": function("".join(f"if log_probs_forget.mean() > -{i}:\n    return {i}\n"
                                 for i in range(300)) + GOOD),
    "branches that leave": function(
        X + "".join(f"if x.mean() > -{i}:\n    x = x + 1\n    if x.sum() > 1:\n        return x\n"
                    for i in range(40)) + GOOD),
    "calls": "".join(f"def h{i}(x):\n    return h{i + 1}(h{i + 1}(x))\n" for i in range(25))
             + "def h25(x):\n    return x\n" + function("return h0(log_probs_forget).mean()"),
    "recursion": function("def g(x):\n    return g(x) + g(x)\nreturn g(log_probs_forget).mean()"),
    "lambda recursion": function("g = lambda h: h(h)\nreturn g(g)"),
    "loss recursion": function("return loss_fn_1(log_probs_forget, log_probs_retain)"),
    "many functions": numbered(
        f"{X}for i in range(30):\n    x = torch.sin(x)\nreturn x.mean()", 999),
    "many large functions": numbered(
        f"{X}y = x\nfor i in range(30):\n    y = y + torch.softmax(x * i, 0) * x.sort().values\n"
        "return y.mean()", 40),
    "many slow functions": numbered("a = [i for i in range(999)]\nb = [i for i in a]\n" + GOOD, 99),
    "lists gone through": numbered(looped("b = sum(a)"), 40),
    "lists asked": numbered(looped("b = all(a[1:])"), 40),
    "lists copied": numbered(looped("b = zip(a, a + [], [*a], list(a))"), 40),
    "lists chosen": numbered(looped("b = a if c else list(a)", CONDITION), 40),
    "lists unpacked": numbered(looped(f"{', '.join(f'a{i}' for i in range(999))} = a"), 20),
    "nested lists chosen": function(f"{CONDITION}{NESTED}x = a if c else b\n{GOOD}"),
    "nested list printed": function(f"{NESTED}return log_probs_forget.mean(dim=a)"),
    "closures printed": function(f"{CLOSED}return log_probs_forget.std(correction=g)"),
    "names merged": numbered(looped("if c: pass", CONDITION + NAMES), 12),
    "names left": numbered(looped("if c: return i", CONDITION + NAMES), 12),
    "names changed": numbered(looped("x += 1", f"{NAMES}x = 1 * log_probs_forget\n"), 12),
    "arguments": numbered(
        looped("g()", f"def g({', '.join(f'a{i}=0' for i in range(1500))}): return 1\n"), 12),
    "helpers": "".join(f"def h{i}(forget): pass\n" for i in range(8000)),
    "dead code": numbered(f"{GOOD}\n" + "x = (y, z)\n" * 300, 40),
    "many sums": numbered(summed("torch.topk(x.sort().values, 2).values.mean()"), 40),
    "many activations": numbered(summed("F.softplus(x * i).mean()"), 40),
    "many quantiles": numbered(QUANTILES, 40),
    "many quantiles and marks": numbered(QUANTILES, 40) + "(\n" + "'a' " * 45000,
    "long sum": function("return log_probs_forget.mean()" + " + 1" * 4500),
    "parentheses": function("return " + "(" * 5000 + "1" + ")" * 5000),
    "open brackets": function("return " + "(" * 19 + "1"),
    "open braces": function("return " + "{" * 19 + "1"),
    "mixed brackets": function("return " + "f(a={[(" * 5 + "1"),
    "wrong brackets": function("return " + "(a for a in [lambda x: {" * 6 + "1 1" + "}]" * 3),
    "lambdas": function("return " + "lambda: " * 2000 + "1"),
    "nots": function("return " + "not " * 3000 + "1"),
    "signs": function("return " + "-" * 9000 + "1"),
    "conditionals": function("return " + "1 if x else " * 1500 + "1"),
    "conditional beginnings": function("return " + "1 if x " * 2000),
    "comparisons": function("return " + "1 < " * 4000 + "1"),
    "attributes": function("return x" + ".a" * 9000),
    "subscripts": function("return x" + "[0]" * 6000),
    "called calls": function("return x" + "()" * 9000),
    "assignments": function("a = " * 4000 + "1"),
    "targets": function("a, " * 6000 + " = 1"),
    "keywords": function("return f(" + "a=1, " * 3000 + ")"),
    "indentation": HEAD + "".join(f"{' ' * i}if 1:\n" for i in range(1, 150)),
    "nested formats": function("return f'" + "{x!r:" * 18 + "}" * 18 + "'"),
    "digits": function("return " + "9" * 9000),
    "exponent": function("return 1e999999 * log_probs_forget.mean()"),
    "null bytes": function("return '\0'"),
    "surrogates": function("return '\ud800'"),
    "long text": function(f"x = '{'a' * 15000}'\n{GOOD}"),
    "answers": "<answer>" * 24000,
    "thoughts": "</think>" * 24000,
    "fences": "```\n" * 40000,
    "quotes": '"""' * 60000,
    "mixed quotes": "'\"\"\"" * 40000,
    "control tokens": "<|" * 90000,
    "unclosed": "(" * 190000,
    "definitions": "def f(x):\n" * 19000,
    "decorators": "@a\n" * 60000,
    "imports": "import math\n" * 16000,
    "constants": "a = 1\n" * 30000,
    "blank": " " * 190000,
    "annotation": "a" * 90000 + " : " + "b" * 90000,
    "too long": "a" * 10**7,
}  # fmt: skip

HARMLESS = ("nested lists", "long text", "many functions", "many large functions",
            "many slow functions", "dead code", "many sums", "many activations", "many quantiles",
            "many quantiles and marks")  # fmt: skip
"""What may be read as well, since it costs nothing; or up to the limits."""

WATCHED = """
import json, resource, sys, time
resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
sys.path.insert(0, sys.argv[1])
from evoloss.lang.reader import Read, read
spent = {}
for name, reply in json.load(sys.stdin).items():
    start = time.process_time()
    found = read(reply)
    accepted = sum(isinstance(each, Read) for each in found)
    spent[name] = (time.process_time() - start, accepted, len(found))
status = open("/proc/self/status").read()  # its peak is this program's, not its parent's
peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
print(json.dumps({"spent": spent, "peak": peak, "torch": "torch" in sys.modules}))
"""


@pytest.fixture(scope="module")
def watched() -> dict:
    """Every bomb read by one fresh interpreter: processor seconds of each, memory of all."""
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(SOURCES)], input=json.dumps(BOMBS), text=True,
        capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_within_a_second(watched, name):
    seconds, accepted, found = watched["spent"][name]
    assert seconds < 1.0
    if name not in HARMLESS:
        assert accepted == 0
    assert found or "def loss_fn" not in BOMBS[name]


def test_all_bombs_stay_within_the_memory_and_need_no_torch(watched):
    assert watched["peak"] < 200e6
    assert not watched["torch"]


def test_no_more_functions_than_the_limit(watched):
    for name in ("many functions", "many large functions", "many slow functions"):
        _, accepted, found = watched["spent"][name]
        assert accepted <= 40
        assert found > accepted


def test_a_function_that_exhausts_its_steps_does_not_spoil_the_next():
    slow = "s = [1 for a in range(999) for b in range(999)]\n" + GOOD
    first, second = read(function(slow) + function(GOOD, "loss_fn_2"))
    assert isinstance(first, Refused)
    assert isinstance(second, Read)


TOKENS = st.sampled_from([
    "def loss_fn_1(log_probs_forget):", "\n", "    ", "return ", "(", ")", "[", "]", "{", "}", "x",
    "=", "log_probs_forget", ".mean", "()", "if ", "else:", "for i in ", "range(3)", ":", ",", "+",
    "-", "**", "1", "0.5", "torch.", "exp", "lambda ", '"""', "'", "#", "<answer>", "</answer>",
    "@",
    "None", " is ", "not ", "f'{", "\\", "\t", "λ", "with torch.no_grad():", "while 1:", "del ",
])  # fmt: skip


@given(st.lists(TOKENS, max_size=60).map("".join))
def test_anything_at_all_is_read_or_refused(reply):
    for found in read(reply) + read(function(reply)):
        assert isinstance(found, Read | Refused)
        assert found.line >= 1


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(reply):
    assert isinstance(read(reply), list)


def test_the_tree_is_checked_before_it_is_parsed(monkeypatch):
    import ast

    monkeypatch.setattr(ast, "parse", lambda *_: pytest.fail("parsed"))
    for text in ("(" * 30, "-" * 30 + "1", "9" * 60, "a" * 30_000):
        with pytest.raises(Exception, match=r"nested|signs|digits|characters"):
            tree_of(text, 1)
