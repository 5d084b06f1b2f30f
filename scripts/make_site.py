"""Builds the documentation site into build/site: `make docs` calls it.

The pages are those under docs/, as they stand in the repository. What they link to outside that folder (manifests, examples,
the benchmarks) is copied beside them, and the links follow. The build is strict: a link or an anchor that leads nowhere, a
page that is missing from the navigation, or anything that a browser would fetch from another host fails it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
STAGE = ROOT / "build" / "site-source"
SITE = ROOT / "build" / "site"
#: where the site keeps files of the repository that are not under docs/
OUTSIDE = "source"
#: code, which holds no links, or the target of a link
_LINK = re.compile(r"^```.*?^```|`[^`]+`|(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)", re.MULTILINE | re.DOTALL)
#: a fence whose mark is for our tests (`console kafka`), which the site's Markdown does not take for a fence
_MARKED_FENCE = re.compile(r"^(```\w+)[ \t]+\S.*$", re.MULTILINE)
#: what the theme would fetch for pages that are opened from a disk
_WORKER = "https://unpkg.com/iframe-worker/shim"
_FETCHED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*?\bsrc=["']?(?:https?:)?//"""
    r"""|<link\b[^>]*?\brel=["']?(?:stylesheet|preload|icon)\b[^>]*?\bhref=["']?(?:https?:)?//"""
)


class SiteError(Exception):
    """Why there is no site."""


def nav_pages(nav: list[Any]) -> Iterator[str]:
    """The pages of a navigation, in order."""
    for entry in nav:
        target = next(iter(entry.values())) if isinstance(entry, dict) else entry
        if isinstance(target, list):
            yield from nav_pages(target)
        else:
            yield target


def stage(nav: list[str]) -> None:
    """Copy the pages, and what they link to, to where the site is built from."""
    shutil.rmtree(STAGE, ignore_errors=True)
    waiting = [path for path in sorted(DOCS.rglob("*")) if path.is_file()]
    waiting += [ROOT / page.removeprefix(f"{OUTSIDE}/") for page in nav if page.startswith(f"{OUTSIDE}/")]
    staged: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in staged:
            continue
        staged.add(path)
        target = STAGE / _place(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix != ".md":
            shutil.copyfile(path, target)
            continue
        text, linked = _relinked(path)
        target.write_text(text, encoding="utf-8")
        waiting += linked


def _place(path: Path) -> Path:
    return path.relative_to(DOCS) if path.is_relative_to(DOCS) else Path(OUTSIDE) / path.relative_to(ROOT)


def _relinked(page: Path) -> tuple[str, list[Path]]:
    """The text of a page with links that fit the site, and the files outside docs/ that it links to."""
    linked: list[Path] = []
    depth = len(_place(page).parent.parts)

    def follow(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0]  # code
        target = (page.parent / match[1]).resolve()
        if not target.is_file() or not target.is_relative_to(ROOT):
            raise SiteError(f"{page.relative_to(ROOT)} links to {match[1]}, which is no file of the repository")
        if not target.is_relative_to(DOCS):
            linked.append(target)
        return "../" * depth + _place(target).as_posix()

    text = _LINK.sub(follow, page.read_text(encoding="utf-8"))
    return _MARKED_FENCE.sub(r"\1", text), linked


def check_navigation(listed: list[str]) -> None:
    """Every page is in the navigation, once, and every entry of it is a page."""
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    wrong = [f"{page} is not in the navigation" for page in sorted(pages - set(listed))]
    wrong += [f"{page} of the navigation does not exist" for page in listed if not (STAGE / page).is_file()]
    wrong += [f"{page} is in the navigation twice" for page in sorted(set(listed)) if listed.count(page) > 1]
    if wrong:
        raise SiteError("; ".join(wrong))


def replace_worker() -> None:
    """Search works for pages that are opened from a disk, without the script that the theme would fetch for it."""
    for page in sorted(SITE.rglob("*.html")):
        text = page.read_text(encoding="utf-8")
        up = "../" * (len(page.relative_to(SITE).parts) - 1)
        page.write_text(text.replace(_WORKER, f"{up}assets/worker.js"), encoding="utf-8")


def check_privacy() -> None:
    """A reader's browser asks no other host for anything."""
    for page in sorted(SITE.rglob("*.html")):
        found = _FETCHED.search(page.read_text(encoding="utf-8"))
        if found:
            raise SiteError(f"{page.relative_to(SITE)} fetches from another host: {found[0]}")


def main() -> None:
    """Build the site."""
    nav = list(nav_pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    stage(nav)
    check_navigation(nav)
    shutil.rmtree(SITE, ignore_errors=True)
    zensical = Path(sys.executable).with_name("zensical")
    built = subprocess.run(
        [zensical, "build", "--clean", "--strict", "--config-file", "mkdocs.yml"], cwd=ROOT, check=False
    )
    if built.returncode:
        raise SiteError("the site was not built (above)")
    replace_worker()
    check_privacy()
    print(f"{SITE.relative_to(ROOT)}: {sum(1 for _ in SITE.rglob('*.html'))} pages")


if __name__ == "__main__":
    try:
        main()
    except SiteError as error:
        sys.exit(f"make docs: {error}")
