"""One chat-completions request: its attempts, its pauses and its part of the budget.

Nothing that a server does raises here: what came is returned, with the reason if it is not all.
A request that failed is made again after a pause that doubles and is partly drawn at random
(Brooker 2015, "Exponential backoff and jitter"), or after the one that the server asks for.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from evoloss.errors import UserError
from evoloss.propose.llm.endpoint import Budget, Endpoint, Usage, estimated_tokens
from evoloss.propose.llm.stream import Reply, message_of, received, short

if TYPE_CHECKING:
    import openai

FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
"""Seconds before the second attempt, doubled before each further one up to the longest."""
_AGAIN = frozenset({408, 409, 425, 429})
_DISPENSABLE = ("seed", "stream_options", "top_k", "top_p", "temperature", "stop", "max_tokens")
"""What a server may not know; it is left out from then on, and max_tokens gets its new name."""

Messages = tuple[Mapping[str, str], ...]
Asked = tuple[int, str, str]
"""What tells a request from all others of a search, see `asked`."""


@dataclass(frozen=True)
class Prompt:
    """Messages, and the generator that a sample's seed and pauses are drawn from.

    sample: its number, by which a resumed search knows it again.
    """

    messages: Messages
    rng: np.random.Generator
    sample: int = 0


@dataclass(frozen=True)
class Call:
    """A request and what came of it; errors: of the attempts before the last; waits: after them."""

    phase: str
    sample: int
    messages: Messages
    reply: Reply
    usage: Usage
    seconds: float
    errors: tuple[str, ...]
    waits: tuple[float, ...]


@dataclass(frozen=True)
class Connection:
    """An open client and what its threads share.

    retries: further attempts at a request. left_out: options that the server was found to refuse.
    made: calls of a search that was broken off, which are not paid for again. arrived: told of
    every other call as soon as it is over.
    stopped: set when nobody waits for the replies any more.
    """

    endpoint: Endpoint
    budget: Budget
    service: openai.OpenAI
    retries: int
    left_out: set[str]
    made: Mapping[Asked, Call]
    arrived: Callable[[Call], None]
    stopped: threading.Event = field(default_factory=threading.Event)

    def call(self, phase: str, prompt: Prompt, sampling: Mapping[str, Any]) -> Call | None:
        """One request with its retries; None if the budget does not allow it."""
        made = self.made.get(asked(phase, prompt.sample, prompt.messages))
        if made is not None:
            return _again(made, prompt.rng)
        call = self._made(phase, prompt, sampling)
        if call is not None:
            self.arrived(call)
        return call

    def _made(self, phase: str, prompt: Prompt, sampling: Mapping[str, Any]) -> Call | None:
        messages, rng = prompt.messages, prompt.rng
        reserved = self.budget.reserve(
            sum(10 + estimated_tokens(len(each["content"])) for each in messages)
        )
        if reserved is None:
            return None
        options = {
            **sampling, "max_tokens": reserved.completion_tokens,
            "seed": seed_of(rng), "stream_options": {"include_usage": True},
        }  # fmt: skip
        if self.endpoint.top_k is not None:
            options["top_k"] = self.endpoint.top_k
        started, used = time.monotonic(), Usage()
        errors: list[str] = []
        waits: list[float] = []
        while True:
            sent = self._sent(options)
            reply = self._attempt(messages, sent)
            used += _usage(reply, reserved.prompt_tokens)
            if self._does_without(reply, sent):
                errors.append(reply.fault)
                continue
            if not reply.again or len(waits) >= self.retries or self.stopped.is_set():
                break
            drawn = _pause(len(waits), rng)  # in any case: `_again` draws as often
            wait = drawn if reply.wait is None else reply.wait
            if wait > self.endpoint.timeout:
                reply.fault += f"; it asks to wait {wait:,.0f} s, which is longer than the timeout"
                break
            errors.append(reply.fault)
            waits.append(wait)
            self.stopped.wait(wait)
        self.budget.settle(reserved, used)
        seconds = time.monotonic() - started
        return Call(
            phase, prompt.sample, messages, reply, used, seconds, tuple(errors), tuple(waits)
        )

    def _sent(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options that the server takes."""
        sent = {name: value for name, value in options.items() if name not in self.left_out}
        if "max_tokens" in self.left_out:
            sent["max_completion_tokens"] = options["max_tokens"]
        return sent

    def _attempt(self, messages: Messages, options: Mapping[str, Any]) -> Reply:
        """The reply to one request, without the key, which servers repeat in their errors.

        The options go along as they are, whatever the library's version knows of them.
        """
        chat: Any = self.service.chat.completions  # its types want one of a dozen kinds of message
        deadline = time.monotonic() + self.endpoint.timeout
        try:
            with chat.with_streaming_response.create(
                model=self.endpoint.model, messages=list(messages), stream=True,
                extra_body=dict(options),
            ) as response:  # fmt: skip
                reply = received(response.iter_bytes(), deadline)
        except Exception as error:
            reply = self._failed(error)
        if key := key_of(self.endpoint):
            for name in ("text", "reasoning", "fault"):
                setattr(reply, name, getattr(reply, name).replace(key, "***"))
        return reply

    def _failed(self, error: Exception) -> Reply:
        """What the exception of a request says."""
        openai, url = load_library(), self.endpoint.url
        if isinstance(error, openai.APIStatusError):
            return self._refused(error)
        if isinstance(error, openai.APITimeoutError):
            limit = f"{self.endpoint.timeout:g} s; --llm-timeout allows more"
            fault = f"no answer from {url} within {limit}"
            return Reply(fault=fault, again=True)
        # No connection, a key that no header can hold, and the like.
        cause = error.__cause__ or error
        fault = f"cannot reach {url}: {short(str(cause)) or type(cause).__name__}"
        return Reply(fault=fault, again=True, prompt_tokens=0, completion_tokens=0)

    def _refused(self, error: openai.APIStatusError) -> Reply:
        """What a status other than success says."""
        status = error.status_code
        fault = f"{self.endpoint.url} answers {status}: {message_of(error.body or error.message)}"
        if status in (401, 403):
            fault += f"; set the key in {self.endpoint.api_key_env}"
        if status == 404:
            fault += f"; does it serve '{self.endpoint.model}', and does its URL end in /v1?"
        return Reply(
            fault=fault, status=status, again=status in _AGAIN or status >= 500,
            wait=_seconds(error.response.headers.get("retry-after")),
            prompt_tokens=0, completion_tokens=0,
        )  # fmt: skip

    def _does_without(self, reply: Reply, sent: Mapping[str, Any]) -> bool:
        """Whether the server refused an option that can be left out, which it then is."""
        if reply.status in (400, 422):
            for name in _DISPENSABLE:
                if name in sent and re.search(rf"\b{name}\b", reply.fault):
                    self.left_out.add(name)
                    return True
        return False


def asked(phase: str, sample: int, messages: Messages) -> Asked:
    """What tells a request from all others of a search."""
    return sample, phase, json.dumps(messages)


def seed_of(rng: np.random.Generator) -> int:
    """The seed that a request is sent with."""
    return int(rng.integers(2**31))


def _again(call: Call, rng: np.random.Generator) -> Call:
    """A call that was made before. It leaves the generator where it was after it."""
    seed_of(rng)
    for attempt in range(len(call.waits)):
        _pause(attempt, rng)
    return call


def _pause(attempt: int, rng: np.random.Generator) -> float:
    return float(min(FIRST_WAIT * 2.0**attempt, LONGEST_WAIT) * rng.uniform(0.5, 1.0))


def _usage(reply: Reply, prompt_tokens: int) -> Usage:
    """The tokens of an attempt, estimated where the server did not report them."""
    read, written = reply.prompt_tokens, reply.completion_tokens
    text = len(reply.text) + len(reply.reasoning)
    return Usage(
        prompt_tokens if read is None else read,
        estimated_tokens(text) if written is None else written,
        read is None or written is None,
    )


def _seconds(retry_after: str | None) -> float | None:
    """A Retry-After header: seconds, or a date."""
    if not retry_after:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None


def key_of(endpoint: Endpoint) -> str:
    """The key of an endpoint, empty if there is none."""
    return os.environ.get(endpoint.api_key_env, "").strip()


def load_library() -> Any:
    """The official client, imported when it is needed. Raises UserError if it is missing."""
    try:
        import openai
    except ModuleNotFoundError as error:
        raise UserError(
            f"the package {error.name} is missing: pip install 'evoloss[llm]'"
        ) from error
    return openai
