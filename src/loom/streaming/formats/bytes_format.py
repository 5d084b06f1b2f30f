"""The `bytes` format: the value as it is. Only `bytes` payloads go with it."""

from __future__ import annotations

from typing import Any

from loom.core.config.shape import bare
from loom.streaming.formats.format import Decode, Encode, Format
from loom.streaming.formats.payloads import PayloadProblem

__all__ = ["BytesFormat"]


class BytesFormat(Format):
    """Hands values on as they are."""

    name = "bytes"
    content_type = "application/octet-stream"

    def decoder(self, payload: Any) -> Decode:
        return bytes

    def encoder(self) -> Encode:
        return _only_bytes

    def why_not_read(self, payload: Any) -> PayloadProblem | None:
        return self.why_not_written(payload)

    def why_not_written(self, payload: Any) -> PayloadProblem | None:
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
