"""Whether the payload types of a source or an output go with its wire format, and have the labels that it needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_origin

from loom.core.config.shape import show
from loom.core.importable import NotImportableError
from loom.streaming.compiler.catalogue import Code
from loom.streaming.compiler.issues import Issues
from loom.streaming.compiler.model import NodePath, PayloadTypes
from loom.streaming.formats.format import Format, FramedFormat
from loom.streaming.formats.payloads import PayloadProblem
from loom.streaming.formats.registry import UnknownFormatError, find_format
from loom.streaming.kafka.record_headers import is_labelled
from loom.streaming.kafka.settings import HeaderPolicy, ProducerSettings
from loom.streaming.message import loom_message_type, loom_message_version

__all__ = ["check_output", "check_source", "check_source_labels"]


def check_source(issues: Issues, payloads: Iterable[Any], name: str) -> None:
    """Report payload types that a source in the format of this name cannot read."""
    wire_format = _format(issues, name, "source", ())
    if wire_format is None:
        return
    for payload in payloads:
        if payload is not Any:
            _report(issues, wire_format.why_not_read(payload), payload, "source", ())


def check_source_labels(issues: Issues, payloads: Iterable[Any]) -> None:
    """Types that share a label and its version cannot be told apart."""
    by_label: dict[tuple[str, int], Any] = {}
    for payload in payloads:
        if not hasattr(payload, "__qualname__"):
            continue  # what is no type has been reported, and has no label
        name = _label(issues, payload, "source", ())
        if name is None:
            continue
        label = name, loom_message_version(payload)
        if label in by_label:
            issues.error(
                Code.NAME_TWICE,
                f"two payload types of the source have the message type {name!r} in version {label[1]}",
                where="source",
                found=PayloadTypes((by_label[label], payload)),
                remedy="give one of them another __loom_message_type__, or another __loom_message_version__",
            )
        by_label[label] = payload


def check_output(
    issues: Issues, payloads: PayloadTypes, settings: ProducerSettings, where: str, path: NodePath
) -> None:
    """Report payload types that an output cannot write, or cannot label where it has to."""
    wire_format = _format(issues, settings.format, where, path)
    if wire_format is None:
        return
    for payload in payloads.types:
        _report(issues, wire_format.why_not_written(payload), payload, where, path)
        if _writes_label(settings, wire_format, payload, several=len(payloads.types) > 1 or not payloads.known):
            _label(issues, payload, where, path)


def _format(issues: Issues, name: str, where: str, path: NodePath) -> Format | None:
    try:
        return find_format(name)
    except UnknownFormatError as error:
        issues.error(
            Code.CONFIG_INVALID,
            str(error),
            where=where,
            path=path,
            expected="a format that can be loaded",
            found=name,
            remedy="fix or uninstall the package, or write another format",
        )
        return None


def _report(issues: Issues, problem: PayloadProblem | None, payload: Any, where: str, path: NodePath) -> None:
    if problem is not None:
        issues.error(
            Code.PAYLOAD_INVALID,
            problem.message,
            where=where,
            path=path,
            expected=problem.expected,
            found=show(payload) if not isinstance(payload, str) else repr(payload),
            remedy=problem.remedy,
        )


def _label(issues: Issues, payload: Any, where: str, path: NodePath) -> str | None:
    """The message type of a payload type; one that has none is reported."""
    try:
        return loom_message_type(payload)
    except NotImportableError as error:
        name = PayloadTypes((payload,))
        issues.error(
            Code.PAYLOAD_INVALID,
            f"{error}, so it has no message type",
            where=where,
            path=path,
            expected="a class of a module that can be imported, or one that names its type",
            found=name,
            remedy=f'write __loom_message_type__ = "…" in {name}, move it to a module of its own, or start the flow with '
            "loom run MODULE:FLOW",
        )
        return None


def _writes_label(settings: ProducerSettings, wire_format: Format, payload: Any, *, several: bool) -> bool:
    """Whether the name of the payload's type is written, in the value or in a header."""
    if not isinstance(get_origin(payload) or payload, type):
        return False
    if isinstance(wire_format, FramedFormat):
        return True
    return settings.headers is not HeaderPolicy.NONE and is_labelled(payload, settings.headers, several_types=several)
