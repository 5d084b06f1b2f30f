"""Who takes part. A contender is one line: its name, and the function that does the work, as `module:function`.

In memory the function is `run(records: Sequence[bytes]) -> int` (or, where PREPARE names one, of what that function makes
of them beforehand), on Kafka `run(job: KafkaJob) -> int`; both return how
many records they have written. One whose module or function does not exist (yet) is left out, and the report says so.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

MEMORY = {
    "plain": "bench.memory:plain",
    "bytewax_maps": "bench.memory:bytewax_maps",
    "loom_step": "bench.loom_contender:run_step",
    "loom_record_step": "bench.loom_contender:run_record_step",
}
#: made of the records before anything is measured, by contender
PREPARE = {
    "loom_step": "bench.loom_contender:as_records",
    "loom_record_step": "bench.loom_contender:as_records",
}
KAFKA = {
    "loop": "bench.kafka_loop:run",
    "bytewax_bundled": "bench.kafka_bytewax:run",
    "loom": "bench.loom_contender:run_kafka",
    "loom_exactly_once": "bench.loom_contender:run_kafka_exactly_once",
}


def resolve(target: str) -> Callable[[Any], Any] | None:
    """The function of a contender, or None where there is none; an error inside its module is not hidden."""
    module, _, function = target.partition(":")
    try:
        found: Callable[[Any], Any] | None = getattr(import_module(module), function, None)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return None
    return found
