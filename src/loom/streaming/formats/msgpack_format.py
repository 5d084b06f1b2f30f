"""The `msgpack` format: the bare payload as MessagePack."""

from __future__ import annotations

from typing import Any

import msgspec

from loom.streaming.formats.format import Decode, Encode, Encoding, Format
from loom.streaming.formats.hooks import DecHook
from loom.streaming.formats.pydantic_models import dec_hook_for, model_reader, plain_enc_hook

__all__ = ["MsgpackFormat", "msgpack_decoder"]


class MsgpackFormat(Format):
    """Payloads as MessagePack, which has binary data and any key of a mapping."""

    name = "msgpack"
    content_type = "application/msgpack"
    decodes_exactly = True

    def decoder(self, payload: Any, dec_hook: DecHook | None = None) -> Decode:
        return msgpack_decoder(payload, dec_hook)

    def encoder(self, encoding: Encoding = Encoding()) -> Encode:  # noqa: B008 - immutable
        return msgspec.msgpack.Encoder(enc_hook=plain_enc_hook(encoding.enc_hook)).encode


def msgpack_decoder(payload: Any, dec_hook: DecHook | None) -> Decode:
    """What decodes MessagePack to payloads of this type."""
    models = model_reader(payload)
    if models is None:
        return msgspec.msgpack.Decoder(payload, dec_hook=dec_hook_for(payload, dec_hook)).decode
    decode, validate = msgspec.msgpack.Decoder().decode, models.from_plain
    return lambda value: validate(decode(value))
