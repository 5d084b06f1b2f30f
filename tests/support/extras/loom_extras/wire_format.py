"""A wire format with a frame: the message type and its length in front of the JSON."""

from typing import Any

import msgspec

from loom.core.model import LoomFrozenStruct
from loom.streaming.formats import DecHook, Encoding, Frame, FramedFormat, Unframe
from loom.streaming.message import MessageMeta, loom_message_type


class Opened(LoomFrozenStruct):
    """What a framed value holds."""

    label: str
    payload: Any

    def over(self, record: MessageMeta) -> MessageMeta:
        return msgspec.structs.replace(record, message_type=self.label)


class LengthPrefixed(FramedFormat):
    """Frames JSON."""

    name = "prefixed"
    content_type = "application/x-prefixed"

    def unframer(self, payload: Any, dec_hook: DecHook | None = None) -> Unframe:
        decode = msgspec.json.Decoder(payload, dec_hook=dec_hook).decode

        def unframe(value: bytes) -> Opened:
            label, _ = self.label(value)
            return Opened(label.decode(), decode(value[len(label) + 1 :]))

        return unframe

    def framer(self, encoding: Encoding = Encoding()) -> Frame:  # noqa: B008 - immutable
        encode = msgspec.json.Encoder(enc_hook=encoding.enc_hook).encode

        def frame(payload: Any, meta: MessageMeta) -> bytes:
            label = loom_message_type(type(payload)).encode()
            return bytes([len(label)]) + label + encode(payload)

        return frame

    def label(self, value: bytes) -> tuple[bytes, None]:
        if len(value) <= value[0]:
            raise ValueError("the frame is cut off")
        return value[1 : value[0] + 1], None

    def recognises(self, value: bytes) -> bool:
        return bool(value) and len(value) > value[0]
