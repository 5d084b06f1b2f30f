"""Mistakes in the config and in steps, each with the one issue that it makes; `test_catalogue.py` provokes them."""

from __future__ import annotations

from typing import Any

from loom.streaming import (
    Fork,
    IntoTopic,
    Process,
)
from loom.streaming.compiler import Code
from tests.streaming.compiler.cases import Case
from tests.streaming.compiler.mistakes import (
    Bodiless,
    Kindless,
    NeedsRate,
    WantsPayload,
    by_name_only,
    by_slow_country,
    convert,
    fetch,
    no_argument,
    two_things,
    unresolved,
    wants_message,
)
from tests.streaming.orders import CONFIG, Price, by_country, config, ended, flow, validate

INTO = IntoTopic[Any]("orders.priced")


def with_pricing(**section: Any) -> dict[str, Any]:
    return {**CONFIG, "pricing": section}


CASES = [
    Case(
        Code.CONFIG_MISSING,
        flow(validate),
        {"kafka": {"producer": CONFIG["kafka"]["producer"]}},
        "source",
        (),
        "the consumer of 'orders.raw'",
        "add a kafka.consumer section with brokers and group_id",
        'kafka.consumer or kafka.consumers["orders.raw"]',
    ),
    Case(
        Code.CONFIG_MISSING,
        ended(validate, IntoTopic("orders.es"), errors=None),
        {"kafka": {"consumer": CONFIG["kafka"]["consumer"]}},
        "process",
        (1,),
        "the producer of 'orders.es'",
        "kafka.producer",
    ),
    Case(
        Code.CONFIG_MISSING,
        flow(Price.from_config("pricing")),
        {**CONFIG, "pricin": {}},
        "process",
        (0,),
        "Price: pricing",
        "'pricin'",
    ),
    Case(
        Code.CONFIG_INVALID,
        flow(validate),
        config(consumer={"group_idd": "x"}),
        "config",
        (),
        "kafka.consumer.group_idd: unknown key",
        "'group_id'",
    ),
    Case(
        Code.CONFIG_INVALID,
        flow(validate),
        config(producers={"orders.priced": {"formats": "json"}}),
        "config",
        (),
        'kafka.producers["orders.priced"].formats: unknown key',
        "'format'",
    ),
    Case(
        Code.CONFIG_INVALID,
        flow(validate),
        config(producer={"extra": {"acks": 1}}),
        "config",
        (),
        "kafka.producer.extra.acks: may not be set here",
        "a delivery guarantee rests on it",
    ),
    Case(
        Code.CONFIG_INVALID,
        flow(validate),
        {"kafka": {**CONFIG["kafka"], "producrs": {}}},
        "config",
        (),
        "kafka.producrs: unknown key",
        "'producers'",
    ),
    Case(
        Code.CONFIG_UNREAD,
        flow(validate),
        with_pricing(currency="EUR"),
        "config",
        (),
        "'pricing'",
        "from_config('pricing')",
    ),
    Case(
        Code.CONFIG_UNREAD,
        flow(validate),
        config(producers={"orders.pricd": {"topic": "x"}}),
        "config",
        (),
        'kafka.producers["orders.pricd"]',
        "'orders.priced'",
    ),
    Case(
        Code.STEP_ARGUMENTS,
        flow(NeedsRate),
        CONFIG,
        "process",
        (0,),
        "NeedsRate cannot be made without arguments",
        'NeedsRate.from_config("…")',
        "values for rate",
    ),
    Case(
        Code.CONFIG_INVALID,
        flow(Price.from_config("pricing")),
        with_pricing(currancy="EUR"),
        "process",
        (0,),
        "Price: pricing.currancy: `Price` has no such argument",
        "'currency'",
    ),
    Case(
        Code.STEP_ARGUMENTS,
        flow(NeedsRate.configure(rate=7.5)),
        CONFIG,
        "process",
        (0,),
        "NeedsRate() failed: ValueError",
        "NeedsRate.__init__",
    ),
    Case(
        Code.STEP_SIGNATURE,
        flow(no_argument),
        CONFIG,
        "process",
        (0,),
        "no_argument: it takes no argument",
        "first parameter",
    ),
    Case(
        Code.STEP_SIGNATURE,
        flow(by_name_only),
        CONFIG,
        "process",
        (0,),
        "by_name_only: it takes no argument by position",
        "first parameter",
    ),
    Case(Code.STEP_SIGNATURE, flow(Bodiless), CONFIG, "process", (0,), "Bodiless defines no execute()", "let Bodiless"),
    Case(Code.STEP_SIGNATURE, flow(Kindless), CONFIG, "process", (0,), "Kindless defines no execute()", "RecordStep"),
    Case(
        Code.STEP_SIGNATURE,
        flow(wants_message),
        CONFIG,
        "process",
        (0,),
        "wants_message: its parameter is annotated as a Message",
        "write a RecordStep",
    ),
    Case(
        Code.STEP_SIGNATURE,
        flow(WantsPayload),
        CONFIG,
        "process",
        (0,),
        "wants_payload: execute() is handed Messages, but its parameter is annotated as Order",
        "message: Message[…]",
    ),
    Case(
        Code.STEP_SIGNATURE,
        flow(unresolved),
        CONFIG,
        "process",
        (0,),
        "unresolved: its annotations cannot be resolved: name 'Nowhere' is not defined",
        "import",
    ),
    Case(
        Code.STEP_SIGNATURE,
        ended(Fork.by(two_things, {"ES": Process(INTO)})),
        CONFIG,
        "process",
        (0,),
        "the selector two_things: it asks for 'rates' too",
        "defaults",
    ),
    Case(
        Code.STEP_SIGNATURE,
        ended(Fork.by(by_slow_country, {"ES": Process(INTO)})),
        CONFIG,
        "process",
        (0,),
        "the selector by_slow_country: it is async",
        "plain function",
    ),
    Case(
        Code.STEP_ASYNC, flow(fetch), CONFIG, "process", (0,), "fetch is an async step", "make fetch a plain function"
    ),
    Case(
        Code.STEP_DEPENDENCY,
        flow(validate, convert),
        CONFIG,
        "process",
        (1,),
        "convert asks for 'rates'",
        "give 'rates' to the constructor",
    ),
    Case(Code.NODE_UNKNOWN, flow(by_country), CONFIG, "process", (0,), "by_country is no node", "@step"),
    Case(Code.NODE_UNKNOWN, flow(Process(validate)), CONFIG, "process", (0,), "Process is no node", "in this process"),
    Case(Code.NODE_UNKNOWN, flow(validate, "price"), CONFIG, "process", (1,), "'price' is no node", "IntoTopic(…)"),
]
