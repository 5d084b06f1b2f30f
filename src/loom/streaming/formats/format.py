"""The interface of a wire format. A format returns plain callables, which the stages call per record.

Subclass `Format` where a value holds the payload alone, `FramedFormat` where it holds metadata too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

from loom.core.config.shape import bare
from loom.core.model import LoomFrozenStruct
from loom.streaming.errors import ErrorEnvelope
from loom.streaming.formats.finite import FiniteNumbers
from loom.streaming.formats.hooks import DecHook, EncHook
from loom.streaming.formats.payloads import PayloadProblem, unreadable_payload, unwritable_payload
from loom.streaming.message import MessageMeta

__all__ = [
    "Decode",
    "Encode",
    "Encoding",
    "Format",
    "Frame",
    "Framed",
    "FramedFormat",
    "Label",
    "PayloadProblem",
    "Unframe",
    "WholeErrors",
]

#: bytes -> payload; raises on bytes that do not fit
Decode: TypeAlias = Callable[[bytes], Any]
#: payload -> bytes; raises on what the format cannot hold
Encode: TypeAlias = Callable[[Any], bytes]
#: (payload, metadata) -> bytes
Frame: TypeAlias = Callable[[Any, MessageMeta], bytes]
#: the message type and version that a value names
Label: TypeAlias = tuple[bytes | None, int | None]


class Framed(Protocol):
    """What a framed value holds. Any object with these two members is one.

    >>> from msgspec.structs import replace
    >>> class Opened(LoomFrozenStruct):
    ...     payload: str
    ...     trace: str
    ...     def over(self, record: MessageMeta) -> MessageMeta:
    ...         return replace(record, trace_id=self.trace)
    >>> Opened("hello", "t1").over(MessageMeta("orders:0:7")).trace_id
    't1'
    """

    @property
    def payload(self) -> Any:
        """The decoded payload."""

    def over(self, record: MessageMeta) -> MessageMeta:
        """The metadata of the message.

        Args:
            record: what key, headers and timestamp of the record say.

        Returns:
            The same, with what the value says laid over it.
        """


#: bytes -> payload and metadata; raises on bytes that do not fit
Unframe: TypeAlias = Callable[[bytes], Framed]


class Encoding(LoomFrozenStruct):
    """What an output asks of its format.

    >>> from loom.streaming.formats import find_format
    >>> find_format("json").encoder(Encoding(enc_hook=str))([1j])
    b'["1j"]'

    Args:
        enc_hook: makes something that the format knows of an object that it does not.
        decimal: a `Decimal` as a JSON string or as a JSON number; for formats that have `takes_decimal`.
    """

    enc_hook: EncHook | None = None
    decimal: Literal["string", "number"] = "string"


class WholeErrors(Protocol):
    """How a format writes a whole `ErrorEnvelope` in place of the original bytes of a dead letter."""

    def seal(self, envelope: ErrorEnvelope[Any]) -> bytes:
        """The envelope as bytes. Never raises because of what its message holds: the message is left out then."""

    def recognises(self, value: bytes) -> bool:
        """Whether a value may be such an envelope."""

    def open(self, value: bytes, open_payload: Callable[[bytes, str | None], Any]) -> ErrorEnvelope[Any]:
        """The envelope in these bytes; `open_payload` makes the payload of its bytes and the name of its type."""

    def payload_decoder(self, payload: Any, dec_hook: DecHook | None) -> Decode:
        """Decodes the payload of the message inside such an envelope."""

    def shortened(self, value: bytes) -> Iterator[bytes]:
        """Ever shorter versions of an envelope that is too large for its topic."""


class Format(ABC):
    """One wire format: a payload to the value of a record, and back.

    One instance serves all sources and outputs, so it holds no state. What `decoder` and `encoder` return is made once for
    each of them, and called for each record.

    >>> import json
    >>> class Lines(Format):
    ...     name = "lines"
    ...     content_type = "text/plain"
    ...     def decoder(self, payload, dec_hook=None):
    ...         return lambda value: value.decode().split(",")
    ...     def encoder(self, encoding=Encoding()):
    ...         return lambda payload: ",".join(payload).encode()
    >>> Lines().decoder(list)(b"a,b")
    ['a', 'b']
    """

    #: the name in a config
    name: ClassVar[str]
    #: the value of the header `content-type`
    content_type: ClassVar[str]
    #: how whole `ErrorEnvelope`s are written; `None`: a dead letter holds the original bytes
    whole_errors: ClassVar[WholeErrors | None] = None
    #: whether `dec_hook` and `enc_hook` are called; where not, a flow that gives one does not compile
    takes_hooks: ClassVar[bool] = True
    #: whether it heeds `json.decimal`
    takes_decimal: ClassVar[bool] = False
    #: whether a payload is decoded to an instance of exactly its declared class, never of a subclass
    decodes_exactly: ClassVar[bool] = False

    @abstractmethod
    def decoder(self, payload: Any, dec_hook: DecHook | None = None) -> Decode:
        """What decodes values.

        Args:
            payload: the payload type of the source.
            dec_hook: makes instances of types that the format does not know.

        Returns:
            A function from bytes to a payload. What it raises is a `WIRE` error of the record.
        """

    @abstractmethod
    def encoder(self, encoding: Encoding = Encoding()) -> Encode:  # noqa: B008 - immutable
        """What encodes payloads, of whatever type a step has made.

        Args:
            encoding: what the output asks for.

        Returns:
            A function from a payload to bytes. What it raises is a `TASK` error of the record.
        """

    def why_not_read(self, payload: Any, dec_hook: DecHook | None = None) -> PayloadProblem | None:
        """Why a source cannot read payloads of this type, which is then a compile error.

        Args:
            payload: the payload type of the source.
            dec_hook: the hook of the source.

        Returns:
            What is wrong and how to fix it, or `None`. Here: what msgspec cannot read.
        """
        return self._not_bytes(payload) or unreadable_payload(payload, hooked=dec_hook is not None)

    def why_not_written(self, payload: Any, enc_hook: EncHook | None = None) -> PayloadProblem | None:
        """Why an output cannot write payloads of this type, which is then a compile error.

        Args:
            payload: a payload type that may arrive at the output.
            enc_hook: the hook of the output.

        Returns:
            What is wrong and how to fix it, or `None`. Here: what msgspec cannot write.
        """
        return self._not_bytes(payload) or unwritable_payload(payload, hooked=enc_hook is not None)

    def finite_numbers(self, payloads: Iterable[Any]) -> FiniteNumbers | None:
        """What finds numbers that the format does not have, such as NaN in JSON.

        Args:
            payloads: the payload types that may arrive at an output.

        Returns:
            `None` if the format has every number.
        """
        return None

    def _not_bytes(self, payload: Any) -> PayloadProblem | None:
        if bare(payload) is not bytes:
            return None
        return PayloadProblem(
            f"the format {self.name} does not go with this payload",
            "set format: bytes for a bytes payload, and another format for any other",
        )


class FramedFormat(Format):
    """A format whose values hold metadata beside the payload, so that a record can be read without its headers.

    >>> from loom.streaming.formats import find_format
    >>> framed = find_format("envelope")
    >>> isinstance(framed, FramedFormat)
    True
    >>> value = framed.framer()({"id": 7}, MessageMeta("orders:0:7", trace_id="t1"))
    >>> framed.unframer(dict)(value).over(MessageMeta("copied:0:1")).trace_id
    't1'
    """

    @abstractmethod
    def unframer(self, payload: Any, dec_hook: DecHook | None = None) -> Unframe:
        """What opens values.

        Args:
            payload: the payload type of the source.
            dec_hook: makes instances of types that the format does not know.

        Returns:
            A function from bytes to a `Framed`. What it raises is a `WIRE` error of the record.
        """

    @abstractmethod
    def framer(self, encoding: Encoding = Encoding()) -> Frame:  # noqa: B008 - immutable
        """What makes values.

        Args:
            encoding: what the output asks for.

        Returns:
            A function from a payload and the metadata of its message to bytes. What it raises is a `TASK` error of the record.
        """

    @abstractmethod
    def label(self, value: bytes) -> Label:
        """What a value says of its payload, for sources of several types.

        Args:
            value: the value of a record.

        Returns:
            The message type and version; `None` for what the value does not say.

        Raises:
            Exception: the value is not of this format, which is a `WIRE` error of the record.
        """

    @abstractmethod
    def recognises(self, value: bytes) -> bool:
        """Whether a value may be of this format. It is called per record, so it has to be quick.

        Args:
            value: the value of a record.
        """

    def decoder(self, payload: Any, dec_hook: DecHook | None = None) -> Decode:
        """What decodes values to bare payloads.

        Args:
            payload: the payload type.
            dec_hook: makes instances of types that the format does not know.

        Returns:
            A function from bytes to a payload.
        """
        unframe = self.unframer(payload, dec_hook)
        return lambda value: unframe(value).payload

    def encoder(self, encoding: Encoding = Encoding()) -> Encode:  # noqa: B008 - immutable
        """What encodes payloads that have no metadata.

        Args:
            encoding: what is asked of the format.

        Returns:
            A function from a payload to bytes.
        """
        frame = self.framer(encoding)
        return lambda payload: frame(payload, _NO_META)


_NO_META = MessageMeta("")
