"""Routers and forks as closures. Hot path: one question and one look-up per record; a branch not taken costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from loom.core.shown import shown
from loom.streaming.compiler.nodes.routing import CompiledChoice
from loom.streaming.compiler.nodes.routing_function import RoutingFunction
from loom.streaming.errors import ErrorKind
from loom.streaming.message import Message, MessageMeta
from loom.streaming.runtime.stages.builder import StageBuilder
from loom.streaming.runtime.stages.codegen import Inline, LoopWriter
from loom.streaming.runtime.stages.failures import Fail, NoBranchError
from loom.streaming.runtime.stages.node_input import NO_CHILD, Ancestors, ChildIndex, NodeInput, Receive

__all__ = ["build_choice"]

_MessageClass = Callable[[Any, Any], Message[Any]]
#: (what was asked for, payload, origin, meta): no branch takes the record
Nowhere = Callable[[str, Any, Any, MessageMeta | None], None]

_NO_PREDICATE = "no predicate holds"
_TOMBSTONE = "a tombstone, which nothing here asks for among its types,"


def build_choice(build: StageBuilder, node: CompiledChoice, after: NodeInput | None, above: Ancestors) -> NodeInput:
    """One branch takes each record; of a router's, what leaves a branch goes on to `after`."""
    # Behind a fork is nothing.
    end = after if node.continues else None
    places = build.places(node, above)
    entries = build.branches(node.branches, end, places[:-1])
    cases, default = entries[: len(node.cases)], entries[-1] if node.default is not None else None
    fail = build.fail(node.step_id, node.path, above, kind=ErrorKind.ROUTING)
    nowhere = _nowhere(fail)

    def choose(takes: list[Receive], otherwise: Receive | None, *, of_tombstones: bool) -> Receive:
        if node.selector is not None:
            by_key = dict(zip((branch.key for branch in node.cases), takes, strict=True))
            return _by_selector(node.selector, by_key, otherwise, nowhere, fail, build.message)
        # Of a tombstone, a question about the payload cannot be asked.
        asked = [(p, t) for p, t in zip(node.predicates, takes, strict=True) if p.takes_tombstones or not of_tombstones]
        return _by_predicates(asked, otherwise, nowhere, fail, build.message)

    otherwise = default.record if default is not None else None
    record = choose([entry.record for entry in cases], otherwise, of_tombstones=False)
    otherwise = default.tombstone if default is not None else None
    if any(asked.takes_tombstones for asked in (node.selector, *node.predicates) if asked is not None):
        tombstone = choose([entry.tombstone for entry in cases], otherwise, of_tombstones=True)
    elif otherwise is not None:
        tombstone = otherwise
    else:

        def tombstone(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
            nowhere(_TOMBSTONE, payload, origin, meta)

    inner = places[-1].cells[len(above.cells) :]
    if inner:
        record, tombstone = _resetting(inner, record), _resetting(inner, tombstone)
    else:
        build.inline(node.path, _inline(build, node, nowhere, fail))
    return build.entry(record, tombstone, above)


def _resetting(cells: Sequence[ChildIndex], take: Receive) -> Receive:
    """A record on one branch is no child of the expansions on the others."""

    def run(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        for cell in cells:
            cell.at = NO_CHILD
        take(payload, origin, meta)

    return run


def _by_selector(
    asked: RoutingFunction,
    takes: dict[Any, Receive],
    otherwise: Receive | None,
    nowhere: Nowhere,
    fail: Fail,
    message: _MessageClass,
) -> Receive:
    select = asked.call

    def by_payload(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        try:
            key = select(payload)
            take = takes.get(key, otherwise)
        except BaseException as error:
            fail(error, payload, origin, meta)
            return
        if take is None:
            nowhere(f"no branch for {shown(key)}", payload, origin, meta)
        else:
            take(payload, origin, meta)

    def by_message(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        try:
            key = select(message(payload, origin) if meta is None else Message(payload, meta))
            take = takes.get(key, otherwise)
        except BaseException as error:
            fail(error, payload, origin, meta)
            return
        if take is None:
            nowhere(f"no branch for {shown(key)}", payload, origin, meta)
        else:
            take(payload, origin, meta)

    return by_message if asked.of == "message" else by_payload


def _by_predicates(
    asked: Sequence[tuple[RoutingFunction, Receive]],
    otherwise: Receive | None,
    nowhere: Nowhere,
    fail: Fail,
    message: _MessageClass,
) -> Receive:
    questions = [(predicate.call, predicate.of == "message", take) for predicate, take in asked]

    def run(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        found = otherwise
        try:
            for holds, of_message, take in questions:
                if of_message:
                    whole = message(payload, origin) if meta is None else Message(payload, meta)
                    if holds(whole):
                        found = take
                        break
                elif holds(payload):
                    found = take
                    break
        except BaseException as error:
            fail(error, payload, origin, meta)
            return
        if found is None:
            nowhere(_NO_PREDICATE, payload, origin, meta)
        else:
            found(payload, origin, meta)

    return run


def _nowhere(fail: Fail) -> Nowhere:
    def run(what: str, payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        fail(NoBranchError(f"{what} and no default"), payload, origin, meta)

    return run


def _inline(build: StageBuilder, node: CompiledChoice, nowhere: Nowhere, fail: Fail) -> Inline:
    """The same choice as code: the question, then a block for each branch; what leaves a router's goes on behind them."""

    def write(code: LoopWriter) -> None:
        arriving, chosen, out = code.payload, code.variable(), code.variable()
        default = len(node.cases) if node.default is not None else None
        if any(asked.of == "message" for asked in (node.selector, *node.predicates) if asked is not None):
            message = code.message(build.message)

        def question(asked: RoutingFunction) -> str:
            argument = message if asked.of == "message" else arriving
            return f"{code.name('ask', asked.call)}({argument})"

        if node.selector is not None:
            numbers = code.name("numbers", {branch.key: number for number, branch in enumerate(node.cases)})
            what = f"'no branch for ' + {code.name('shown', shown)}({chosen}k)"
            lines = [f"{chosen}k = {question(node.selector)}", f"{chosen} = {numbers}.get({chosen}k, {default})"]
        else:
            what = repr(_NO_PREDICATE)
            asked = "".join(f"{number} if {question(p)} else " for number, p in enumerate(node.predicates))
            lines = [f"{chosen} = {asked}{default}"]
        code.line(
            "try:",
            *(f"    {line}" for line in lines),
            "except BaseException as error:",
            f"    {code.name('fail', fail)}(error, {arriving}, origin, None)",
            "    continue",
        )
        if default is None:
            code.line(
                f"if {chosen} is None:",
                f"    {code.name('nowhere', nowhere)}({what}, {arriving}, origin, None)",
                "    continue",
            )
        falls_through, classes = False, []
        for number, branch in enumerate(node.branches):
            last = number == len(node.branches) - 1
            head = "else:" if last and number else f"{'if' if number == 0 else 'elif'} {chosen} == {number}:"
            with code.block(head if len(node.branches) > 1 else "if True:"):
                build.inline_branch(code, branch)
                if not code.ended:
                    code.line(f"{out} = {code.payload}")
                    classes.append(code.classes)
                    falls_through = True
                code.ended = False
        code.payload = out
        code.classes = frozenset().union(*classes) if all(classes) else frozenset()
        code.ended = not falls_through

    return write
