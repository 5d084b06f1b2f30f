"""Four rules of the house that the import contracts in pyproject.toml cannot express. `make check` runs this.

1. A private name (`_x`) is not imported from another package.
2. Nothing in `loom` imports from the package `loom.streaming` itself, but `loom.examples`, which shows what users do.
3. The modules import each other without a cycle. An import under `if TYPE_CHECKING:` never runs and does not count; one
   inside a function counts like any other. What is named by a string and loaded on first use (an engine, a command)
   is no import. A name that a package exports counts as an import of the module that defines it.
4. No file has more than 400 lines.
"""

import ast
import graphlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FACADE, EXAMPLES = "loom.streaming", "loom.examples"
MOST_LINES = 400


class Import(NamedTuple):
    line: int
    base: str  # the module after `from`; empty for a plain import
    name: str  # what is imported, with its full dotted path
    typing_only: bool


def imports_of(node: ast.AST, package: str, typing_only: bool = False) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(node.lineno, "", alias.name, typing_only) for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        above = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
        base = ".".join(filter(None, (above, node.module)))
        yield from (Import(node.lineno, base, f"{base}.{alias.name}", typing_only) for alias in node.names)
    guard = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
    for child in ast.iter_child_nodes(node):
        yield from imports_of(child, package, typing_only or (guard and child not in getattr(node, "orelse", ())))


def main(root: Path) -> int:
    paths = {".".join(path.relative_to(root).with_suffix("").parts): path for path in root.rglob("*.py")}
    modules = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    packages = {name.rpartition(".")[0] for name in paths if "." in name}

    def home(module: str) -> str:  # `loom.streaming.kafka` of all that is in it; of `loom.cli.main` it is `loom.cli`
        heads = (".".join(module.split(".")[:count]) for count in (3, 2))
        return next((head for head in heads if head in packages), "loom")

    found: dict[str, list[Import]] = {}
    for module, path in sorted(modules.items()):
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        found[module] = list(imports_of(ast.parse(path.read_text(encoding="utf-8"), str(path)), package))
    exports = {f"{m}.{i.name.rpartition('.')[2]}": i.name for m in found if m in packages for i in found[m] if i.base}

    problems: list[str] = []
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for module, imported in found.items():
        for line, base, name, typing_only in imported:
            target = exports.get(name, name)
            target = next((t for t in (target, target.rpartition(".")[0], base) if t in modules), "")
            private = [part for part in name.split(".") if part.startswith("_") and not part.endswith("__")]
            if target and private and home(target) != home(module):
                problems.append(f"{modules[module]}:{line}: imports the private {private[0]} from {home(target)}")
            if base == FACADE and name not in {*modules, *packages} and not module.startswith(EXAMPLES):
                problems.append(f"{modules[module]}:{line}: imports {name} from {FACADE} itself, not its submodule")
            if target and not typing_only:
                graph[module].add(target)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        problems.append("imports form a cycle: " + " -> ".join(reversed(error.args[1])))

    lengths = {path: path.read_text(encoding="utf-8").count("\n") for path in sorted(modules.values())}
    problems += [
        f"{path}: {count} lines; split it by its jobs" for path, count in lengths.items() if count > MOST_LINES
    ]

    print(
        "\n".join(problems)
        or f"{len(modules)} modules: no private import, no import of the facade, no cycle, no long file"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "src")))
