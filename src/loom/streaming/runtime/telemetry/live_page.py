"""The web page of the live picture: three files, served as they are."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from importlib.resources import files

from loom.core.observability.metrics import Page

__all__ = ["page_files"]

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/live.css": ("live.css", "text/css; charset=utf-8"),
    "/live.js": ("live.js", "text/javascript; charset=utf-8"),
}


def page_files() -> Mapping[str, Page]:
    """The files by path."""
    return {path: Page(content_type, partial(_content, name)) for path, (name, content_type) in _FILES.items()}


@cache
def _content(name: str) -> bytes:
    return files(__package__).joinpath("page", name).read_bytes()
