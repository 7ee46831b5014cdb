"""Calls of a language model as a run keeps them: every prompt and reply, and what they cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from evoloss.propose.llm.connection import Asked, Call, asked
from evoloss.propose.llm.endpoint import Endpoint, Usage
from evoloss.propose.llm.stream import Reply

CALL = "llm"
"""The kind of the record of a call."""
READING = "llm reading"
"""The kind of the record of what was read in a sample's last reply."""


def call_record(call: Call, endpoint: Endpoint, **place: Any) -> dict[str, Any]:
    """Plain data of a call. place: where in the search it was made."""
    fault = call.reply.fault
    return {
        "kind": CALL, **place, "phase": call.phase, "sample": call.sample,
        "model": endpoint.model, "messages": [dict(each) for each in call.messages],
        "reply": call.reply.text, "reasoning": call.reply.reasoning,
        "prompt_tokens": call.usage.prompt_tokens,
        "completion_tokens": call.usage.completion_tokens,
        "estimated": call.usage.estimated, "cost": call.usage.cost(endpoint),
        "seconds": call.seconds, "waits": list(call.waits),
        "errors": [*call.errors, *([fault] if fault else [])], "fault": fault,
    }  # fmt: skip


def calls_made(records: Iterable[Mapping[str, Any]], model: str) -> dict[Asked, Call]:
    """The calls of a model that said something, by what tells them apart.

    Those that brought nothing are left out, to be made again: the server may be back.
    """
    found = {}
    for each in records:
        if each.get("kind") == CALL and each["model"] == model and "sample" in each:
            call = _call(each)
            if call.reply.text or call.reply.reasoning:
                found[asked(call.phase, call.sample, call.messages)] = call
    return found


def usage_of(records: Iterable[Mapping[str, Any]]) -> Usage:
    """What the calls of stored records used together."""
    return sum((_usage(each) for each in records if each.get("kind") == CALL), Usage())


def _call(record: Mapping[str, Any]) -> Call:
    reply = Reply(record["reply"], record["reasoning"], fault=record["fault"])
    return Call(
        record["phase"], record["sample"], tuple(record["messages"]), reply, _usage(record),
        record["seconds"], tuple(record["errors"]), tuple(record["waits"]),
    )  # fmt: skip


def _usage(record: Mapping[str, Any]) -> Usage:
    return Usage(record["prompt_tokens"], record["completion_tokens"], record["estimated"])
