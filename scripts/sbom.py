"""The bill of materials of a release, as CycloneDX JSON: what the wheel needs, extras included, as it was locked and checked.

Called by `release.py`. The wheel itself allows ranges; the versions here are those of requirements/dev.txt, which the tests
have run with, with the hashes that pip checks.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from cyclonedx.factory.license import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = "loom-streaming"
_PIN = re.compile(r"^(?P<name>[\w.-]+)(?:\[[\w,-]+\])?==(?P<version>[\w.+!-]+)")
_HASH = re.compile(r"--hash=sha256:(?P<hash>[0-9a-f]{64})")


class Locked:
    """The versions and hashes of a lock, by name."""

    def __init__(self, lock: str) -> None:
        self.versions: dict[str, str] = {}
        self.hashes: dict[str, list[str]] = {}
        name = ""
        for line in lock.splitlines():
            pin = _PIN.match(line)
            if pin is not None:
                name = canonicalize_name(pin["name"])
                self.versions[name] = pin["version"]
            found = _HASH.search(line)
            if found is not None and name:
                self.hashes.setdefault(name, []).append(found["hash"])


def needs(name: str, extras: frozenset[str] = frozenset()) -> Iterator[tuple[str, frozenset[str], bool]]:
    """What an installed package needs here: name, extras, and whether only an extra of the package asks for it."""
    for text in metadata.requires(name) or ():
        wanted = Requirement(text)
        always = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
        if always or any(wanted.marker is not None and wanted.marker.evaluate({"extra": one}) for one in extras):
            yield canonicalize_name(wanted.name), frozenset(wanted.extras), not always


def sbom(wheel: Path, version: str, lock: str) -> str:
    """The document for a wheel.

    Args:
        wheel: the wheel that was built.
        version: its version.
        lock: the text of requirements/dev.txt.

    Raises:
        LookupError: a package that the wheel needs is not in the lock.
    """
    locked = Locked(lock)
    root = Component(
        name=PROJECT,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=PROJECT,
        purl=PackageURL("pypi", name=PROJECT, version=version),
        licenses=[LicenseFactory().make_from_string("Apache-2.0")],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=hashlib.sha256(wheel.read_bytes()).hexdigest())],
    )
    bom = Bom()
    bom.metadata.component = root
    provided = frozenset(metadata.metadata(PROJECT).get_all("Provides-Extra") or ())
    components: dict[str, Component] = {PROJECT: root}
    todo: list[tuple[str, frozenset[str]]] = [(PROJECT, provided)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        name, extras = todo.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        children = []
        for child, child_extras, optional in sorted(needs(name, extras), key=lambda one: one[0]):
            if child not in components:
                components[child] = _component(child, locked, optional=optional and name == PROJECT)
                bom.components.add(components[child])
            children.append(components[child])
            todo.append((child, child_extras))
        bom.register_dependency(components[name], children)
    return JsonV1Dot6(bom).output_as_string(indent=2)


def _component(name: str, locked: Locked, *, optional: bool) -> Component:
    if name not in locked.versions:
        raise LookupError(f"{name} is needed and not in requirements/dev.txt: make lock")
    version = locked.versions[name]
    licence = _licence(name)
    return Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=f"{name}@{version}",
        scope=ComponentScope.OPTIONAL if optional else ComponentScope.REQUIRED,
        purl=PackageURL("pypi", name=name, version=version),
        licenses=[LicenseFactory().make_from_string(licence)] if licence else [],
        # One for each file that pip may choose from: wheels of platforms, and the source.
        properties=[Property(name="pip:sha256", value=value) for value in locked.hashes.get(name, ())],
    )


def _licence(name: str) -> str | None:
    """What a package says of its licence: the expression, else its classifier, else a short text."""
    said = metadata.metadata(name)
    expression = said.get("License-Expression")
    if expression:
        return expression
    for classifier in said.get_all("Classifier") or ():
        if classifier.startswith("License :: OSI Approved :: "):
            return str(classifier.rpartition(" :: ")[2])
    text = said.get("License")
    return text if text and "\n" not in text and len(text) < 80 else None
