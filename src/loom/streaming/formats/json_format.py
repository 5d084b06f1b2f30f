"""The `json` format: the bare payload as JSON, which every Kafka tool reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from loom.streaming.formats.finite import FiniteNumbers
from loom.streaming.formats.format import Decode, Encode, Format
from loom.streaming.formats.payloads import PayloadProblem, keys_not_text

__all__ = ["JsonFormat"]


class JsonFormat(Format):
    """Payloads as JSON. Unknown fields are ignored; NaN and the infinities, which JSON does not have, are refused."""

    name = "json"
    content_type = "application/json"

    def decoder(self, payload: Any) -> Decode:
        return msgspec.json.Decoder(payload).decode

    def encoder(self) -> Encode:
        return msgspec.json.Encoder().encode

    def why_not_written(self, payload: Any) -> PayloadProblem | None:
        return super().why_not_written(payload) or keys_not_text(payload)

    def finite_numbers(self, payloads: Iterable[Any]) -> FiniteNumbers | None:
        return FiniteNumbers(payloads)
