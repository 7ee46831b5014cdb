"""A search that is killed while a language model is asked loses nothing that was paid for."""

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import llm_search
from llm_server import Scripted, Server, losses

import evoloss
from evoloss.propose.llm import Usage, usage_of
from evoloss.store import Store

HERE = Path(llm_search.__file__)
PATHS = (Path(evoloss.__file__).parents[1], HERE.parents[1])


def reply(number, request):
    """What the model says to a request, whenever that comes."""
    seed = request.body["seed"] / 2**31
    return Scripted(losses(*(factor + seed for factor in (1.5, 2.25, 3.125, 4.5, 5.25))))


def killed(run, after):
    """A run whose process is killed when so many requests were answered and others are not."""

    def some(number, request):
        return reply(number, request) if number < after else Scripted(silent=True)

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, PATHS))}
    with Server(some) as server:
        process = subprocess.Popen([sys.executable, HERE, run, server.url], env=environment)
        try:
            deadline = time.monotonic() + 60
            while len(said(run)) < after:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            process.kill()
            process.wait()
    return len(server.requests)


def said(run):
    """The calls that are stored."""
    if not (run / "run.db").exists():
        return []
    with Store.open(run, write=False) as store:
        return store.records("llm")


def test_killed_in_the_middle_of_a_generation_it_pays_for_no_reply_twice(tmp_path):
    with Server(reply) as server:
        whole = llm_search.searched(tmp_path / "whole", server.url)
    needed = len(server.requests)
    run, after = tmp_path / "run", 5
    assert killed(run, after) > after  # some were in flight, which are lost
    with Store.open(run, write=False) as store:
        assert (store.generations, len(store.unfinished())) == (1, 3)
        assert usage_of(store.records()) == Usage(100 * after, 50 * after)
    with Server(reply) as server:
        again = llm_search.searched(run, server.url)
    assert len(server.requests) == needed - after
    assert again.history == whole.history
    assert len(again.history) == 20
    assert usage_of(said(run)) == Usage(100 * needed, 50 * needed)
    samples = Counter((each["generation"], each["wave"], each["sample"]) for each in said(run))
    assert set(samples.values()) == {1}
    with Store.open(run, write=False) as store:
        read = [each["sample"] for each in store.records("llm reading")]
        assert store.unfinished() == []
    assert sorted(read) == sorted(each["sample"] for each in said(run))
