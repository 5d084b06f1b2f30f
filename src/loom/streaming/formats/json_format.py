"""The `json` format: the bare payload as JSON, which every Kafka tool reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from loom.streaming.formats.finite import FiniteNumbers, check_decimals
from loom.streaming.formats.format import Decode, Encode, Encoding, Format
from loom.streaming.formats.hooks import DecHook, EncHook
from loom.streaming.formats.payloads import PayloadProblem, keys_not_text
from loom.streaming.formats.pydantic_models import dec_hook_for, json_enc_hook, model_reader

__all__ = ["JsonFormat"]


class JsonFormat(Format):
    """Payloads as JSON. Unknown fields are ignored; NaN and the infinities, which JSON does not have, are refused."""

    name = "json"
    content_type = "application/json"
    takes_decimal = True
    decodes_exactly = True

    def decoder(self, payload: Any, dec_hook: DecHook | None = None) -> Decode:
        models = model_reader(payload)
        if models is not None:
            return models.from_json
        return msgspec.json.Decoder(payload, dec_hook=dec_hook_for(payload, dec_hook)).decode

    def encoder(self, encoding: Encoding = Encoding()) -> Encode:  # noqa: B008 - immutable
        encode = msgspec.json.Encoder(enc_hook=json_enc_hook(encoding.enc_hook), decimal_format=encoding.decimal).encode
        return encode if encoding.decimal == "string" else check_decimals(encode)

    def why_not_read(self, payload: Any, dec_hook: DecHook | None = None) -> PayloadProblem | None:
        return super().why_not_read(payload, dec_hook) or keys_not_text(payload)

    def why_not_written(self, payload: Any, enc_hook: EncHook | None = None) -> PayloadProblem | None:
        return super().why_not_written(payload, enc_hook) or keys_not_text(payload)

    def finite_numbers(self, payloads: Iterable[Any]) -> FiniteNumbers | None:
        return FiniteNumbers(payloads)
