"""Every wire format by its name: those of Loom, and those that installed packages offer. A format is loaded on first use."""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from importlib import import_module
from typing import Final

from loom.core.config.keys import nearest
from loom.core.entry_points import EntryPointError, offer_of, offers
from loom.core.model import LoomFrozenStruct
from loom.streaming.errors import LoomStreamingError
from loom.streaming.formats.format import Format, FramedFormat

__all__ = [
    "ENTRY_POINTS",
    "Reading",
    "UnknownFormatError",
    "WireFormat",
    "as_wire_format",
    "find_format",
    "format_names",
    "reading_of",
]

#: the group in which a package offers formats: `name = "module:Class"`
ENTRY_POINTS: Final = "loom.streaming.formats"


class WireFormat(StrEnum):
    """The wire formats of Loom. Installed packages may offer more, which are known by their name alone.

    >>> [wire_format.value for wire_format in WireFormat]
    ['json', 'msgpack', 'envelope', 'bytes']
    """

    JSON = "json"  #: the bare payload as JSON
    MSGPACK = "msgpack"  #: the bare payload as MessagePack
    ENVELOPE = "envelope"  #: one MessagePack map `{meta, payload}`
    BYTES = "bytes"  #: the value as it is


#: a built-in format by its name: `module:Class`
_BUILT_IN: Final[dict[str, str]] = {
    WireFormat.JSON: "loom.streaming.formats.json_format:JsonFormat",
    WireFormat.MSGPACK: "loom.streaming.formats.msgpack_format:MsgpackFormat",
    WireFormat.ENVELOPE: "loom.streaming.formats.envelope_format:EnvelopeFormat",
    WireFormat.BYTES: "loom.streaming.formats.bytes_format:BytesFormat",
}


class UnknownFormatError(LoomStreamingError, ValueError):
    """A name that no wire format has, or a format that cannot be loaded.

    >>> find_format("jsom")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    loom.streaming.formats.registry.UnknownFormatError: format takes 'json', ..., not 'jsom'; did you mean 'json'?
    """


class Reading(LoomFrozenStruct):
    """How the values of a source are read."""

    format: Format
    #: a framed format that is recognised beside it
    beside: FramedFormat | None = None

    @property
    def framed(self) -> FramedFormat | None:
        """The format, where every value holds metadata."""
        return self.format if isinstance(self.format, FramedFormat) else None


def reading_of(name: str | None) -> Reading:
    """How a source is read whose consumer has this `format`; on the default it reads JSON and recognises envelopes."""
    if name is not None:
        return Reading(find_format(name))
    envelope = find_format(WireFormat.ENVELOPE)
    return Reading(find_format(WireFormat.JSON), envelope if isinstance(envelope, FramedFormat) else None)


def find_format(name: str) -> Format:
    """The format of this name. One of an installed package is imported on first use.

    >>> find_format("json").content_type
    'application/json'

    Args:
        name: the name in a config.

    Raises:
        UnknownFormatError: no format has this name, or the package that offers it is broken.
    """
    if name in _BUILT_IN:
        return _built_in(name)
    try:
        offer = offer_of(ENTRY_POINTS, name)
        found = offer.load() if offer is not None else None
        made = found() if isinstance(found, type) and issubclass(found, Format) else found
    except EntryPointError as error:
        raise UnknownFormatError(str(error)) from error
    if offer is None:
        raise UnknownFormatError(f"format takes {_unknown(name)}")
    if not isinstance(made, Format):
        raise UnknownFormatError(f"{offer} is no loom.streaming.formats.Format; fix or uninstall the package")
    if getattr(made, "name", None) != name:
        raise UnknownFormatError(
            f"{offer} has the name {getattr(made, 'name', None)!r}; give the entry point and the class one name"
        )
    return made


@cache
def _built_in(name: str) -> Format:
    module, _, cls = _BUILT_IN[name].partition(":")
    made: Format = getattr(import_module(module), cls)()
    return made


def format_names() -> tuple[str, ...]:
    """The name of every format that a config may use, those of installed packages last.

    >>> format_names()[:4]
    ('json', 'msgpack', 'envelope', 'bytes')
    """
    return (*map(str, _BUILT_IN), *sorted({offer.name for offer in offers(ENTRY_POINTS)} - _BUILT_IN.keys()))


def as_wire_format(name: object, where: str = "format") -> str:
    """The member of `WireFormat` that a name has, or the name of an installed format.

    Nothing is loaded, and packages are asked for only where no format of Loom has the name.

    Raises:
        UnknownFormatError: no format has this name; `where` is the setting, for the message.
    """
    if isinstance(name, str):
        if name in _BUILT_IN:
            return WireFormat(name)
        if any(offer.name == name for offer in offers(ENTRY_POINTS)):
            return name
    raise UnknownFormatError(f"{where} takes {_unknown(name)}")


def _unknown(name: object) -> str:
    known = format_names()
    *others, last = map(repr, known)
    close = nearest(name, known) if isinstance(name, str) else None
    return f"{', '.join(others)} or {last}, not {name!r}" + (f"; did you mean {close!r}?" if close is not None else "")
