"""Prepares a release and stops before publishing: `make release` calls it, `make package` with `--package`.

The version is the one in pyproject.toml, and nowhere else: the tag, the changelog and `loom --version` follow from it.

1. Refuse a working tree with changes, a version that is no release, a tag that exists, a changelog without entries.
2. Move what is under *Unreleased* in CHANGELOG.md to a section of the version.
3. Build wheel and sdist into dist/, check both, and write what the wheel needs beside them (CycloneDX).
4. Say what is left to do: commit, tag, publish.

If a check fails, CHANGELOG.md is as it was.
"""

from __future__ import annotations

import datetime
import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
CHANGELOG = ROOT / "CHANGELOG.md"
_RELEASE = re.compile(r"\d+\.\d+\.\d+((a|b|rc)\d+)?")
_UNRELEASED = "## [Unreleased]"
#: what must be in the packages, by the end of its path
_IN_WHEEL = (
    "loom/py.typed",
    "loom/cli/main.py",
    "loom/cli/templates/common/DOT_gitignore.tmpl",
    "loom/cli/templates/routing/TESTS/test_flow.py.tmpl",
    "loom/examples/flights/flow.py",
    "loom/streaming/runtime/telemetry/page/live.js",
    ".dist-info/entry_points.txt",
    ".dist-info/licenses/LICENSE",
)
_IN_SDIST = ("/pyproject.toml", "/README.md", "/CHANGELOG.md", "/LICENSE", "/docs/delivery.md", "/tests/conftest.py")


class RefusedError(Exception):
    """What speaks against the release."""


def version_of(pyproject: str) -> str:
    """The version in the text of a pyproject.toml.

    Raises:
        RefusedError: for a version that is no release.
    """
    version: str = tomllib.loads(pyproject)["project"]["version"]
    if not _RELEASE.fullmatch(version):
        raise RefusedError(f"the version {version!r} in pyproject.toml is no release: write X.Y.Z, or X.Y.ZrcN")
    return version


def cut(changelog: str, version: str, date: datetime.date) -> str:
    """A changelog in which what was unreleased is the section of a version.

    Raises:
        RefusedError: if there is no entry, or the version has a section already.
    """
    if f"## [{version}]" in changelog:
        raise RefusedError(f"CHANGELOG.md has a section for {version} already: raise the version in pyproject.toml")
    before, found, rest = changelog.partition(_UNRELEASED)
    entries = re.split(r"^## ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    if not found or "\n- " not in entries:
        raise RefusedError(f"CHANGELOG.md has no entry under {_UNRELEASED}")
    return f"{before}{_UNRELEASED}\n\n## [{version}] - {date.isoformat()}{rest}"


def check_files(names: Iterable[str], wanted: Iterable[str], unwanted: Iterable[str], package: str) -> None:
    """Refuse a package that lacks a file or holds one that it should not."""
    names = list(names)
    missing = [end for end in wanted if not any(name.endswith(end) for name in names)]
    strange = [name for name in names for part in unwanted if part in f"/{name}"]
    if missing or strange:
        raise RefusedError(f"{package}: lacks {missing or 'nothing'}, should not hold {strange[:5] or 'anything'}")


def check_wheel(wheel: Path, version: str) -> None:
    """Check the files and the metadata of a wheel, and that the command in it runs."""
    with zipfile.ZipFile(wheel) as archive:
        check_files(archive.namelist(), _IN_WHEEL, ("/tests/", "/bench/", "__pycache__"), wheel.name)
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        said = email.message_from_bytes(archive.read(metadata))
        if said["Version"] != version or not said.get_payload():
            raise RefusedError(f"{wheel.name}: its metadata has the version {said['Version']} or no description")
        with tempfile.TemporaryDirectory() as unpacked:
            archive.extractall(unpacked)
            shown = _run([sys.executable, "-m", "loom.cli.main", "--version"], cwd=unpacked, PYTHONPATH=unpacked)
    if f"loom-streaming {version} " not in shown:
        raise RefusedError(f"{wheel.name}: loom --version says {shown.strip()!r}")


def check_sdist(sdist: Path) -> None:
    """Check the files of an sdist, and that a wheel can be built from it."""
    with tarfile.open(sdist) as archive, tempfile.TemporaryDirectory() as unpacked:
        check_files(archive.getnames(), _IN_SDIST, ("/.venv/", "/.git/", "__pycache__"), sdist.name)
        archive.extractall(unpacked, filter="data")
        (source,) = Path(unpacked).iterdir()
        build(source, Path(unpacked) / "built", "wheel")
        # Its tests can start, with the sources of the sdist and the helpers of other tests.
        tests = ["tests/core/test_config_loading.py", "tests/streaming/test_flow.py"]
        _run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
            source,
            PYTHONPATH=str(source / "src"),
        )


def build(source: Path, into: Path, *kinds: str) -> list[Path]:
    """Build packages with the locked build backend."""
    _run([sys.executable, "-m", "hatchling", "build", *(f"--target={kind}" for kind in kinds), "-d", str(into)], source)
    return sorted(into.iterdir())


def package(version: str) -> list[Path]:
    """Build wheel and sdist into dist/, check both, and write their bill of materials."""
    shutil.rmtree(DIST, ignore_errors=True)
    built = build(ROOT, DIST, "wheel", "sdist")
    sdist, wheel = sorted(built, key=lambda path: path.suffix == ".whl")
    check_wheel(wheel, version)
    check_sdist(sdist)
    return [*built, write_sbom(wheel, version)]


def write_sbom(wheel: Path, version: str) -> Path:
    """The bill of materials of a wheel, beside it. The lock is what this environment was made from."""
    sys.path.insert(0, str(Path(__file__).parent))
    from sbom import sbom

    try:
        text = sbom(wheel, version, (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8"))
    except LookupError as error:
        raise RefusedError(str(error)) from None
    path = wheel.with_name(f"loom_streaming-{version}.cdx.json")
    path.write_text(text + "\n", encoding="utf-8")
    return path


def check_repository(tag: str) -> None:
    """Refuse a working tree with changes, or a tag that exists."""
    if changed := _run(["git", "status", "--porcelain"], ROOT).strip():
        raise RefusedError(f"the working tree has changes; commit or stash them:\n{changed}")
    if _run(["git", "tag", "--list", tag], ROOT).strip():
        raise RefusedError(f"the tag {tag} exists: raise the version in pyproject.toml")


def check_state(version: str) -> None:
    """Refuse a version whose stored state the tests of later versions could not continue from."""
    if not (ROOT / "tests" / "data" / "state" / version).is_dir():
        raise RefusedError(
            f"tests/data/state/{version} is not there: python -m tests.support.stored_state, and commit what it writes"
        )


def _run(command: list[str], cwd: Path | str = ROOT, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RefusedError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def release() -> None:
    """All of it; see the head of this file."""
    version = version_of((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    tag = f"v{version}"
    check_repository(tag)
    check_state(version)
    before = CHANGELOG.read_text(encoding="utf-8")
    after = cut(before, version, datetime.datetime.now(datetime.UTC).date())
    CHANGELOG.write_text(after, encoding="utf-8")
    try:
        built = package(version)
    except BaseException:
        CHANGELOG.write_text(before, encoding="utf-8")
        raise
    print("\n".join(f"checked: {path.relative_to(ROOT)}" for path in built))
    print(f"""CHANGELOG.md has a section for {version}. Nothing is published. What is left:
  git commit -m "chore: release {version}" CHANGELOG.md
  git tag -s {tag} -m {tag}
  git push origin HEAD {tag}
and the upload of dist/ with the publisher of your choice.""")


def main(arguments: list[str]) -> int:
    """Release, or with `--package` only build and check."""
    try:
        if arguments == ["--package"]:
            version = version_of((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
            print("\n".join(f"checked: {path.relative_to(ROOT)}" for path in package(version)))
        elif arguments:
            raise RefusedError(f"release.py takes no argument but --package, not {' '.join(arguments)}")
        else:
            release()
    except RefusedError as refused:
        print(f"release: {refused}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
