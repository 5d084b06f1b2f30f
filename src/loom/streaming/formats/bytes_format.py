"""The `bytes` format: the value as it is. Only `bytes` payloads go with it."""

from __future__ import annotations

from typing import Any

from loom.core.config.shape import bare
from loom.streaming.formats.format import Decode, Encode, Encoding, Format
from loom.streaming.formats.hooks import DecHook, EncHook
from loom.streaming.formats.payloads import PayloadProblem

__all__ = ["BytesFormat"]


class BytesFormat(Format):
    """Hands values on as they are."""

    name = "bytes"
    content_type = "application/octet-stream"

    takes_hooks = False
    decodes_exactly = True

    def decoder(self, payload: Any, dec_hook: DecHook | None = None) -> Decode:
        return bytes

    def encoder(self, encoding: Encoding = Encoding()) -> Encode:  # noqa: B008 - immutable
        return _only_bytes

    def why_not_read(self, payload: Any, dec_hook: DecHook | None = None) -> PayloadProblem | None:
        return self.why_not_written(payload)

    def why_not_written(self, payload: Any, enc_hook: EncHook | None = None) -> PayloadProblem | None:
        if bare(payload) is bytes:
            return None
        return PayloadProblem(
            f"the format {self.name} does not go with this payload",
            "set format: bytes for a bytes payload, and another format for any other",
            expected="bytes",
        )


def _only_bytes(payload: Any) -> bytes:
    if isinstance(payload, bytes):
        return payload
    raise TypeError(f"the bytes format writes bytes, not {type(payload).__qualname__}")
