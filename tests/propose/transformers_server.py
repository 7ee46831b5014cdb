"""A model in a folder, served by transformers' own server on loopback, without a network."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# The server ends with its standard input, so also when the tests are killed.
_SERVE = """
import os, sys, threading

def wait():
    sys.stdin.read()
    os._exit(0)

threading.Thread(target=wait, daemon=True).start()
from transformers.cli.transformers import main
main()
"""
_READY = re.compile(r"Uvicorn running on (http://127\.0\.0\.1:\d+)")
START = 120
"""Seconds that the imports and the model may take on a machine that has other work."""


@contextmanager
def served(model: str, folder: Path) -> Iterator[str]:
    """The URL of a server of one model, up to /v1; what it prints goes to a file in the folder."""
    log = folder / "server.log"
    command = [sys.executable, "-c", _SERVE, "serve", model, "--host", "127.0.0.1", "--port", "0",
               "--device", "cpu"]  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub"),
                   "OMP_NUM_THREADS": "2"}  # fmt: skip
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output,
                         env=environment) as process,
    ):  # fmt: skip
        try:
            yield f"{_address(process, log)}/v1"
        finally:
            process.kill()


def _address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Where it listens, once it does: it takes a free port and prints which."""
    deadline = time.monotonic() + START
    while process.poll() is None and time.monotonic() < deadline:
        if found := _READY.search(log.read_text("utf-8", "replace")):
            return found[1]
        time.sleep(0.1)
    raise RuntimeError(f"the server did not start:\n{log.read_text('utf-8', 'replace')}")
