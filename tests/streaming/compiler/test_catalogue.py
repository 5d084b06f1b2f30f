"""Each code of the catalogue, provoked by one small mistake: its place, and a message and a remedy that name the culprit."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from loom.streaming import (
    Broadcast,
    BroadcastRoute,
    CollectBatch,
    ForEach,
    Fork,
    ForkRoute,
    FromTopic,
    IntoTopic,
    Message,
    Process,
    RecordStep,
    StreamShape,
    With,
    WithAsync,
    payload,
    step,
)
from loom.streaming.compiler import Code, CompilationError, Issue, Severity
from tests.streaming.compiler.cases import Case, issues
from tests.streaming.compiler.mistakes import (
    ById,
    Stray,
    by_cents,
    make_bytes,
    make_open,
    make_unwritable,
)
from tests.streaming.compiler.mistakes_in_steps import CASES as STEPS
from tests.streaming.orders import CONFIG, Order, by_country, config, ended, flow, price, validate

INTO = IntoTopic[Any]("orders.priced")


@step
async def look_up(order: Order) -> Order:
    return order


class Numbering(RecordStep[Order, Order]):
    """Holds what moves on and never back."""

    def __init__(self) -> None:
        self.numbers = count()

    def execute(self, message: Message[Order]) -> Order:
        return message.payload


class Renumbering(Numbering):
    def reset(self) -> None:
        self.numbers = count()


@pytest.mark.parametrize(
    ("node", "delivery"),
    [(Numbering, "exactly_once"), (Renumbering(), "exactly_once"), (Numbering(), "at_least_once")],
    ids=["the class", "its own reset", "no transaction"],
)
def test_what_can_begin_again_or_need_not_is_no_issue(node: Any, delivery: str) -> None:
    assert issues(flow(node), config(consumer={"delivery": delivery})) == ()


def with_pricing(**section: Any) -> dict[str, Any]:
    return {**CONFIG, "pricing": section}


CASES = [
    *STEPS,
    Case(
        Code.NODE_UNKNOWN,
        flow(validate, source="orders.raw"),
        CONFIG,
        "source",
        (),
        "'orders.raw' is no source",
        "FromTopic(…)",
        "FromTopic(…)",
    ),
    Case(
        Code.NODE_UNKNOWN,
        flow(validate, output="orders.priced"),
        CONFIG,
        "output",
        (),
        "'orders.priced' is no output",
        "IntoTopic(…)",
        "IntoTopic(…)",
    ),
    Case(
        Code.NODE_UNKNOWN,
        ended(Fork.by(ById, {"ES": Process(INTO)})),
        CONFIG,
        "process",
        (0,),
        "the selector ById",
        "ById(…)",
    ),
    Case(
        Code.NOT_SUPPORTED,
        flow(CollectBatch(10, 100, event_time=True), ForEach()),
        CONFIG,
        "process",
        (0,),
        "CollectBatch(event_time=True) is not supported yet",
        "leave event_time at its default",
    ),
    Case(
        Code.SCOPE_DEPENDENCY,
        flow(With(process=Process(validate), rates={})),
        CONFIG,
        "process",
        (0,),
        "no step in With takes 'rates'",
        "rates=…",
        "a parameter of that name in one of its steps",
        "none that is taken",
    ),
    Case(
        Code.SCOPE_NODE,
        flow(With(process=Process(With(process=Process(validate))))),
        CONFIG,
        "process",
        (0, 0),
        "With is inside another scope",
        "put one behind the other",
    ),
    Case(
        Code.SHAPE_MISMATCH,
        flow(validate, output=IntoTopic("orders.priced", shape=StreamShape.BATCH)),
        CONFIG,
        "output",
        (),
        "'orders.priced' is declared to take batch",
        "IntoTopic('orders.priced')",
        "batch",
        "record",
    ),
    Case(
        Code.TYPE_MISMATCH,
        flow(price, validate),
        CONFIG,
        "process",
        (1,),
        "validate does not take what arrives",
        "the annotation of validate",
        "Order",
        "PricedOrder",
    ),
    Case(
        Code.TYPE_MISMATCH,
        flow(price, output=IntoTopic("orders.priced", payload=Order)),
        CONFIG,
        "output",
        (),
        "the topic 'orders.priced'",
        "IntoTopic('orders.priced')",
        "Order",
        "PricedOrder",
    ),
    Case(
        Code.TYPE_MISMATCH,
        ended(Fork.by(by_cents, {0: Process(INTO)})),
        CONFIG,
        "process",
        (0,),
        "the selector by_cents",
        "annotation",
        "PricedOrder",
        "Order",
    ),
    Case(
        Code.PAYLOAD_INVALID,
        flow(step(lambda payload: payload), source=FromTopic("orders.raw", payload=Stray)),
        CONFIG,
        "source",
        (),
        "no wire format can hold the type Stray",
        "let Stray inherit from LoomFrozenStruct",
        "LoomFrozenStruct",
        "Stray",
    ),
    Case(
        Code.PAYLOAD_INVALID,
        flow(make_unwritable),
        CONFIG,
        "output",
        (),
        "no wire format can hold the type Stray",
        "Unwritable",
        "LoomFrozenStruct",
        "Unwritable",
    ),
    Case(
        Code.PAYLOAD_INVALID,
        flow(make_bytes),
        CONFIG,
        "output",
        (),
        "the format json",
        "format: bytes",
        "a LoomStruct",
        "bytes",
    ),
    Case(
        Code.BEHIND_TERMINAL,
        ended(IntoTopic("orders.es"), price),
        CONFIG,
        "process",
        (1,),
        "price comes after",
        "in front of the terminal",
    ),
    Case(Code.NO_END, ended(price), CONFIG, "output", (), "the process has no end", "output=IntoTopic(…)"),
    Case(
        Code.NO_END,
        ended(Fork.by(by_country, {"ES": Process(price), "PT": Process(INTO)})),
        CONFIG,
        "process",
        (0, 0),
        "the branch 'es' of a Fork",
        "end the branch 'es'",
    ),
    Case(
        Code.TWO_ENDS, flow(price, IntoTopic("orders.es")), CONFIG, "output", (), "the flow's output", "remove output"
    ),
    Case(
        Code.NAME_INVALID,
        ended(price, IntoTopic("orders es")),
        CONFIG,
        "process",
        (1,),
        "'orders es' is no name of a topic",
        "correct the name",
    ),
    Case(Code.NAME_TWICE, flow(validate, validate), CONFIG, "process", (1,), "'orders.validate'", "@step(name=…)"),
    Case(
        Code.NAME_TWICE,
        ended(Fork.by(by_country, {"ES": Process(INTO), "es": Process(IntoTopic("orders.es"))})),
        CONFIG,
        "process",
        (0, 1),
        "the branches 'ES' and 'es' have the same label 'es'",
        "rename 'es'",
    ),
    Case(
        Code.TOPIC_LOOP,
        flow(price, output=IntoTopic("orders.raw")),
        CONFIG,
        "output",
        (),
        "'orders.raw'",
        "another topic",
    ),
    Case(
        Code.TOPIC_SHARED,
        flow(price),
        config(producer={"topic": "everything"}),
        "config",
        (),
        "orders.errors, orders.priced",
        "kafka.producers",
        "",
        "everything",
    ),
    Case(
        Code.DELIVERY_CONFLICT,
        flow(price),
        config(consumer={"enable_auto_commit": True}),
        "config",
        (),
        "'orders.raw' is set to delivery: at_least_once",
        "remove enable_auto_commit",
    ),
    Case(
        Code.DELIVERY_UNKEPT,
        flow(price),
        config(consumer={"delivery": "exactly_once"}, producers={"orders.priced": {"brokers": ["elsewhere:9092"]}}),
        "output",
        (),
        "exactly_once cannot be kept: 'orders.priced' is written to another cluster",
        "orders.priced",
    ),
    Case(
        Code.DELIVERY_UNKEPT,
        flow(price),
        config(consumer={"delivery": "exactly_once"}, producers={"orders.errors": {"client_id": "other"}}),
        "errors",
        (),
        "the producers of 'orders.priced' and 'orders.errors' differ",
        "orders.errors",
        "topic, format and headers only",
    ),
    Case(
        Code.EXPRESSION_FIELD,
        ended(Fork.when([ForkRoute(payload.county == "ES", Process(IntoTopic("orders.es")))])),
        CONFIG,
        "process",
        (0,),
        "the predicate payload.county == 'ES' cannot be asked: payload.county: Order has no field 'county'",
        "every payload type arriving here has",
        found="Order",
    ),
    Case(
        Code.PAYLOAD_SHARED,
        ended(make_open, Broadcast(BroadcastRoute(Process(IntoTopic("orders.a"))))),
        CONFIG,
        "process",
        (1,),
        "the same payload object, and its type is not frozen",
        "make the type frozen",
        "a LoomFrozenStruct",
        "OpenOrder",
    ),
    Case(
        Code.SCOPE_ORDERING,
        flow(WithAsync(process=Process(look_up), ordering="none")),
        config(consumer={"delivery": "exactly_once"}),
        "process",
        (0,),
        "orders.with_async leave in the order of their records",
        "leave ordering at its default",
    ),
    Case(
        Code.STEP_MEMORY,
        flow(Numbering()),
        config(consumer={"delivery": "exactly_once"}),
        "process",
        (0,),
        "the Numbering of orders.numbering cannot forget",
        "Numbering.configure(…), or let it define reset()",
        "begin again",
        "holds a count,",
    ),
    Case(
        Code.ERRORS_UNROUTED,
        flow(price, errors={"wire": IntoTopic("orders.errors")}),
        CONFIG,
        "errors",
        (),
        "routing, task, business",
        "ErrorRoute([ErrorKind.ROUTING, ErrorKind.TASK, ErrorKind.BUSINESS], IntoTopic(…))",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=map(Case.label, CASES))
def test_a_mistake_is_one_issue_that_names_it(case: Case) -> None:
    case.check()


def test_every_code_of_the_catalogue_is_provoked_here() -> None:
    assert {case.code for case in CASES} == set(Code)


def test_codes_are_readable_and_stable() -> None:
    assert {code.value for code in Code} == {
        "config-missing",
        "config-invalid",
        "config-unread",
        "step-arguments",
        "step-signature",
        "step-async",
        "step-untyped",
        "step-memory",
        "step-dependency",
        "scope-dependency",
        "scope-node",
        "scope-ordering",
        "node-unknown",
        "not-supported",
        "shape-mismatch",
        "type-mismatch",
        "expression-field",
        "payload-shared",
        "payload-invalid",
        "behind-terminal",
        "no-end",
        "two-ends",
        "name-invalid",
        "name-twice",
        "topic-loop",
        "topic-shared",
        "delivery-conflict",
        "delivery-unkept",
        "errors-unrouted",
    }


def test_an_issue_prints_its_place_and_how_to_mend_it() -> None:
    issue = Issue(Code.TYPE_MISMATCH, Severity.ERROR, "process", (1, 0), "no", "Order", "Line", "change it")
    assert str(issue) == (
        "error type-mismatch at process[1, 0]: no\n    expected: Order\n    found:    Line\n    help:     change it"
    )
    assert str(Issue(Code.NO_END, Severity.WARNING, "output", (), "no end")) == "warning no-end at output: no end"


def test_the_error_prints_the_flow_the_number_and_every_issue() -> None:
    one = Issue(Code.NO_END, Severity.ERROR, "output", (), "no end")
    other = Issue(Code.TWO_ENDS, Severity.ERROR, "output", (), "two ends")
    assert str(CompilationError("orders", [one])).startswith("flow 'orders' does not compile: 1 problem\n")
    error = CompilationError("orders", iter([one, other]))
    assert error.errors == (one, other)
    assert str(error) == f"flow 'orders' does not compile: 2 problems\n{one}\n{other}"
