"""Samples of a language model, several at once, in one phase or in two.

Two-phase sampling (Batorski and Swoboda, arXiv 2602.02139) lets the model reason at one temperature
up to `<answer>` and writes the code at a lower one. Over chat completions the second call ends with
the reasoning as a message of the assistant, which vLLM, SGLang and llama.cpp continue with
`continue_final_message`; others continue such a message anyway, or begin a new one, which is as
good. A server that refuses it (hosted models, the thinking mode of llama.cpp) gets the reasoning as
a finished message and a request for the code after it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from evoloss.propose.llm.connection import Call, Connection, Messages, key_of, load_library
from evoloss.propose.llm.endpoint import Budget, Endpoint, Usage
from evoloss.propose.llm.stream import Reply

_CONTINUED = {"continue_final_message": True, "add_generation_prompt": False}
_NOW_THE_CODE = "Now write your functions: only the answer, between <answer> and </answer>."

Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Prompt:
    """Messages, and the generator that a sample's seed and pauses are drawn from."""

    messages: Messages
    rng: np.random.Generator


@dataclass(frozen=True)
class Answer:
    """The text that holds the functions; reason: why there is none, or not all of it."""

    text: str
    reason: str
    calls: tuple[Call, ...]


class Client:
    """An endpoint in use, and what was spent there. Raises UserError without its library."""

    def __init__(self, endpoint: Endpoint, spent: Usage | None = None) -> None:
        load_library()
        self.endpoint = endpoint
        self.budget = Budget(endpoint, spent or Usage())
        self._left_out: set[str] = set()

    def ask(self, prompts: Sequence[Prompt], retries: int | None = None) -> list[Answer]:
        """An answer to each prompt. retries: other than the endpoint's."""
        if not prompts:
            return []
        endpoint = self.endpoint
        # Without a key the library would refuse to start; a server that wants none ignores this.
        with load_library().OpenAI(
            base_url=endpoint.url, api_key=key_of(endpoint) or "none", max_retries=0,
            timeout=endpoint.timeout,
        ) as service:  # fmt: skip
            most = endpoint.retries if retries is None else retries
            connection = Connection(endpoint, self.budget, service, most, self._left_out)
            try:
                return _in_parallel(
                    lambda prompt: _answer(connection, prompt), prompts, endpoint.samples_at_once
                )
            finally:
                connection.stopped.set()


def _answer(connection: Connection, prompt: Prompt) -> Answer:
    """One sample."""
    endpoint = connection.endpoint
    sampling = {"temperature": endpoint.temperature, "top_p": endpoint.top_p}
    if not endpoint.two_phase:
        return _answered(
            connection, connection.call("single", prompt.messages, sampling, prompt.rng)
        )
    stopping = {**sampling, "stop": ["<answer>"]}
    first = connection.call("reasoning", prompt.messages, stopping, prompt.rng)
    if first is None or not (first.reply.text or first.reply.reasoning):
        return _answered(connection, first)
    if first.reply.text.partition("<answer>")[2].strip():
        return _answered(connection, first)  # the server knows no stops: this is the whole answer
    return _coded(connection, prompt, first)


def _coded(connection: Connection, prompt: Prompt, first: Call) -> Answer:
    """The second phase, after the call that reasoned."""
    thoughts = _thoughts(first.reply)
    sampling = {"temperature": connection.endpoint.code_temperature, "stop": ["</answer>"]}
    calls = [first]
    if "continue_final_message" not in connection.left_out:
        begun = {"role": "assistant", "content": f"{thoughts}\n<answer>\n"}
        options = {**sampling, **_CONTINUED}
        call = connection.call("code", (*prompt.messages, begun), options, prompt.rng)
        if call is None or call.reply.status not in (400, 422):
            return _answered(connection, *calls, call)
        calls.append(call)
        connection.left_out.add("continue_final_message")
    done = {"role": "assistant", "content": thoughts}
    request = {"role": "user", "content": _NOW_THE_CODE}
    call = connection.call("code", (*prompt.messages, done, request), sampling, prompt.rng)
    return _answered(connection, *calls, call)


def _answered(connection: Connection, *calls: Call | None) -> Answer:
    """What the last of the calls says; None stands for one that the budget did not allow."""
    made = tuple(call for call in calls if call is not None)
    last = calls[-1]
    if last is None:
        return Answer("", f"the budget is spent: {connection.budget}", made)
    return Answer(last.reply.text, last.reply.fault, made)


def _thoughts(reply: Reply) -> str:
    """What a model thought, as the text it would have written, with the thinking closed."""
    text = reply.text.partition("<answer>")[0].rstrip()
    if reply.reasoning:
        return f"<think>\n{reply.reasoning.strip()}\n</think>\n{text}"
    if "<think>" in text and "</think>" not in text:
        return f"{text}\n</think>"
    return text


def _in_parallel(
    function: Callable[[Item], Found], items: Sequence[Item], workers: int
) -> list[Found]:
    """The function of every item, in threads that do not keep an interrupted program alive."""
    found: dict[int, Found] = {}
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for index in range(len(items)):
        todo.put(index)

    def work() -> None:
        while True:
            try:
                index = todo.get_nowait()
            except queue.Empty:
                return
            found[index] = function(items[index])

    threads = [threading.Thread(target=work, daemon=True) for _ in items[:workers]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[index] for index in range(len(items))]
