"""Whether the engine that a config names, or that is taken where it names none, can do what the rest of the config asks for."""

from __future__ import annotations

from collections.abc import Iterator

from loom.core.config import ConfigError, ConfigProblem
from loom.streaming.runtime.engine import NO_BYTEWAX, EngineName, engine_for, is_installed
from loom.streaming.runtime.layout import ADDRESSES, PROCESSES, Layout
from loom.streaming.runtime.settings import BytewaxRuntimeConfig

__all__ = ["check_engine"]


def check_engine(
    named: EngineName | None,
    runtime: BytewaxRuntimeConfig,
    layout: Layout | None,
    file: str | None,
    *,
    elsewhere: bool = False,
) -> None:
    """Raise `ConfigError` for an engine that is not installed, or that cannot do what is asked for.

    `elsewhere`: the flow is to run on another machine, which may have what this one lacks.
    """
    problems = list(_problems(named, runtime, layout or Layout(), file, elsewhere=elsewhere))
    if problems:
        raise ConfigError(problems)


def _problems(
    named: EngineName | None, runtime: BytewaxRuntimeConfig, layout: Layout, file: str | None, *, elsewhere: bool
) -> Iterator[ConfigProblem]:
    if named is not None and not is_installed(named) and not elsewhere:
        remedy = "leave streaming.engine out, or set it to loop; or install bytewax"
        yield ConfigProblem(file, "streaming.engine", f"is {named}, and {NO_BYTEWAX}", remedy=remedy)
    engine = named if elsewhere else engine_for(named)
    if engine != "loop":
        return
    why = "streaming.engine is loop" if named is not None else f"{NO_BYTEWAX}, so this flow runs on the engine loop"
    remedy = "set streaming.engine: bytewax" if named is not None else "run it with Python 3.11 or 3.12 and bytewax"
    if runtime.recovery is not None:
        without = "take recovery out: the consumer group keeps the positions"
        message = f"only the engine bytewax keeps a recovery store, and {why}"
        yield ConfigProblem(file, "streaming.runtime.recovery", message, remedy=f"{without}; or {remedy}")
    if layout.is_cluster:
        key = "streaming.runtime.addresses" if runtime.addresses is not None else ADDRESSES
        message = f"only the engine bytewax forms clusters of processes, and {why}"
        without = f"take it out, and share the partitions among processes that know nothing of each other ({PROCESSES})"
        yield ConfigProblem(file, key, message, remedy=f"{without}; or {remedy}")
