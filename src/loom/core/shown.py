"""Foreign objects in error texts: whatever their `repr` or `str` does, there is a text."""

from __future__ import annotations

from loom.core.errors import ENDS_RUN

__all__ = ["reason_of", "shown"]

#: characters of a `repr` that are shown
_MOST = 200


def shown(value: object) -> str:
    """The `repr` of a value, shortened; a placeholder if it has none.

    >>> shown("ES"), shown(10**5000)
    ("'ES'", '<int, which has no repr: ValueError>')
    """
    try:
        text = repr(value)
    except ENDS_RUN:
        raise
    except BaseException as error:  # noqa: BLE001 - foreign code; the text it is wanted for matters more
        return f"<{type(value).__qualname__}, which has no repr: {type(error).__qualname__}>"
    return text if len(text) <= _MOST else f"{text[: _MOST - 1]}…"


def reason_of(error: BaseException) -> str:
    """What an exception says, else the name of its class.

    >>> reason_of(ValueError("no stock")), reason_of(KeyError())
    ('no stock', 'KeyError')
    """
    try:
        return str(error) or type(error).__name__
    except ENDS_RUN:
        raise
    except BaseException:  # noqa: BLE001 - an author's own exception that has no text
        return type(error).__name__
