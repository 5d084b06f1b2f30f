"""What a step's annotations say: which payloads it takes, which it gives, whether it may drop.

Read once at compile time from the generics of a step class, or from the signature of `execute` or of a function.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, is_typeddict

from loom.core.config.shape import deeply_bare, is_union, show
from loom.core.errors import LoomError
from loom.core.model import LoomFrozenStruct
from loom.streaming.compiler.callables import is_async, is_async_generator, is_generator, never_iterable
from loom.streaming.compiler.model import PayloadTypes, StepKind
from loom.streaming.message import Message, Tombstone
from loom.streaming.nodes.step import BatchExpandStep, BatchStep, ExpandStep, RecordStep, Step

__all__ = [
    "UNKNOWN",
    "SelectorSignature",
    "Signature",
    "UnreadableSignature",
    "elements_of",
    "fits",
    "is_type",
    "kind_of",
    "payloads_of",
    "read_selector",
    "read_signature",
    "together",
    "without_tombstones",
]

UNKNOWN = PayloadTypes((), known=False)
_KINDS: tuple[tuple[type, StepKind], ...] = (
    (RecordStep, StepKind.RECORD),
    (ExpandStep, StepKind.EXPAND),
    (BatchStep, StepKind.BATCH),
    (BatchExpandStep, StepKind.BATCH_EXPAND),
)
#: a type checker takes the one for the others (PEP 484, the numeric tower)
_TAKEN_FOR: dict[type, tuple[type, ...]] = {int: (float, complex), float: (complex,)}
_COLLECTIONS = (
    *(list, tuple, set, frozenset, Iterable, Iterator, Generator, Collection, Sequence),
    *(AsyncIterable, AsyncIterator, AsyncGenerator),
)
_NAMED_ONLY = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)


class UnreadableSignature(LoomError):
    """A callable that cannot be called with one message: why, and what to do."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy


class Signature(LoomFrozenStruct):
    """What a step takes and gives."""

    accepts: PayloadTypes
    returns: PayloadTypes
    may_drop: bool
    takes_tombstones: bool
    is_async: bool
    #: parameters beyond the message, which something would have to provide
    dependencies: tuple[str, ...]
    #: nothing says what it gives, so that its results are not checked
    untyped: bool = False
    #: parameters beyond the message that can be given by name, those with a default too
    named: tuple[str, ...] = ()
    #: it takes any name (`**deps`)
    takes_any_name: bool = False


class SelectorSignature(LoomFrozenStruct):
    """What a selector takes: these payloads, bare or inside a message; and what its annotation says that it gives."""

    accepts: PayloadTypes
    asks_for_message: bool
    returns: Any = Any


def kind_of(step: object) -> StepKind | None:
    """How an instance of a step class is called; `None` where it is of no known kind."""
    return next((kind for base, kind in _KINDS if isinstance(step, base)), None)


def read_signature(function: Callable[..., Any], kind: StepKind, owner: type | None = None) -> Signature:
    """Read a function, or the bound `execute` of a step of class `owner`.

    The class's generics (`RecordStep[Order, Priced]`) rule where they are given; annotations fill in the rest. Raises
    `UnreadableSignature` if the callable cannot take what a step of this kind receives.
    """
    first, rest = _parameters(function)
    hints = _hints(function, {} if owner is None else _names_in(_generics(owner)))
    in_annotation = hints.get(first.name, Any)
    out_annotation = hints.get("return", Any)
    _check_given(function, out_annotation, kind)
    one_result = kind in (StepKind.FUNCTION, StepKind.RECORD)
    untyped = "return" not in hints or not (one_result or get_args(out_annotation))
    if kind in (StepKind.BATCH, StepKind.BATCH_EXPAND):
        in_annotation = _element(in_annotation)
    if not one_result:
        out_annotation = _element(out_annotation)
    if kind is StepKind.BATCH_EXPAND:
        # `list[list[Out] | Exception]`: an entry is the results of one message, or why it has none.
        entries = [_element(member) for member in _members(out_annotation) if not _is_exception(member)]
        out_annotation = Union[tuple(entries)] if entries else Any  # noqa: UP007 - made at run time
    accepts, _ = _payloads(in_annotation)
    returns, may_drop = _payloads(out_annotation)
    _check_handed(in_annotation, accepts, kind)
    if owner is not None:
        generic_in, generic_out = _generics(owner)
        if not isinstance(generic_in, TypeVar):
            accepts = _payloads(generic_in)[0]
        if not isinstance(generic_out, TypeVar):
            declared, drops = _payloads(generic_out)
            returns, may_drop, untyped = declared, may_drop or drops, False
    return Signature(
        accepts,
        returns,
        may_drop,
        accepts.known and Tombstone in accepts.types,
        is_async(function),
        _required(rest),
        untyped,
        tuple(p.name for p in rest if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)),
        any(p.kind is p.VAR_KEYWORD for p in rest),
    )


def read_selector(function: Callable[..., Any], *, yields: bool = False) -> SelectorSignature:
    """Read a selector, a predicate or an expander; with `yields`, an exploder, which may be a generator.

    Raises `UnreadableSignature` when it cannot be called with one record, or does not answer at once.
    """
    first, rest = _parameters(function)
    if required := _required(rest):
        reason = f"it asks for {', '.join(map(repr, required))} too; it receives one record"
        raise UnreadableSignature(reason, "give those parameters defaults, or bind them with functools.partial")
    if is_async(function):
        raise UnreadableSignature("it is async, and has to answer at once", "make it a plain function")
    if is_generator(function) and not yields:
        raise UnreadableSignature(
            "it is a generator, which has no answer of its own", "return the answer, not yield it"
        )
    hints = _hints(function)
    annotation = hints.get(first.name, Any)
    asks_for_message = all(map(_is_message, _members(annotation)))
    return SelectorSignature(payloads_of(annotation), asks_for_message, hints.get("return", Any))


def fits(flowing: PayloadTypes, accepted: PayloadTypes) -> bool:
    """Whether everything that may arrive is accepted; what is not known fits."""
    if not flowing.known or not accepted.known:
        return True
    return all(any(_is_a(found, wanted) for wanted in accepted.types) for found in flowing.types)


def is_type(annotation: Any) -> bool:
    """Whether something in the place of a type is one. An expression, which has an attribute of any name, is not."""
    forms = ("typing", "typing_extensions", "types")
    return isinstance(annotation, type) or annotation is None or type(annotation).__module__ in forms


def elements_of(annotation: Any) -> PayloadTypes:
    """The payload types that an annotation of a collection names for its elements."""
    return _payloads(_element(annotation))[0]


def payloads_of(annotation: Any) -> PayloadTypes:
    """The payload types that an annotation names."""
    return _payloads(annotation)[0]


def without_tombstones(payloads: PayloadTypes) -> PayloadTypes:
    """Tombstones pass a step that does not name them, so they are no mismatch."""
    return PayloadTypes(tuple(t for t in payloads.types if t is not Tombstone), payloads.known)


def together(several: Iterable[PayloadTypes]) -> PayloadTypes:
    """Every type of several; not known where one of them is not."""
    found = list(several)
    types = tuple(dict.fromkeys(t for payloads in found for t in payloads.types))
    return PayloadTypes(types) if all(payloads.known for payloads in found) else UNKNOWN


def _check_handed(annotation: Any, accepts: PayloadTypes, kind: StepKind) -> None:
    """A function receives payloads, the methods of a step class messages; the other annotation is a mistake."""
    asks_for_message = list(map(_is_message, _members(annotation)))
    if kind is StepKind.FUNCTION and any(asks_for_message):
        reason = "its parameter is annotated as a Message, but a @step function receives the payload"
        raise UnreadableSignature(reason, "annotate the payload's type, or write a RecordStep")
    if kind is not StepKind.FUNCTION and accepts.known and object not in accepts.types and not all(asks_for_message):
        batch = kind in (StepKind.BATCH, StepKind.BATCH_EXPAND)
        what = "messages: list[Message[…]]" if batch else "message: Message[…]"
        reason = f"execute() receives Messages, but its parameter is annotated as {accepts}"
        raise UnreadableSignature(reason, f"annotate it as {what}")


def _check_given(function: Callable[..., Any], annotation: Any, kind: StepKind) -> None:
    """What every call would give must be what a step of this kind gives; else no record could pass."""
    if is_async_generator(function) and kind is StepKind.EXPAND:
        return  # its results are gathered
    if kind is not StepKind.EXPAND and (is_generator(function) or is_async_generator(function)):
        remedy = (
            "return the result; for several results of one record write an ExpandStep, or Explode(function)"
            if kind in (StepKind.FUNCTION, StepKind.RECORD)
            else "return a list with one entry for each message"
        )
        raise UnreadableSignature("it is a generator, so a call gives an iterator and no result", remedy)
    if kind not in (StepKind.FUNCTION, StepKind.RECORD) and never_iterable(annotation):
        what = "list[…]" if kind is not StepKind.EXPAND else "Iterable[…]"
        reason = f"execute() gives several results, but is annotated to return {show(annotation)}"
        raise UnreadableSignature(reason, f"return a {what} of them, and annotate it so")


def _is_a(found: Any, wanted: Any) -> bool:
    if wanted is object or found == wanted:
        return True
    if get_origin(found) is Literal:
        values = get_args(wanted) if get_origin(wanted) is Literal else None
        return all(value in values if values is not None else _is_a(type(value), wanted) for value in get_args(found))
    found_class, wanted_class = get_origin(found) or found, get_origin(wanted) or wanted
    if not (isinstance(found_class, type) and isinstance(wanted_class, type)):
        return False
    if is_typeddict(wanted_class):
        # Its instances are plain dicts, of which only the declared keys can be compared.
        if is_typeddict(found_class):
            return set(wanted_class.__required_keys__) <= set(found_class.__annotations__)  # type: ignore[attr-defined]
        return found_class is dict
    if wanted_class in _TAKEN_FOR.get(found_class, ()):
        return True
    try:
        if not issubclass(found_class, wanted_class):
            return False
    except TypeError:  # a protocol, which only a type checker can compare
        return True
    # `Box[int]` fits `Box` and `Box[int]`, not `Box[str]`. Immutable collections fit if their elements do.
    read_only = wanted_class.__module__ == "collections.abc" or wanted_class in (tuple, frozenset)
    return all(
        a == b or a is Any or _is_open(b) or (read_only and fits(payloads_of(a), payloads_of(b)))
        for a, b in zip(get_args(found), get_args(wanted), strict=False)
    )


def _is_open(hint: Any) -> bool:
    return hint is Any or isinstance(hint, TypeVar)


def _payloads(annotation: Any) -> tuple[PayloadTypes, bool]:
    """The payload types in an annotation, and whether `None` is among them."""
    found: list[Any] = []
    known, drops = True, False
    for member in _members(annotation):
        if member is Message or _is_open(member) or not is_type(member):
            known = False
        elif member is None or member is type(None):
            drops = True
        elif _is_exception(member):
            continue  # a batch step's way to fail one item; no payload
        elif _is_message(member):
            inner, inner_drops = _payloads(get_args(member)[0])
            known, drops = known and inner.known, drops or inner_drops
            found += [t for t in inner.types if t not in found]
        elif member not in found:
            found.append(member)
    return (PayloadTypes(tuple(found)) if known else UNKNOWN), drops


def _members(annotation: Any) -> tuple[Any, ...]:
    shape = deeply_bare(annotation)
    return tuple(m for arm in get_args(shape) for m in _members(arm)) if is_union(shape) else (shape,)


def _is_exception(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseException)


def _is_message(annotation: Any) -> bool:
    return annotation is Message or get_origin(annotation) is Message


def _element(annotation: Any) -> Any:
    """`X` of `list[X]` or `Iterable[X]`; unknown where it is not written."""
    if get_origin(annotation) in _COLLECTIONS and get_args(annotation):
        return get_args(annotation)[0]
    return Any


def _generics(cls: Any) -> tuple[Any, Any]:
    """The `In` and `Out` that a class and its bases fill in for `Step[In, Out]`; a `TypeVar` where they leave one open."""
    for base in vars(cls).get("__orig_bases__", cls.__bases__):
        origin = get_origin(base) or base
        if not (isinstance(origin, type) and issubclass(origin, Step)):
            continue
        if origin is Step:
            return get_args(base) or Step.__parameters__  # type: ignore[attr-defined]
        given = dict(zip(getattr(origin, "__parameters__", ()), get_args(base), strict=False))
        found_in, found_out = _generics(origin)
        return _filled(found_in, given), _filled(found_out, given)
    return Step.__parameters__  # type: ignore[attr-defined,no-any-return]


def _filled(hint: Any, given: dict[TypeVar, Any]) -> Any:
    """A type with the type variables in it replaced by what a subclass gave for them."""
    if isinstance(hint, TypeVar):
        return given.get(hint, hint)
    if isinstance(hint, type) or not getattr(hint, "__parameters__", ()):
        return hint
    return hint[tuple(given.get(parameter, parameter) for parameter in hint.__parameters__)]


def _parameters(function: Callable[..., Any]) -> tuple[inspect.Parameter, list[inspect.Parameter]]:
    """The parameter that takes the message or payload, and the others."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        # Some C callables tell no signature; they are taken at their word.
        parameters = [inspect.Parameter("payload", inspect.Parameter.POSITIONAL_ONLY)]
    if not parameters or parameters[0].kind in _NAMED_ONLY:
        raise UnreadableSignature("it takes no argument by position", "let its first parameter take the record")
    return parameters[0], parameters[1:]


def _required(parameters: list[inspect.Parameter]) -> tuple[str, ...]:
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return tuple(p.name for p in parameters if p.default is p.empty and p.kind not in open_ended)


def _hints(function: Callable[..., Any], named: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The annotations of a callable; `named` are classes that they may name though no module holds them."""
    target = function if inspect.isroutine(function) else getattr(type(function), "__call__", function)  # noqa: B004
    around = _around(target)
    try:
        try:
            return typing.get_type_hints(target, localns=around or None)
        except NameError:
            return typing.get_type_hints(target, localns={**(named or {}), **around})
    except Exception as unresolved:  # noqa: BLE001  an annotation is an expression, which may raise anything
        name = getattr(unresolved, "name", None) if isinstance(unresolved, NameError) else None
        reason = f"its annotations cannot be resolved: {unresolved}"
        remedy = (
            f"define or import {f'{name!r}' if name else 'what they name'} unconditionally, at the top of the module: outside "
            "of functions and of `if TYPE_CHECKING:`"
        )
        raise UnreadableSignature(reason, remedy) from None


def _around(function: Any) -> dict[str, Any]:
    """What a function uses of its enclosing functions."""
    try:
        return dict(inspect.getclosurevars(inspect.unwrap(function)).nonlocals)
    except TypeError:  # written in C, so it has none
        return {}


def _names_in(hints: Iterable[Any]) -> dict[str, Any]:
    """The classes in annotations, by the names that they are written by."""
    named: dict[str, Any] = {}
    waiting = list(hints)
    while waiting:
        hint = waiting.pop()
        cls = get_origin(hint) or hint
        if isinstance(cls, type):
            named[cls.__name__] = cls
        waiting.extend(get_args(hint))
    return named
