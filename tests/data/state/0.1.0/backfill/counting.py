import os
import signal

from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, step


class Number(LoomFrozenStruct):
    n: int


@step
def same(number: Number) -> Number:
    if number.n == int(os.environ.get("KILLED_AT", "-1")):
        os.kill(os.getpid(), signal.SIGKILL)
    return number


flow = StreamFlow("counting", FromTopic("in", Number), Process(same), IntoTopic("out"), IntoTopic("bad"))
