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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from evoloss.propose.llm.connection import (
    Asked,
    Call,
    Connection,
    Prompt,
    key_of,
    load_library,
)
from evoloss.propose.llm.endpoint import Budget, Endpoint, Usage
from evoloss.propose.llm.stream import Reply

_CONTINUED = {"continue_final_message": True, "add_generation_prompt": False}
_NOW_THE_CODE = "Now write your functions: only the answer, between <answer> and </answer>."

Item = TypeVar("Item")
Found = TypeVar("Found")
Said = TypeVar("Said")


@dataclass(frozen=True)
class Answer:
    """The text that holds the functions; reason: why there is none, or not all of it."""

    text: str
    reason: str
    calls: tuple[Call, ...]


class Client:
    """An endpoint in use, and what was spent there. Raises UserError without its library.

    made: calls of a search that was broken off, which are not made again.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        spent: Usage | None = None,
        made: Mapping[Asked, Call] | None = None,
    ) -> None:
        load_library()
        self.endpoint = endpoint
        self.made = made or {}
        self.budget = Budget(endpoint, spent or Usage())
        self._left_out: set[str] = set()

    def ask(
        self,
        prompts: Sequence[Prompt],
        retries: int | None = None,
        arrived: Callable[[Call], None] = lambda call: None,
    ) -> list[Answer]:
        """An answer to each prompt. retries: other than the endpoint's.

        arrived: told, in this thread, of every call that is made, while others are in flight.
        """
        if not prompts:
            return []
        endpoint = self.endpoint
        # Without a key the library would refuse to start; a server that wants none ignores this.
        with load_library().OpenAI(
            base_url=endpoint.url, api_key=key_of(endpoint) or "none", max_retries=0,
            timeout=endpoint.timeout,
        ) as service:  # fmt: skip
            most = endpoint.retries if retries is None else retries
            calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
            connection = Connection(
                endpoint, self.budget, service, most, self._left_out, self.made, calls.put
            )
            try:
                return _in_parallel(
                    lambda prompt: _answer(connection, prompt),
                    prompts, endpoint.samples_at_once, calls, arrived,
                )  # fmt: skip
            finally:
                connection.stopped.set()


def _answer(connection: Connection, prompt: Prompt) -> Answer:
    """One sample."""
    endpoint = connection.endpoint
    sampling = {"temperature": endpoint.temperature, "top_p": endpoint.top_p}
    if not endpoint.two_phase:
        return _answered(connection, connection.call("single", prompt, sampling))
    stopping = {**sampling, "stop": ["<answer>"]}
    first = connection.call("reasoning", prompt, stopping)
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
        call = connection.call("code", _with(prompt, begun), options)
        if call is None or call.reply.status not in (400, 422):
            return _answered(connection, *calls, call)
        calls.append(call)
        connection.left_out.add("continue_final_message")
    done = {"role": "assistant", "content": thoughts}
    request = {"role": "user", "content": _NOW_THE_CODE}
    call = connection.call("code", _with(prompt, done, request), sampling)
    return _answered(connection, *calls, call)


def _with(prompt: Prompt, *messages: Mapping[str, str]) -> Prompt:
    """The prompt with further messages."""
    return replace(prompt, messages=(*prompt.messages, *messages))


def _answered(connection: Connection, *calls: Call | None) -> Answer:
    """What the last of the calls says; None stands for one that the budget did not allow."""
    made = tuple(call for call in calls if call is not None)
    last = calls[-1]
    if last is None:
        return Answer("", f"the budget allows no further call: {connection.budget}", made)
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
    function: Callable[[Item], Found],
    items: Sequence[Item],
    workers: int,
    said: queue.SimpleQueue[Said | None],
    tell: Callable[[Said], None],
) -> list[Found]:
    """The function of every item, in threads that do not keep an interrupted program alive.

    said, tell: what the function puts there is told here, in the calling thread.
    """
    found: dict[int, Found] = {}
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for index in range(len(items)):
        todo.put(index)

    def work() -> None:
        try:
            while True:
                try:
                    index = todo.get_nowait()
                except queue.Empty:
                    return
                found[index] = function(items[index])
        finally:
            said.put(None)

    threads = [threading.Thread(target=work, daemon=True) for _ in items[:workers]]
    for thread in threads:
        thread.start()
    at_work = len(threads)
    while at_work:
        one = said.get()
        if one is None:
            at_work -= 1
        else:
            tell(one)
    return [found[index] for index in range(len(items))]
