"""The client library's test broker, told which requests to refuse.

    with RefusingBroker() as broker:
        broker.create_topic("orders")
        broker.refuse(PRODUCE, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)

Python's binding does not offer that of the library, so its functions are called directly (librdkafka's `rdkafka_mock.h`).
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import TracebackType
from typing import Self

import confluent_kafka

__all__ = ["PRODUCE", "RefusingBroker"]

#: the protocol's number of a request (Kafka protocol, "API keys")
PRODUCE = 0

_PRODUCER = 0
_NUMBER, _TEXT, _POINTER = ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p


class RefusingBroker:
    """One broker in this process."""

    def __init__(self) -> None:
        self._library = _library()
        why = ctypes.create_string_buffer(512)
        config = self._library.rd_kafka_conf_new()
        self._library.rd_kafka_conf_set(config, b"log_level", b"0", why, len(why))
        self._client = self._library.rd_kafka_new(_PRODUCER, config, why, len(why))
        assert self._client, why.value
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._client, 1)
        #: `host:port` for clients
        self.bootstrap: str = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._client)

    def create_topic(self, name: str, partitions: int = 1) -> str:
        """Create a topic and return its name."""
        assert not self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1)
        return name

    def refuse(self, request: int, error: int, times: int = 1) -> None:
        """Answer the next requests of a kind, of any client, with an error."""
        errors = (ctypes.c_int * times)(*[error] * times)
        self._library.rd_kafka_mock_push_request_errors_array(self._cluster, request, times, errors)


def _library() -> ctypes.CDLL:
    package = Path(confluent_kafka.__file__).parent
    (found,) = package.with_name("confluent_kafka.libs").glob("librdkafka*.so*")
    library = ctypes.CDLL(str(found))
    for name, answer, takes in (
        ("rd_kafka_conf_new", _POINTER, ()),
        ("rd_kafka_conf_set", _NUMBER, (_POINTER, _TEXT, _TEXT, _TEXT, ctypes.c_size_t)),
        ("rd_kafka_new", _POINTER, (_NUMBER, _POINTER, _TEXT, ctypes.c_size_t)),
        ("rd_kafka_destroy", None, (_POINTER,)),
        ("rd_kafka_mock_cluster_new", _POINTER, (_POINTER, _NUMBER)),
        ("rd_kafka_mock_cluster_destroy", None, (_POINTER,)),
        ("rd_kafka_mock_cluster_bootstraps", _TEXT, (_POINTER,)),
        ("rd_kafka_mock_topic_create", _NUMBER, (_POINTER, _TEXT, _NUMBER, _NUMBER)),
        ("rd_kafka_mock_push_request_errors_array", None, (_POINTER, ctypes.c_int16, ctypes.c_size_t, _POINTER)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = answer, list(takes)
    return library
