"""What is wrong with a YAML file, in words, with line and column. Nothing of the file is quoted: it may hold a secret.

Called by `loading.py` with what the parser raised, whose own texts speak of tokens and blocks.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

__all__ = ["yaml_mistake"]

#: Texts of the parser that are not known here may quote what it stumbled over.
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")

_QUOTE_IT = "put the value in quotes"
_TWICE = re.compile(r"found duplicate key ([\w.-]+)")
_INDENTATION = "the line does not fit in with the indentation of the lines above it"
#: a part of the parser's text -> what to say
_WORDS = (
    (r"found character '\t'", "the indentation contains a tab; YAML takes spaces only"),
    ("found character '", "a value cannot begin with this character; " + _QUOTE_IT),
    (
        "mapping values are not allowed here",
        "there is a colon too many, or the line above lacks its own; put a value that holds `: ` in quotes",
    ),
    ("could not find expected ':'", "the line is no `key: value`, and no part of a value either"),
    ("expected ',' or ']'", "the list is not closed with `]`, or lacks a comma"),
    (
        "expected ',' or '}'",
        "the mapping is not closed with `}`, or lacks a comma; put a value that holds `${…}` in quotes",
    ),
    (
        "expected <block end>, but found '-'",
        "there is a list item where a `key: value` is expected; indent it under its key",
    ),
    ("expected <block end>", _INDENTATION),
    ("found unexpected end of stream", "a quote is opened and never closed"),
    ("unexpected end of document", "a quote is opened and never closed"),
    (
        "found undefined alias",
        "an alias `*name` refers to no anchor `&name`; put a value that begins with `*` in quotes",
    ),
    ("expected alphabetic or numeric character", "a `*` or `&` lacks its name; " + _QUOTE_IT),
    ("found unknown escape character", "a backslash in double quotes begins no known escape; use single quotes"),
    ("could not determine a constructor", "the tag `!…` is unknown; put a value that begins with `!` in quotes"),
    ("but found another document", "a second document begins with `---`; write one"),
    (
        "special characters are not allowed",
        "the file contains a control character; remove it, or write it as an escape",
    ),
)


def yaml_mistake(error: yaml.YAMLError, text: str) -> str:
    """Describe a mistake: where it is, what it is, and what the construct began with where that helps."""
    problem = str(getattr(error, "problem", None) or getattr(error, "reason", None) or "")
    said = next((words for part, words in _WORDS if part in problem), None)
    if twice := _TWICE.search(problem):
        said = f"the key `{twice[1]}` appears twice in one section; keep one of them"
    if said is None:
        said = _QUOTED.sub("…", problem) or "it cannot be parsed"
    return f"not valid YAML{_place(error, text)}: {said}{_beginning(error)}"


def _place(error: yaml.YAMLError, text: str) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is not None:
        return _at(mark.line, mark.column)
    position = getattr(error, "position", None)
    if not isinstance(position, int):
        return ""
    before = text[:position]
    return _at(before.count("\n"), position - (before.rfind("\n") + 1))


def _beginning(error: Any) -> str:
    """Where a construct that spans lines began: the mistake is there as often as where it was noticed."""
    began, noticed = getattr(error, "context_mark", None), getattr(error, "problem_mark", None)
    if began is None or noticed is None or began.line == noticed.line or "while parsing a block" in str(error.context):
        return ""
    return f" (it begins{_at(began.line, began.column)})"


def _at(line: int, column: int) -> str:
    return f" at line {line + 1}, column {column + 1}"
