"""The reader of partitions with a client that says what a test wants it to say: faults that pass, jumps, and the group."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException
from confluent_kafka import TopicPartition as ClientPartition

from loom.streaming.kafka import (
    AuthorizationFailedError,
    BrokerUnavailableError,
    CommitError,
    ConsumerSettings,
    KafkaTransportError,
    OffsetOutOfRangeError,
    SecondInstanceError,
    TopicMissingError,
    TopicPartition,
)
from loom.streaming.kafka import consumer as consumer_module
from loom.streaming.kafka import group_offsets as group_module
from loom.streaming.kafka import redelivery as redelivery_module
from loom.streaming.kafka import start_offsets as start_module
from loom.streaming.kafka.consumer import ConsumerClient
from loom.streaming.kafka.offset_metadata import Committed

PLACE = TopicPartition("numbers", 0)
#: what stands for the beginning of a log where an offset is asked for by its time
BEGINNING = -2


def fault(code: int) -> KafkaException:
    return KafkaException(KafkaError(code))


class Unanswered(NamedTuple):
    """A partition whose leader has not answered."""

    topic: str
    partition: int
    error: KafkaError = KafkaError(KafkaError._TIMED_OUT)


class Record:
    """What the client hands over: a record, or an event with an error."""

    def __init__(self, offset: int | None, code: int | None = None, topic: str | None = "numbers") -> None:
        self._offset, self._topic = offset, topic
        self._error = KafkaError(code) if code is not None else None

    def error(self) -> KafkaError | None:
        return self._error

    def topic(self) -> str | None:
        return self._topic

    def partition(self) -> int:
        return 0

    def offset(self) -> int | None:
        return self._offset


class FakeClient:
    """One partition; its answers are lists that are used up, the last one for good."""

    def __init__(self) -> None:
        self.group: list[Any] = [OFFSET_INVALID]
        self.log: list[Any] = [(0, 10)]
        #: how many partitions each question for offsets was about
        self.asked: list[int] = []
        self.coming: list[Record] = []
        self.commits: list[Any] = [None]
        self.committed_offsets: list[int] = []
        self.looked_up: list[str | None] = []
        self.at: int | None = None
        self.position_is = OFFSET_INVALID
        self.on_commit: Callable[[Any, Any], None] = lambda error, partitions: None

    @staticmethod
    def _next(answers: list[Any]) -> Any:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def committed(self, partitions: list[ClientPartition], timeout: float) -> list[Any]:
        offset = self._next(self.group)
        if isinstance(offset, int):
            return [ClientPartition(p.topic, p.partition, offset) for p in partitions]
        return [offset for _ in partitions]

    def offsets_for_times(self, partitions: list[ClientPartition], timeout: float) -> list[ClientPartition]:
        self.asked.append(len(partitions))
        low, high = self._next(self.log)
        return [ClientPartition(p.topic, p.partition, low if p.offset == BEGINNING else high) for p in partitions]

    def list_topics(self, topic: str | None = None, *, timeout: float) -> Any:
        self.looked_up.append(topic)
        raise fault(KafkaError._TRANSPORT)

    def incremental_assign(self, partitions: list[ClientPartition]) -> None:
        assert self.at is None
        (self.at,) = (p.offset for p in partitions)

    def incremental_unassign(self, partitions: list[ClientPartition]) -> None:
        assert self.at is not None
        self.at = None

    def position(self, partitions: list[ClientPartition]) -> list[ClientPartition]:
        return [ClientPartition(p.topic, p.partition, self.position_is) for p in partitions]

    def poll(self, wait_s: float) -> Record | None:
        return None

    def consume(self, most: int, wait_s: float) -> list[Record]:
        found, self.coming = self.coming[:most], self.coming[most:]
        for record in found:
            if record.offset() is not None and (record.error() is None or record.error() == KafkaError._PARTITION_EOF):
                self.position_is = (record.offset() or 0) + (record.error() is None)
        return found

    def pause(self, partitions: list[ClientPartition]) -> None: ...

    def resume(self, partitions: list[ClientPartition]) -> None: ...

    def commit(self, offsets: list[ClientPartition], asynchronous: bool) -> list[ClientPartition] | None:
        self.committed_offsets += [p.offset for p in offsets]
        error = self._next(self.commits)  # an exception: refused at once
        if asynchronous:
            self.on_commit(error, offsets)
            return None
        if error is not None:
            raise KafkaException(error)
        return offsets

    def close(self) -> None: ...


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeClient]:
    made = FakeClient()

    def make_client(_: Any, config: dict[str, Any], *__: Any) -> FakeClient:
        made.on_commit = config["on_commit"]
        return made

    monkeypatch.setattr(consumer_module, "make_client", make_client)
    # Otherwise the client's own methods, which take no object of another class.
    monkeypatch.setattr(consumer_module, "_error_of", Record.error)
    for name in ("topic", "partition", "offset"):
        monkeypatch.setattr(redelivery_module, f"_{name}_of", getattr(Record, name))
    return made


def reader(*gone: Callable[[str, str], None], **settings: Any) -> ConsumerClient:
    return ConsumerClient(ConsumerSettings(("nobody:1",), "readers", **settings), *gone)


def started(client: FakeClient, at: int = 4, *gone: Callable[[str, str], None], **settings: Any) -> ConsumerClient:
    """One that has begun at the group's position."""
    client.group = [at]
    made = reader(*gone, **settings)
    made.start([PLACE], {})
    assert client.at == at
    return made


PASSING = [
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
    KafkaError._DESTROY,
    KafkaError._DESTROY_BROKER,
    KafkaError._NODE_UPDATE,
    KafkaError._UNKNOWN_BROKER,
]


@pytest.mark.parametrize("code", PASSING)
def test_not_coordinator_and_friends_at_start_up_are_waited_out(client: FakeClient, code: int) -> None:
    client.group = [fault(code), fault(code), 4]
    client.log = [fault(code), (0, 10)]
    assert reader().start([PLACE], {}).offsets == {PLACE: 4}
    assert client.at == 4


@pytest.mark.parametrize("code", [KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION])
def test_metadata_not_yet_visible_after_a_topic_was_created_is_waited_for(client: FakeClient, code: int) -> None:
    client.log = [fault(code), fault(code), (0, 0)]
    assert reader().start([PLACE], {}).offsets == {PLACE: 0}


def test_a_fault_of_one_partitions_position_is_waited_out_too(client: FakeClient) -> None:
    client.group = [Unanswered("numbers", 0), 4]
    reader().start([PLACE], {})
    assert client.at == 4


def test_a_fault_that_does_not_pass_ends_the_start_at_once(client: FakeClient) -> None:
    client.group = [fault(KafkaError.GROUP_AUTHORIZATION_FAILED)]
    with pytest.raises(AuthorizationFailedError, match="start offsets of group 'readers'"):
        reader().start([PLACE], {})


def test_a_fault_that_does_not_pass_in_time_names_the_group_and_the_setting(client: FakeClient) -> None:
    client.group = [fault(KafkaError.NOT_COORDINATOR)]
    with pytest.raises(BrokerUnavailableError, match=r"'readers' .*start_timeout_ms"):
        reader(start_timeout_ms=10).start([PLACE], {})


def test_the_ends_of_many_logs_are_asked_for_together(client: FakeClient) -> None:
    places = [TopicPartition("numbers", number) for number in range(150)]
    found = reader().resolve(places, {})
    assert found.offsets == dict.fromkeys(places, 0)
    assert client.asked == [150, 150]


def test_only_what_has_no_answer_is_asked_for_again_and_each_answer_gives_the_start_its_time_anew(
    client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each question takes 0.8 of the time that a start may wait, and is answered for one partition more."""
    now = [100.0]
    monkeypatch.setattr(start_module.time, "monotonic", lambda: now[0])

    def slowly(partitions: list[ClientPartition], timeout: float) -> list[Any]:
        client.asked.append(len(partitions))
        now[0] += 0.8
        return [
            ClientPartition(p.topic, p.partition, 0) if i == 0 else Unanswered(p.topic, p.partition)
            for i, p in enumerate(partitions)
        ]

    client.offsets_for_times = slowly  # type: ignore[method-assign]
    places = [TopicPartition("numbers", number) for number in range(3)]
    assert len(reader(start_timeout_ms=1_000).resolve(places, {}).offsets) == 3
    assert client.asked == [3, 2, 1, 3, 2, 1]


def test_a_partition_whose_leader_does_not_answer_holds_up_no_other(client: FakeClient) -> None:
    """A member of a group once ended after `start_timeout_ms` where one leader was away as it took its partitions over."""
    led = [TopicPartition("numbers", number) for number in (0, 2)]
    away = TopicPartition("numbers", 1)

    def where_led(partitions: list[ClientPartition], timeout: float) -> list[ClientPartition]:
        if away in {TopicPartition(p.topic, p.partition) for p in partitions}:
            raise fault(KafkaError._TIMED_OUT)
        return [ClientPartition(p.topic, p.partition, 0 if p.offset == BEGINNING else 9) for p in partitions]

    client.offsets_for_times = where_led  # type: ignore[method-assign,assignment]
    found = reader().start_where_led([led[0], away, led[1]], {away: Committed(5, ""), led[1]: Committed(7, "")})
    assert found.offsets == {led[0]: 0, led[1]: 7}
    assert found.unknown == (led[0],)
    # Where it is by now is asked for, else the client goes on asking the broker that it knows.
    assert client.looked_up == ["numbers"]


@pytest.mark.parametrize("topic", ["numbers", None], ids=["of-a-partition", "of-the-client"])
@pytest.mark.parametrize("code", [*PASSING, KafkaError._ALL_BROKERS_DOWN])
def test_one_transient_poll_error_does_not_end_the_run(client: FakeClient, code: int, topic: str | None) -> None:
    reads = started(client)
    client.coming = [Record(4), Record(None if topic is None else 5, code, topic), Record(5)]
    assert [record.offset() for record in reads.read(10, 0)] == [4, 5]
    assert reads.moved() == {PLACE: 6}


@pytest.mark.parametrize("topic", ["numbers", None])
def test_a_poll_error_that_does_not_pass_ends_the_run(client: FakeClient, topic: str | None) -> None:
    reads = started(client)
    client.coming = [Record(4, KafkaError.INVALID_MSG, topic)]
    with pytest.raises(KafkaTransportError, match="reading"):
        reads.read(10, 0)


@pytest.mark.parametrize(("topic", "told"), [("numbers", "numbers cannot be read"), (None, "the group 'readers'")])
def test_a_right_that_is_missing_ends_the_run_and_is_told_as_one(
    client: FakeClient, topic: str | None, told: str
) -> None:
    reads = started(client)
    client.coming = [Record(4, KafkaError.TOPIC_AUTHORIZATION_FAILED, topic)]
    with pytest.raises(AuthorizationFailedError, match=told):
        reads.read(10, 0)


def test_a_topic_that_is_gone_is_told_to_whoever_asked_for_it(client: FakeClient) -> None:
    told: list[str] = []
    reads = started(client, 4, lambda topic, why: told.append(topic))
    client.coming = [Record(4, KafkaError.UNKNOWN_TOPIC_OR_PART)]
    assert reads.read(10, 0) == []
    assert told == ["numbers"]


def test_a_topic_that_is_gone_is_an_error_where_nobody_asked_for_it(client: FakeClient) -> None:
    reads = started(client)
    client.coming = [Record(4, KafkaError.UNKNOWN_TOPIC_OR_PART)]
    with pytest.raises(TopicMissingError, match="numbers is gone"):
        reads.read(10, 0)


def test_positions_pass_a_gap_at_the_end_though_no_record_comes(client: FakeClient) -> None:
    reads = started(client)
    client.coming = [Record(9, KafkaError._PARTITION_EOF)]
    assert reads.read(10, 0) == []
    assert reads.moved() == {PLACE: 9}
    client.coming = [Record(9, KafkaError._PARTITION_EOF)]
    reads.read(10, 0)
    assert reads.moved() == {}


def passed_on(reads: ConsumerClient) -> list[int | None]:
    messages = reads.read(10, 0)
    reads.moved()
    return [message.offset() for message in reads.without_redelivered(messages)]


@pytest.mark.parametrize(
    ("batches", "fresh"),
    [
        ([[4, 5], [4, 5, 6]], [[4, 5], [6]]),
        ([[4, 5], [4, 5]], [[4, 5], []]),
        ([[4, 5, 4, 5, 6]], [[4, 5, 6]]),
        # What a transaction or a compaction has left out, with and without.
        ([[4, 7], [9]], [[4, 7], [9]]),
        ([[4, 7], [7, 9, 14]], [[4, 7], [9, 14]]),
    ],
    ids=["in-the-next-batch", "and-nothing-else", "in-one-batch", "gaps-alone", "among-gaps"],
)
def test_records_that_the_client_delivers_again_are_passed_on_once(
    client: FakeClient, capsys: pytest.CaptureFixture[str], batches: list[list[int]], fresh: list[list[int]]
) -> None:
    reads = started(client)
    found = []
    for batch in batches:
        client.coming = [Record(offset) for offset in batch]
        found.append(passed_on(reads))
    assert found == fresh
    again = sum(map(len, batches)) - sum(map(len, fresh))
    told = capsys.readouterr().err
    assert f"records={again}" in told if again else "records_redelivered" not in told


def test_what_a_recreated_log_holds_is_new_though_its_offsets_are_lower(client: FakeClient) -> None:
    reads = started(client, on_out_of_range="earliest")
    client.log = [(0, 2)]
    client.coming = [Record(4), Record(5, KafkaError._AUTO_OFFSET_RESET)]
    messages = reads.read(10, 0)
    client.position_is = OFFSET_INVALID  # as the client has it for a partition that it has just been given
    reads.moved()
    assert [message.offset() for message in reads.without_redelivered(messages)] == [4]
    client.coming = [Record(0), Record(1)]
    assert passed_on(reads) == [0, 1]


def given_up_and_begun(reads: ConsumerClient) -> None:
    reads.give_up([PLACE])
    reads.begin({PLACE: 4})


@pytest.mark.parametrize("begin_again", [given_up_and_begun, lambda reads: reads.begin_again({PLACE: 4})])
def test_partitions_that_are_taken_up_again_are_read_again(
    client: FakeClient, begin_again: Callable[[ConsumerClient], None]
) -> None:
    reads = started(client)
    client.coming = [Record(4), Record(5)]
    assert passed_on(reads) == [4, 5]
    begin_again(reads)
    client.coming = [Record(4), Record(5), Record(6)]
    assert passed_on(reads) == [4, 5, 6]


@pytest.mark.parametrize(
    "code", [KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION]
)
def test_a_position_out_of_range_while_running_ends_the_run(client: FakeClient, code: int) -> None:
    reads = started(client)
    client.log = [(7, 20)]
    client.coming = [Record(4, code)]
    with pytest.raises(OffsetOutOfRangeError, match=r"'readers' is at offset 4 of numbers\[0\].*7 to 20"):
        reads.read(10, 0)


@pytest.mark.parametrize(
    ("policy", "log", "goes_on", "deleted", "skipped"),
    [
        ("earliest", (7, 20), 7, 3, 0),
        ("latest", (7, 20), 20, 3, 13),
        # Shorter than our position: all of it is unread.
        ("earliest", (0, 2), 0, 0, 0),
        ("latest", (0, 2), 2, 0, 2),
    ],
)
def test_where_it_goes_on_is_what_the_config_says_and_what_that_skips_is_told(
    client: FakeClient,
    capsys: pytest.CaptureFixture[str],
    policy: str,
    log: tuple[int, int],
    goes_on: int,
    deleted: int,
    skipped: int,
) -> None:
    reads = started(client, on_out_of_range=policy)
    client.log = [log]
    client.coming = [Record(3), Record(4, KafkaError._AUTO_OFFSET_RESET)]
    assert [record.offset() for record in reads.read(10, 0)] == [3]
    assert client.at == goes_on
    # The jump is told with the batch in which it was met, so that it may be confirmed behind that.
    client.position_is = OFFSET_INVALID
    assert reads.moved() == {PLACE: goes_on}
    assert reads.moved() == {}
    told = capsys.readouterr().err
    assert "[error" in told
    assert f"records_deleted_unread={deleted} records_skipped={skipped}" in told


@pytest.mark.parametrize("met", ["by the watch alone", "by the client first"])
def test_a_topic_recreated_is_begun_once(client: FakeClient, met: str) -> None:
    reads = started(client, on_out_of_range="earliest")
    client.log = [(0, 2)]
    if met == "by the client first":
        client.coming = [Record(4, KafkaError._AUTO_OFFSET_RESET)]
        reads.read(10, 0)
        client.coming = [Record(0)]
        reads.read(10, 0)
        reads.moved()
    reads.restart_topic("numbers")
    assert client.at == (0 if met == "by the watch alone" else 1)


def test_a_topic_that_was_left_is_neither_read_nor_answered_for(client: FakeClient) -> None:
    reads = started(client)
    reads.leave("numbers")
    assert client.at is None
    assert reads.positions == {}
    client.group = [OFFSET_INVALID]
    assert reads.group.check()


# What a group stands at, looked at before a commit.


def test_a_group_that_stands_where_we_left_it_may_be_committed_to(client: FakeClient) -> None:
    assert started(client).group.check()


@pytest.mark.parametrize("moved_to", [3, 5, 0])
def test_a_second_instance_is_noticed(client: FakeClient, moved_to: int) -> None:
    reads = started(client)
    client.group = [moved_to]
    with pytest.raises(SecondInstanceError, match="someone else changed the offsets of the group"):
        reads.group.check()


def test_a_second_instance_is_noticed_though_the_group_had_no_position(client: FakeClient) -> None:
    reads = reader()
    reads.start([PLACE], {})
    client.group = [7]
    with pytest.raises(SecondInstanceError):
        reads.group.check()


def test_a_commit_without_an_answer_may_have_arrived(client: FakeClient) -> None:
    reads = started(client)
    client.commits = [KafkaError(KafkaError._TIMED_OUT)]
    reads.group.commit({PLACE: 6})
    assert reads.group.commit_answers() == {}
    for stands_at in (4, 6):
        client.group = [stands_at]
        assert reads.group.check()


def test_a_broker_that_does_not_say_where_the_group_stands_is_asked_again_later(client: FakeClient) -> None:
    reads = started(client)
    client.group = [fault(KafkaError.NOT_COORDINATOR), 4]
    assert not reads.group.check()
    assert reads.group.check()


def test_a_group_that_has_lost_its_position_is_not_given_an_old_one_before_its_topic_was_looked_at(
    client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    reads = started(client, 4, lambda topic, why: told.append(why))
    client.group = [OFFSET_INVALID]
    assert not reads.group.check()
    assert told == ["the group has lost its offset in numbers[0]"]
    monkeypatch.setattr(group_module, "_SURE", 0.0)
    assert reads.group.check()


# What becomes of commits.


def test_failures_of_asynchronous_commits_are_not_thrown_away(client: FakeClient) -> None:
    reads = started(client)
    client.commits = [KafkaError(KafkaError.NOT_COORDINATOR)]
    reads.group.commit({PLACE: 6})
    assert reads.group.commit_answers() == {}
    client.commits = [KafkaError(KafkaError.OFFSET_METADATA_TOO_LARGE)]
    reads.group.commit({PLACE: 6})
    with pytest.raises(CommitError):
        reads.group.commit_answers()


def test_a_commit_that_is_refused_at_once_is_asked_whether_that_passes_as_a_later_answer_is(client: FakeClient) -> None:
    reads = reader()
    client.commits = [fault(KafkaError.NOT_COORDINATOR), None]
    reads.group.commit({PLACE: 6})
    assert not reads.group.commit_outstanding
    assert reads.group.commit_answers() == {}
    reads.group.commit({PLACE: 7})
    assert reads.group.commit_answers() == {PLACE: 7}
    client.commits = [fault(KafkaError.GROUP_AUTHORIZATION_FAILED)]
    reads.group.commit({PLACE: 8})
    with pytest.raises(AuthorizationFailedError, match="authorization"):
        reads.group.commit_answers()


def test_an_answered_commit_is_told_once(client: FakeClient) -> None:
    reads = started(client)
    assert reads.group.commit_answers() is None
    reads.group.commit({PLACE: 6})
    assert not reads.group.commit_outstanding
    assert reads.group.commit_answers() == {PLACE: 6}
    assert reads.group.commit_answers() is None
    client.group = [6]
    assert reads.group.check()


def test_a_commit_that_is_waited_for_is_repeated_while_its_fault_may_pass(client: FakeClient) -> None:
    reads = started(client)
    client.commits = [KafkaError(KafkaError.NOT_COORDINATOR), None]
    reads.group.commit_now({PLACE: 6})
    assert client.committed_offsets == [6, 6]
    client.commits = [KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)]
    with pytest.raises(AuthorizationFailedError):
        reads.group.commit_now({PLACE: 7})


def test_a_commit_that_is_waited_for_and_that_no_coordinator_takes_is_the_brokers_fault_and_ends_in_time(
    client: FakeClient,
) -> None:
    reads = started(client, start_timeout_ms=1)
    client.commits = [KafkaError(KafkaError.NOT_COORDINATOR)]
    with pytest.raises(BrokerUnavailableError, match=r"answer of the group's coordinator.*start_timeout_ms"):
        reads.group.commit_now({PLACE: 6})
