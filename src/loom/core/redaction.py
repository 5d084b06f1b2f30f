"""Which names speak of secrets, and how values are kept out of texts that people read.

Used by the logger's processors, by config errors and by code that prints settings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

__all__ = ["MASK", "is_secret_key", "mask_values", "redact_mapping", "redact_text"]

#: What is shown in place of a secret.
MASK = "***"

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_WORD = re.compile(r"[a-z0-9]+")
_SECRET_WORDS = frozenset(
    {
        "apikey",
        "authorization",
        "bearer",
        "cookie",
        "credential",
        "credentials",
        "dsn",
        "passphrase",
        "passwd",
        "password",
        "passwords",
        "pwd",
        "secret",
        "secrets",
        "token",
    }
)
#: A key is no secret by itself (a partition key is not), only together with what it opens.
_KEY_OF = frozenset({"access", "account", "api", "encryption", "private", "shared", "signing"})
#: The password in a URL: `postgres://user:password@host`.
_USER_INFO = re.compile(r"(?<=://)([^/\s:@]*):([^/\s]+)(?=@)")
#: `password=…`, `'token': '…'`: assignments in texts, such as the text of an exception. No part is tried twice (`++`, and the
#: name from its beginning only), since the text may be long.
_ASSIGNED = re.compile(
    r"""(?<![\w.-])(?P<name>[\w.-]++)(?P<sign>=|["']\s*+:\s*+(?=["']))(?P<value>"[^"]*+"|'[^']*+'|[^\s,;&)\]}]++)"""
)
_FRAGMENT = re.compile(r"\w{4,}")
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w.]*\w)")


def is_secret_key(name: str) -> bool:
    """Whether a value under this name should never be shown.

    >>> is_secret_key("sasl_password"), is_secret_key("ssl.key.password"), is_secret_key("partition_key")
    (True, True, False)
    """
    words = _WORD.findall(_CAMEL.sub("_", name).lower())
    return any(
        word in _SECRET_WORDS or (word in ("key", "keys") and place > 0 and words[place - 1] in _KEY_OF)
        for place, word in enumerate(words)
    )


def redact_mapping(mapping: Mapping[Any, Any]) -> dict[Any, Any]:
    """A copy in which secrets are masked, at any depth, and passwords in URLs too.

    >>> redact_mapping({"user": "ann", "sasl_password": "x", "url": "amqp://ann:x@host"})
    {'user': 'ann', 'sasl_password': '***', 'url': 'amqp://ann:***@host'}
    """
    return {
        key: MASK if value is not None and isinstance(key, str) and is_secret_key(key) else _redacted(value)
        for key, value in mapping.items()
    }


def redact_text(text: str) -> str:
    """A text in which passwords in URLs, and values that are assigned to the name of a secret, are masked.

    >>> redact_text("cannot connect: postgres://ann:x@host, password=x and {'api_key': 'x'}")
    "cannot connect: postgres://ann:***@host, password=*** and {'api_key': ***}"
    """
    if "://" in text:
        text = _USER_INFO.sub(rf"\1:{MASK}", text)
    return _ASSIGNED.sub(_without_secret, text)


def mask_values(text: str, *data: Any) -> str:
    """The text without any value that occurs in `data`, nor a longer piece of one.

    Meant for messages of foreign code, which may repeat what it was given, whole or cut.

    >>> mask_values("cannot reach 'db.internal' on port 5432", {"host": "db.internal", "port": 5432})
    "cannot reach '***' on port ***"
    """
    words: set[str] = set()
    numbers: set[float] = set()
    for value in _scalars(data):
        shown = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        if shown.strip():
            words.update({shown, repr(shown)[1:-1]})
        with suppress(ValueError):
            numbers.add(float(shown))
    text = _NUMBER.sub(lambda match: MASK if float(match[0]) in numbers else match[0], text)
    for word in sorted(words, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)" if len(word) < 4 else re.escape(word), MASK, text)
    lowered = [word.lower() for word in words]
    return _FRAGMENT.sub(lambda match: MASK if any(match[0].lower() in word for word in lowered) else match[0], text)


def _without_secret(assigned: re.Match[str]) -> str:
    return f"{assigned['name']}{assigned['sign']}{MASK}" if is_secret_key(assigned["name"]) else assigned[0]


def _redacted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return redact_mapping(value)
    if type(value) in (list, tuple):
        return type(value)(map(_redacted, value))
    return redact_text(value) if isinstance(value, str) else value


def _scalars(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _scalars(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _scalars(item)
    elif value is not None and not isinstance(value, bool) and isinstance(value, str | bytes | int | float):
        yield value
