"""Wire formats: how a payload becomes the value of a record, and back. One file per format; no client is imported here.

A package of your own adds a format with a subclass of `Format` (or `FramedFormat`) and an entry point of the group
`loom.streaming.formats`; its name is then valid wherever a config says `format:`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loom.core.lazy import lazy_exports

if TYPE_CHECKING:
    from loom.streaming.formats.format import Decode, Encode, Encoding, Format, Frame, Framed, FramedFormat, Unframe
    from loom.streaming.formats.hooks import DecHook, EncHook
    from loom.streaming.formats.payloads import PayloadProblem
    from loom.streaming.formats.registry import UnknownFormatError, WireFormat, find_format, format_names

__all__ = [
    "DecHook",
    "Decode",
    "EncHook",
    "Encode",
    "Encoding",
    "Format",
    "Frame",
    "Framed",
    "FramedFormat",
    "PayloadProblem",
    "Unframe",
    "UnknownFormatError",
    "WireFormat",
    "find_format",
    "format_names",
]

__getattr__, __dir__ = lazy_exports(__name__)
