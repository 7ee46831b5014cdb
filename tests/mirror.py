"""A worker of the driver's own process, which sees of it no more than another process would."""

from collections import deque

from evoloss.execution.crew import Crew, Death
from evoloss.execution.wire import receive, send
from evoloss.execution.workplace import unheard, workplace

mirrors = []


class Line:
    """A connection to oneself."""

    def __init__(self):
        self.sent = deque()

    def send_bytes(self, data):
        self.sent.append(bytes(data))

    def recv_bytes(self):
        return self.sent.popleft()


def sent(data):
    """What arrives of plain data in another process."""
    line = Line()
    send(line, data)
    return receive(line)


class Mirror(Crew):
    """A worker in this process, which shares nothing with the driver but plain data.

    deadly: texts that losses have which end it. died: of whom it died so far.
    """

    deadly = ()

    def __init__(self, recipe, workers, shard, limits=None, journal=None):
        super().__init__(shard, limits, journal)
        self.workers = workers
        made = sent({"arguments": recipe.arguments, "data": dict(recipe.data)})
        for each in made["data"].values():
            each.flags.writeable = False  # as in a process of Ray
        self.place = workplace(recipe.maker, made["arguments"], made["data"])
        self.died = []
        mirrors.append(self)

    def ask(self, job, seconds, attempt):
        job = sent(job)
        losses = [item["entry"]["loss"] or "" for item in job["items"] if "entry" in item]
        if any(word in loss for word in self.deadly for loss in losses):
            self.died.append(losses)
            raise Death("it ended the interpreter with status 7")
        return sent(self.place.do(**job, tick=unheard))

    def at_once(self, shards):
        return 1

    def close(self):
        pass
