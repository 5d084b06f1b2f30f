"""Which process of how many this is, from the config and the environment. Used by `prepare`; the adapter gets the result.

Process i of N reads the partitions whose number is i modulo N. Processes without addresses know nothing of each other; with
addresses they are one cluster of the engine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from loom.core.config import ConfigError, ConfigProblem
from loom.core.counted import counted
from loom.core.model import LoomFrozenStruct
from loom.streaming.errors import LoomStreamingError
from loom.streaming.kafka.offset_metadata import MAX_WRITERS
from loom.streaming.record import TopicPartition
from loom.streaming.runtime.settings import BytewaxRuntimeConfig

__all__ = ["ADDRESSES", "PROCESSES", "PROCESS_ID", "Layout", "TooManyProcessesError", "layout_of"]

#: the environment variables
PROCESS_ID, PROCESSES, ADDRESSES = "LOOM_PROCESS_ID", "LOOM_PROCESSES", "LOOM_ADDRESSES"
#: the keys of the config
_ID_KEY, _ADDRESSES_KEY = "streaming.runtime.process_id", "streaming.runtime.addresses"


class TooManyProcessesError(LoomStreamingError):
    """There are more processes than partitions, so some would have nothing to read. Exit code 3.

    >>> raise TooManyProcessesError("3 processes share topics of at most 2 partitions")
    Traceback (most recent call last):
    loom.streaming.runtime.layout.TooManyProcessesError: 3 processes share topics of at most 2 partitions
    """


class Layout(LoomFrozenStruct):
    """One of the processes that share the partitions of a flow.

    >>> Layout(1, 3).owns(4)
    True
    >>> Layout(1, 3).owns(5)
    False
    """

    index: int = 0
    processes: int = 1
    #: one for each process, where they are a cluster of the engine
    addresses: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"process {self.index} of {self.processes}"

    @property
    def is_cluster(self) -> bool:
        """Whether the processes are a cluster of the engine: connected, and restarted together."""
        return len(self.addresses) > 1

    @property
    def is_alone(self) -> bool:
        """Whether this is the only process."""
        return self.processes == 1

    @property
    def is_first(self) -> bool:
        """Whether this process takes the group over for all of them."""
        return self.index == 0

    def owns(self, partition: int) -> bool:
        """Whether this process reads the partition of this number."""
        return partition % self.processes == self.index

    def owned(self, topics: Mapping[str, tuple[int, ...]]) -> list[TopicPartition]:
        """The partitions of these topics that this process reads.

        >>> Layout(1, 2).owned({"orders": (0, 1, 2, 3)})
        [TopicPartition(topic='orders', partition=1), TopicPartition(topic='orders', partition=3)]
        """
        return [partition for partition in _partitions(topics) if self.owns(partition.partition)]

    def check(self, topics: Mapping[str, tuple[int, ...]]) -> None:
        """Raise `TooManyProcessesError` where a process would have no partition to read."""
        most = max((len(numbers) for numbers in topics.values()), default=0)
        if self.processes > most:
            raise TooManyProcessesError(
                f"{self.processes} processes share the topics of the flow ({', '.join(sorted(topics))}), and the largest has "
                f"{counted(most, 'partition')}: some processes would have nothing to read. Start at most {most} "
                f"(--processes, {PROCESSES} or addresses), or add partitions"
            )


def layout_of(runtime: BytewaxRuntimeConfig, environment: Mapping[str, str], file: str | None = None) -> Layout:
    """The layout that the config and the environment ask for. Either may name a value, not both.

    Raises `ConfigError` for a value without its partner, for two layouts at once, and for what is out of range.
    """
    problems = list(_contradictions(runtime, environment, file))
    if problems:
        raise ConfigError(problems)
    id_key = PROCESS_ID if PROCESS_ID in environment else _ID_KEY
    index = _whole(environment, PROCESS_ID) if PROCESS_ID in environment else runtime.process_id
    if index is None:
        return Layout()
    if PROCESSES in environment:
        addresses: tuple[str, ...] = ()
        processes = _whole(environment, PROCESSES)
        counted = f"{PROCESSES} is {processes}"
    else:
        named = environment.get(ADDRESSES)
        addresses = tuple(part.strip() for part in named.split(",")) if named is not None else runtime.addresses or ()
        _check_addresses(addresses, ADDRESSES if named is not None else _ADDRESSES_KEY, file)
        processes = len(addresses)
        counted = f"there are {processes} addresses"
    if not 1 <= processes <= MAX_WRITERS:
        raise _problem(PROCESSES if PROCESSES in environment else _ADDRESSES_KEY, f"must be 1 to {MAX_WRITERS}", file)
    if not 0 <= index < processes:
        raise _problem(id_key, f"must be 0 to {processes - 1}, because {counted}", file)
    return Layout(index, processes, addresses)


def _contradictions(
    runtime: BytewaxRuntimeConfig, environment: Mapping[str, str], file: str | None
) -> Iterator[ConfigProblem]:
    """What does not go together."""
    ids = [PROCESS_ID] * (PROCESS_ID in environment) + [_ID_KEY] * (runtime.process_id is not None)
    counts = [PROCESSES] * (PROCESSES in environment)
    addresses = [ADDRESSES] * (ADDRESSES in environment) + [_ADDRESSES_KEY] * (runtime.addresses is not None)
    for twice in (ids, addresses):
        if len(twice) > 1:
            yield ConfigProblem(file, twice[0], f"is given as {twice[1]} too", remedy="set one of them")
    if counts and addresses:
        yield ConfigProblem(
            file,
            PROCESSES,
            f"cannot be combined with {addresses[0]}",
            remedy=f"{PROCESSES} makes independent processes, addresses make a cluster of the engine: set one of them",
        )
    if ids and not counts and not addresses:
        yield ConfigProblem(
            file,
            ids[0],
            "needs a partner: the number of processes, or their addresses",
            remedy=f"set {PROCESSES} for independent processes, or {ADDRESSES} ({_ADDRESSES_KEY}) for a cluster",
        )
    if not ids and (counts or addresses):
        yield ConfigProblem(
            file,
            (counts or addresses)[0],
            "needs a partner: the number of this process",
            remedy=f"set {PROCESS_ID}" + (f" ({_ID_KEY})" if addresses else ""),
        )


def _check_addresses(addresses: tuple[str, ...], key: str, file: str | None) -> None:
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise _problem(key, "must hold an address host:port for each process", file)
    if twice := [address for address, times in Counter(addresses).items() if times > 1]:
        raise _problem(key, f"holds {twice[0]} twice: each process listens on an address of its own", file)


def _whole(environment: Mapping[str, str], name: str) -> int:
    text = environment[name]
    if not (text.isascii() and text.isdigit()):
        raise _problem(name, "must be a whole number", None)
    return int(text)


def _problem(key: str, message: str, file: str | None) -> ConfigError:
    return ConfigError([ConfigProblem(file, key, message)])


def _partitions(topics: Mapping[str, tuple[int, ...]]) -> Iterator[TopicPartition]:
    return (TopicPartition(topic, number) for topic, numbers in topics.items() for number in numbers)
