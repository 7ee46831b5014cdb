"""Serves replies from a file, whatever is asked, over the OpenAI protocol on this machine alone.

`python benchmarks/serve_replies.py REPLIES.jsonl [PORT]`: one JSON object a line, the reply in its
field `raw`. So proposers that ask a language model can be compared without one, and repeatably:
replies go out in an order of their own, over and over, whatever the prompt says. It is told how
many losses to write, and does not listen; what is compared is what a search makes of the replies.
"""

from __future__ import annotations

import json
import random
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CHARACTERS_A_TOKEN = 4
"""Roughly, of English and Python; for the record of what was used."""


class Replies:
    """The replies in a shuffled order, endlessly."""

    def __init__(self, texts: list[str], seed: int = 0) -> None:
        self.texts = random.Random(seed).sample(texts, len(texts))
        self.served = 0
        self.lock = threading.Lock()

    def __next__(self) -> str:
        with self.lock:
            self.served += 1
            return self.texts[(self.served - 1) % len(self.texts)]


def handler(replies: Replies) -> type[BaseHTTPRequestHandler]:
    """Answers every request for a chat completion with the next reply, as a stream if asked to."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers.get("Content-Length", 0))
            asked = json.loads(self.rfile.read(size) or b"{}")
            text = next(replies)
            usage = _usage(json.dumps(asked.get("messages", "")), text)
            self.send_response(200)
            if asked.get("stream"):
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                self._event({"choices": [_choice("delta", text)]})
                self._event({"choices": [], "usage": usage})
                self.wfile.write(b"data: [DONE]\n\n")
            else:
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                body = {"choices": [_choice("message", text)], "usage": usage}
                self.wfile.write(json.dumps(_completion(body)).encode())

        def _event(self, body: dict[str, Any]) -> None:
            self.wfile.write(f"data: {json.dumps(_completion(body))}\n\n".encode())

        def log_message(self, *_: Any) -> None:
            """Quiet: the search says what it asks."""

    return Handler


def _choice(key: str, text: str) -> dict[str, Any]:
    return {
        "index": 0, "finish_reason": "stop", key: {"role": "assistant", "content": text},
    }  # fmt: skip


def _usage(prompt: str, reply: str) -> dict[str, int]:
    read, wrote = len(prompt) // CHARACTERS_A_TOKEN, len(reply) // CHARACTERS_A_TOKEN
    return {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote}


def _completion(body: dict[str, Any]) -> dict[str, Any]:
    kind = "chat.completion.chunk" if body["choices"] == [] or "delta" in body["choices"][0] else ""
    return {
        "id": "recorded", "object": kind or "chat.completion", "created": 0, "model": "recorded",
        **body,
    }  # fmt: skip


def main() -> None:
    lines = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
    replies = Replies([json.loads(line)["raw"] for line in lines if line.strip()])
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 8123
    server = ThreadingHTTPServer(("127.0.0.1", port), handler(replies))
    print(f"--llm-url http://127.0.0.1:{server.server_port}/v1 --llm-model recorded", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
