"""A workplace whose items may be ill-behaved; free of torch, so that its workers start at once."""

import contextlib
import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from evoloss.errors import UserError


class Workplace:
    """Answers with the square of an item's x, and with how many items were done together."""

    def do(self, call, items, common, tick):
        if call == "fragile" and len(items) > 2:
            os._exit(4)
        if call == "resources":
            return [resources()] * len(items)
        if call == "ballast":
            return [np.full(2**15, float(item["x"])) for item in items]
        time.sleep(common.get("seconds", 0.0))
        for item in items:
            getattr(self, item.get("trouble", "fine"))(item)
        return [{"square": item["x"] ** 2, "together": len(items)} for item in items]

    def fine(self, item):
        pass

    def exit(self, item):
        os._exit(3)

    def crash(self, item):
        ctypes.string_at(0)

    def hang(self, item):
        child = subprocess.Popen(["sleep", "1000"])
        Path(item["file"]).write_text(str(child.pid))
        time.sleep(1000)

    def sleep(self, item):
        """The first who comes, who leaves its number in a file."""
        with contextlib.suppress(FileExistsError), Path(item["file"]).open("x") as file:
            file.write(str(os.getpid()))
            file.close()
            time.sleep(1000)

    def eat(self, item):
        held = []
        while True:
            held.append(np.ones(2**20))
            time.sleep(0.001)

    def ask_for_too_much(self, item):
        raise MemoryError

    def talk(self, item):
        for _ in range(100):
            sys.stdout.write("x" * 2**20)
            sys.stderr.write("y" * 1000)

    def mistake(self, item):
        raise UserError("x is wrong: give another")

    def bug(self, item):
        raise ValueError("a bug")


def resources():
    """Of a worker: the GPUs that it may see, who it is, and when it was at work."""
    begun = time.monotonic()
    time.sleep(0.2)
    return {
        "seen": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        "pid": os.getpid(),
        "from": begun,
        "to": time.monotonic(),
    }


def workplace(data):
    return Workplace()
