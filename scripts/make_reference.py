"""Writes docs/reference/, a page for each public module: every name, with its signature, from docstrings and structs.

Also writes tests/public_api.txt, the signatures alone, so that a change of the public interface is seen as such. `make
reference` calls it; tests check that all of it is current.
"""

from __future__ import annotations

import importlib
import inspect
import re
import types
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "reference"
SNAPSHOT = ROOT / "tests" / "public_api.txt"
#: the public modules, and what each is for
MODULES = {
    "loom.streaming": "What an author writes down: flows, nodes, messages, errors.",
    "loom.streaming.bytewax": "Running a flow: runner, dataflow, settings, sinks named in the config.",
    "loom.streaming.compiler": "The plan of a flow, and the problems that the compiler finds.",
    "loom.streaming.formats": "Writing a wire format of your own.",
    "loom.streaming.kafka": "Kafka: settings, records, typed clients, errors.",
    "loom.streaming.testing": "Testing a flow in memory and on an in-process broker.",
    "loom.core.config": "Reading a config into typed structs.",
    "loom.core.errors": "Errors that a step may raise, and the base of ours.",
    "loom.core.expr": 'Expressions such as `payload.country == "ES"`.',
    "loom.core.model": "Base classes for payloads and settings.",
    "loom.core.observability": "Events of the life cycle and who listens to them.",
}
_HEAD = """# Reference

Every public name, generated from the source by `make reference`. Import a name from the module whose page it is on. New here?
Read [concepts](../concepts.md) and [authoring](../authoring.md) first; the keys of the config are in
[configuration](../configuration.md).

| module | what is in it |
| --- | --- |
"""
_LONGEST = 100
#: bases that tell a reader nothing
_PLUMBING = {"object", "Generic", "Protocol", "Typed", "Declaration"}
_SECTION = re.compile(r"^(Args|Attributes|Parameters|Raises|Returns):$")


def public_names(module_name: str) -> Iterator[tuple[str, Any]]:
    """The names of a module's `__all__` that exist already, with what they name."""
    module = importlib.import_module(module_name)
    for name in sorted(module.__all__, key=str.lower):
        found = getattr(module, name, None)
        if found is not None:
            yield name, found


def render() -> dict[str, str]:
    """The pages, by the name of their file."""
    rows = [f"| [`{name}`]({name}.md) | {purpose} |\n" for name, purpose in MODULES.items()]
    pages = {"index.md": _HEAD + "".join(rows)}
    first: dict[int, str] = {}
    for module_name, purpose in MODULES.items():
        parts = [f"# {module_name}\n\n{purpose}\n"]
        for name, found in public_names(module_name):
            if id(found) in first and first[id(found)] != module_name:
                home = first[id(found)]
                parts.append(f"## `{name}`\n\nThe same as in [`{home}`]({home}.md).\n")
                continue
            first[id(found)] = module_name
            parts.append(_entry(name, found))
        pages[f"{module_name}.md"] = "\n".join(parts)
    return pages


def _entry(name: str, found: Any) -> str:
    lines = [f"## `{name}`", ""]
    signature = _signature(name, found)
    if signature:
        lines += ["```pyi", *signature, "```", ""]
    doc = _doc(found)
    if doc:
        lines += [*_prose(doc), ""]
    if inspect.isclass(found):
        lines += _members(found)
    return "\n".join(lines)


def _doc(found: Any) -> str:
    if inspect.isclass(found):
        own = found.__dict__.get("__doc__")
        return inspect.cleandoc(own) if own else ""
    if callable(found) and not isinstance(found, (tuple, frozenset)):
        return inspect.getdoc(found) or ""
    return inspect.getdoc(found) or "" if type(found).__module__.startswith("loom") else ""


def _prose(doc: str) -> list[str]:
    """A docstring as Markdown: examples become code, sections become lists."""
    lines: list[str] = []
    in_example = in_section = False
    for line in doc.splitlines():
        if line.startswith(">>>") and not in_example:
            lines += ["", "```pycon"] if lines and lines[-1] else ["```pycon"]
            in_example = True
        elif in_example and not line.strip():
            lines.append("```")
            in_example = False
        heading = _SECTION.match(line)
        if heading:
            lines += [f"**{heading[1]}**", ""]
            in_section = True
        elif in_section and re.match(r"    \S", line):
            item = re.match(r"    (\*{0,2}[\w.`, ]+): (.*)", line)
            lines.append(f"- `{item[1].strip('`')}`: {item[2]}" if item else f"- {line.strip()}")
        else:
            in_section = in_section and (not line.strip() or line.startswith(" "))
            lines.append(line)
    if in_example:
        lines.append("```")
    return lines


def _signature(name: str, found: Any) -> list[str]:
    if inspect.isclass(found) and issubclass(found, Enum):
        return []
    if inspect.isclass(found):
        bases = [
            base.__name__ for base in found.__bases__ if base.__name__ not in _PLUMBING and base.__name__[0] != "_"
        ]
        head = f"class {name}" + (f"({', '.join(bases)})" if bases else "")
        if issubclass(found, msgspec.Struct):
            if any(isinstance(member, classmethod) for _, member in _own_members(found)):
                return [head]  # made by its class methods, not by its fields
            return [f"{head}:", *(f"    {line}" for line in _fields(found))]
        if getattr(found, "_is_protocol", False) or issubclass(found, BaseException):
            return [head]
        call = _call(name, found)
        return call if not bases else [head] if call == [f"{name}()"] else [head, *call]
    if inspect.isfunction(found):
        return _call(f"def {name}", found)
    return []


def _fields(found: type[msgspec.Struct]) -> Iterator[str]:
    for field in msgspec.structs.fields(found):
        default = ""
        if field.default is not msgspec.NODEFAULT:
            default = f" = {_value(field.default)}"
        elif field.default_factory is not msgspec.NODEFAULT:
            default = f" = {_value(field.default_factory())}"
        annotation = _annotations(found).get(field.name, "Any")
        yield f"{field.name}: {annotation}{default}"


def _annotations(found: type) -> dict[str, str]:
    return {
        name: _type(text) for base in reversed(found.__mro__) for name, text in inspect.get_annotations(base).items()
    }


def _type(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:typing|collections\.abc|loom(?:\.\w+)+)\.", "", text)


def _value(value: Any) -> str:
    if isinstance(value, Enum):
        return repr(value.value)
    text = repr(value)
    return text if " at 0x" not in text else type(value).__name__


def _call(head: str, found: Any) -> list[str]:
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return []
    shown: list[str] = []
    star = False
    for parameter in signature.parameters.values():
        if parameter.name.startswith("_"):
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            star = True
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            shown.append("*")
            star = True
        prefix = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        text = prefix + parameter.name
        if parameter.annotation is not parameter.empty:
            text += f": {_type(parameter.annotation)}"
        if parameter.default is not parameter.empty:
            text += (" = " if ":" in text else "=") + _value(parameter.default)
        shown.append(text)
    back = signature.return_annotation
    arrow = "" if back is signature.empty or inspect.isclass(found) else f" -> {_type(back)}"
    line = f"{head}({', '.join(shown)}){arrow}"
    if len(line) <= _LONGEST:
        return [line]
    return [f"{head}(", *(f"    {part}," for part in shown), f"){arrow}"]


def _own_members(found: type) -> Iterator[tuple[str, Any]]:
    """The public members of a class, with those of its private bases, which no page of their own shows."""
    seen = set()
    for base in found.__mro__:
        if base is found or (base.__name__.startswith("_") and base.__module__.startswith("loom")):
            for name, member in vars(base).items():
                if not name.startswith("_") and name not in seen:
                    seen.add(name)
                    yield name, member


def _members(found: type) -> list[str]:
    lines = []
    if issubclass(found, Enum):
        lines += ["| member | value |", "| --- | --- |", *(f"| `{m.name}` | `{m.value}` |" for m in found), ""]
    rows = []
    for name, member in _own_members(found):
        function = getattr(member, "__func__", member)
        if isinstance(member, property):
            first = (inspect.getdoc(member) or "").split("\n")[0]
            rows.append((f"`.{name}`", first))
        elif isinstance(function, types.FunctionType) and not name.startswith("_"):
            if not function.__module__.startswith("loom"):
                continue
            first = (inspect.getdoc(function) or "").split("\n")[0]
            rows.append((f"`.{name}({_short(function)})`", first))
    if rows:
        told = (f"| {call} | {first.replace('|', chr(92) + '|')} |" for call, first in rows)
        lines += ["| member | what |", "| --- | --- |", *told, ""]
    return lines


def _short(function: types.FunctionType) -> str:
    names = [
        {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "") + p.name
        for p in inspect.signature(function).parameters.values()
    ]
    return ", ".join(name for name in names if name not in ("self", "cls"))


def snapshot() -> str:
    """Every public name with its signature, and every public member of a class."""
    lines = []
    for module_name in MODULES:
        for name, found in public_names(module_name):
            home = getattr(found, "__module__", "")
            if inspect.isclass(found) and issubclass(found, Enum):
                shown = [f"enum {name}: {', '.join(member.value for member in found)}"]
            else:
                shown = _signature(name, found) or [f"{name}: {type(found).__name__}"]
            lines.append(f"{module_name} {_one_line(shown)}")
            if inspect.isclass(found) and home.startswith("loom"):
                lines += [f"    {line}" for line in _public_members(found)]
    return "\n".join(lines) + "\n"


def _one_line(shown: list[str]) -> str:
    head, *rest = (part.strip() for part in shown)
    if head.endswith(":"):
        return f"{head} {', '.join(rest)}".rstrip()
    return re.sub(r"\( (.*),? \)", r"(\1)", " ".join([head, *rest])).replace(",)", ")")


def _public_members(found: type) -> Iterator[str]:
    for name, member in sorted(_own_members(found)):
        function = getattr(member, "__func__", member)
        if isinstance(member, property):
            yield f"property {name}"
        elif isinstance(function, types.FunctionType) and function.__module__.startswith("loom"):
            kind = "classmethod " if isinstance(member, classmethod) else ""
            yield f"{kind}{_one_line(_call(f'def {name}', function))}"


def main() -> None:
    """Write all files."""
    pages = render()
    PAGES.mkdir(exist_ok=True)
    for old in set(PAGES.glob("*.md")) - {PAGES / name for name in pages}:
        old.unlink()
    for name, text in pages.items():
        (PAGES / name).write_text(text, encoding="utf-8")
    SNAPSHOT.write_text(snapshot(), encoding="utf-8")


if __name__ == "__main__":
    main()
