"""One dead letter for a person: what was said of the failure, the record, and the step in the plan."""

from __future__ import annotations

from typing import Any

import msgspec
import typer

from loom.cli.dlq import Found, place_of, shown_headers
from loom.cli.show import instant
from loom.streaming.compiler.plan import CompiledPlan

__all__ = ["print_letter"]


def print_letter(found: Found, document: dict[str, Any], plan: CompiledPlan | None) -> None:
    """Print a letter."""
    letter = found.letter
    original = letter.original
    state = "replayed" if found.replayed else "not replayed"
    typer.echo(f"{place_of(letter)}  {instant(letter.record.timestamp_ms)}  by {letter.written_by}, {state}")
    at = f" at {letter.at}" if letter.at is not None else ""
    child = f", child {letter.index}" if letter.index else ""
    often = "" if letter.count == 1 else f", failed {letter.count} times"
    _line("failed", f"{letter.kind or 'error'} in {letter.step or 'an unknown step'}{child}{often}")
    _line("because", letter.reason)
    _line("raised", f"{letter.error_type}{at}" if letter.error_type is not None else None)
    _line("flow", letter.flow)
    _line("record", f"{original.topic}[{original.partition}]@{original.offset}  {instant(original.timestamp_ms)}")
    _line("key", None if original.key is None else str(document["key"]))
    for name, value in shown_headers(letter):
        _line("header", f"{name}: {value}")
    _line("value", f"{msgspec.json.encode(document['payload']).decode()}  ({document['read_as']})")
    _line("", document.get("problem"))
    if letter.message is not None:
        given = msgspec.json.encode(letter.message.payload, enc_hook=str).decode()
        _line("given", f"{given}  (what the step received)")
    if letter.entered is not None:
        _line("entered", f"at {letter.entered}, by a replay")
    _line("stack", letter.stack)
    if plan is not None and letter.step is not None:
        _print_place(letter.step, plan)


def _line(name: str, text: str | None) -> None:
    if text:
        first, *more = text.splitlines()
        typer.echo(f"  {name:<8} {first}")
        for line in more:
            typer.echo(f"  {'':<8} {line}")


def _print_place(step: str, plan: CompiledPlan) -> None:
    """The plan, with an arrow at the step."""
    lines = plan.explain("text").splitlines()
    names = [f" {step} ", f" {step}:"]
    if not any(name in f"{line} " for line in lines for name in names):
        where = "the source" if step.endswith(".source") else "no step of this flow (any more)"
        _line("in plan", where)
        return
    _line("in plan", lines[0])
    for line in lines[1:]:
        here = any(name in f"{line} " for name in names)
        typer.echo(f"  {'-->' if here else '':<8} {line}")
