"""Whether the payload types of a source or an output go with its wire format, and have the labels that it needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from loom.core.config.shape import show
from loom.core.importable import NotImportableError
from loom.streaming.compiler.catalogue import Code
from loom.streaming.compiler.hook_checks import check_hook
from loom.streaming.compiler.issues import Issues
from loom.streaming.compiler.model import NodePath, PayloadTypes
from loom.streaming.formats.format import Format, FramedFormat
from loom.streaming.formats.hooks import DecHook, EncHook
from loom.streaming.formats.payloads import PayloadProblem
from loom.streaming.formats.registry import UnknownFormatError, find_format
from loom.streaming.kafka.format_settings import JsonSettings
from loom.streaming.kafka.record_headers import is_labelled
from loom.streaming.kafka.settings import HeaderPolicy, ProducerSettings
from loom.streaming.message import has_message_type, loom_message_type, loom_message_version

__all__ = ["check_output", "check_source", "check_source_labels"]


def check_source(issues: Issues, payloads: Iterable[Any], name: str, owner: str, dec_hook: DecHook | None) -> None:
    """Report payload types that a source in the format of this name cannot read; `owner` is the source."""
    wire_format = _format(issues, name, "source", ())
    if wire_format is None:
        return
    check_hook(issues, owner, "dec_hook", dec_hook, wire_format, "source", ())
    for payload in payloads:
        if payload is not Any:
            _report(issues, wire_format.why_not_read(payload, dec_hook), payload, "source", ())


def check_source_labels(issues: Issues, payloads: Iterable[Any]) -> None:
    """Types that share a label and its version cannot be distinguished."""
    by_label: dict[tuple[str, int], Any] = {}
    for payload in payloads:
        if isinstance(payload, str):
            continue  # no type, which has been reported
        if not has_message_type(payload):
            issues.error(
                Code.PAYLOAD_INVALID,
                f"{show(payload)} has no message type, by which a source of several types tells it apart",
                where="source",
                expected="classes of your own",
                found=show(payload),
                remedy="make it a class, such as a LoomFrozenStruct; or read the topic with FromTopic and a union of tagged "
                "structs",
            )
            continue
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
    issues: Issues,
    payloads: PayloadTypes,
    settings: ProducerSettings,
    owner: str,
    enc_hook: EncHook | None,
    where: str,
    path: NodePath,
) -> None:
    """Report payload types that an output cannot write, or cannot label where it has to; `owner` is the output."""
    wire_format = _format(issues, settings.format, where, path)
    if wire_format is None:
        return
    check_hook(issues, owner, "enc_hook", enc_hook, wire_format, where, path)
    if settings.json != JsonSettings() and not wire_format.takes_decimal:
        issues.error(
            Code.CONFIG_INVALID,
            f"the producer of {owner} is set to json.decimal: {settings.json.decimal}, and does not write JSON",
            where=where,
            path=path,
            expected="format: json",
            found=f"format: {wire_format.name}",
            remedy="remove json.decimal from the producer, or set it back to string",
        )
    # Where no type has a name, there is nothing that a reader could tell them apart by.
    several = (len(payloads.types) > 1 and any(map(has_message_type, payloads.types))) or not payloads.known
    for payload in payloads.types:
        _report(issues, wire_format.why_not_written(payload, enc_hook), payload, where, path)
        why = _why_labelled(settings, wire_format, payload, several=several)
        if why is not None and has_message_type(payload):
            _label(issues, payload, where, path)
        elif why is not None:
            issues.error(
                Code.PAYLOAD_INVALID,
                f"{show(payload)} has no message type, which {why[0]}",
                where=where,
                path=path,
                expected="a class of your own, such as a LoomFrozenStruct",
                found=show(payload),
                remedy=f"{why[1]}, or make it a class: class …(LoomFrozenStruct)",
            )


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


def _why_labelled(
    settings: ProducerSettings, wire_format: Format, payload: Any, *, several: bool
) -> tuple[str, str] | None:
    """What writes the name of the payload's type, and how to keep it from that; `None` where nothing does."""
    if isinstance(wire_format, FramedFormat):
        return f"the format {wire_format.name} writes into every value", "set another format, such as json or msgpack"
    if settings.headers is HeaderPolicy.NONE or not is_labelled(payload, settings.headers, several_types=several):
        return None
    if settings.headers is HeaderPolicy.FULL:
        return "headers: full writes for every record", "set headers: auto or none at the producer"
    return "headers: auto writes where an output holds several types", "set headers: none at the producer"
