"""The `msgpack` format: the bare payload as MessagePack."""

from __future__ import annotations

from typing import Any

import msgspec

from loom.streaming.formats.format import Decode, Encode, Format

__all__ = ["MsgpackFormat"]


class MsgpackFormat(Format):
    """Payloads as MessagePack, which has binary data and any key of a mapping."""

    name = "msgpack"
    content_type = "application/msgpack"

    def decoder(self, payload: Any) -> Decode:
        return msgspec.msgpack.Decoder(payload).decode

    def encoder(self) -> Encode:
        return msgspec.msgpack.Encoder().encode
