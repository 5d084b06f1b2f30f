"""Compiling tells everything that is wrong at once, nothing that is not wrong, and opens nothing."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from loom.core.config import ConfigContext
from loom.streaming import ErrorKind, ErrorRoute, Fork, FromTopic, IntoTopic, Process, compile_flow, step
from loom.streaming.compiler import Code, CompilationError, CompiledPlan, Issue
from tests.streaming.orders import CONFIG, Order, Price, PricedOrder, by_country, config, ended, flow, price, validate


def errors_of(declared: Any, settings: Any = CONFIG) -> tuple[Issue, ...]:
    with pytest.raises(CompilationError) as caught:
        compile_flow(declared, config=settings)
    return caught.value.errors


def codes_of(declared: Any, settings: Any = CONFIG) -> list[Code]:
    return [issue.code for issue in errors_of(declared, settings)]


def test_a_sound_flow_becomes_a_plan_without_warnings() -> None:
    plan = compile_flow(flow(validate, Price), config=CONFIG)
    assert isinstance(plan, CompiledPlan)
    assert (plan.name, plan.needs_async_bridge, plan.warnings, plan.unrouted) == ("orders", False, (), "fail")
    assert not plan.terminal_storage_sinks


def test_everything_that_is_wrong_is_told_at_once_in_the_order_of_the_flow() -> None:
    @step
    async def fetch(order: Order) -> Order:
        return order

    broken = flow(
        fetch,
        Price.from_config("pricing"),
        "nonsense",
        price,
        price,
        output=IntoTopic("orders.raw"),
        source=FromTopic("orders.raw", payload=Order),
    )
    settings = config(consumer={"batch_sice": 5}, producer={"linger": 3})
    assert codes_of(broken, settings) == [
        Code.CONFIG_INVALID,
        Code.STEP_ASYNC,
        Code.CONFIG_MISSING,
        Code.NODE_UNKNOWN,
        Code.TYPE_MISMATCH,
        Code.NAME_TWICE,
        Code.CONFIG_INVALID,
    ]


def test_several_problems_of_one_config_section_are_issues_of_their_own() -> None:
    settings = config(consumer={"batch_size": 0, "topic": "x", "group_id": None, "auto_offset_reset": "newest"})
    messages = [issue.message for issue in errors_of(flow(price), settings)]
    assert sorted(message.split(":")[0] for message in messages) == [
        "kafka.consumer.auto_offset_reset",
        "kafka.consumer.batch_size",
        "kafka.consumer.group_id",
        "kafka.consumer.topic",
    ]


def test_an_entry_that_several_outputs_share_is_wrong_once() -> None:
    fork = Fork.by(by_country, {"ES": Process(IntoTopic("a")), "PT": Process(IntoTopic("b"))})
    (issue,) = errors_of(ended(fork), config(producer={"bokers": ["x"]}))
    assert issue.message.startswith("kafka.producer.bokers: unknown key")


def test_a_mistake_in_the_common_entry_is_not_blamed_on_the_named_one() -> None:
    settings = config(producer={"client_idd": "x"}, producers={"orders.priced": {"formatt": "json"}})
    places = {issue.message.split(":")[0] for issue in errors_of(flow(price), settings)}
    assert places == {"kafka.producer.client_idd", 'kafka.producers["orders.priced"].formatt'}


def test_a_config_that_comes_from_a_file_is_named_with_it(tmp_path: Path) -> None:
    file = tmp_path / "orders.yaml"
    file.write_text("kafka:\n  consumer: {brokers: [a], group_id: g, typo: 1}\n  producer: {brokers: [a]}\n")
    (issue,) = errors_of(flow(price), ConfigContext.from_yaml(file))
    assert issue.message == f"kafka.consumer.typo: unknown key (in {file})"


@pytest.mark.parametrize("kafka", [{"consumer": 5}, {"typo": {}}, 7])
def test_an_unusable_kafka_section_is_not_called_missing_as_well(kafka: Any) -> None:
    assert set(codes_of(flow(price), {"kafka": kafka})) == {Code.CONFIG_INVALID}


def test_a_missing_section_is_told_for_each_who_needs_it() -> None:
    issues = errors_of(flow(price, errors=ErrorRoute(ErrorKind.WIRE, IntoTopic("bad", dlq="worse"))), {})
    assert [(issue.code, issue.where) for issue in issues] == [
        (Code.CONFIG_MISSING, "source"),
        (Code.CONFIG_MISSING, "output"),
        (Code.CONFIG_MISSING, "errors"),
        (Code.CONFIG_MISSING, "errors"),
    ]
    assert "'worse'" in issues[3].message


def test_a_terminal_without_a_config_still_ends_its_process() -> None:
    settings = {"kafka": {"consumer": CONFIG["kafka"]["consumer"]}}
    assert codes_of(ended(IntoTopic("a"), errors=None), settings) == [Code.CONFIG_MISSING]


def test_a_fork_with_an_unusable_selector_has_its_branches_checked_all_the_same() -> None:
    fork = Fork.by("country", {"ES": Process("nonsense", IntoTopic("a"))})  # type: ignore[arg-type]
    issues = errors_of(ended(fork))
    assert [(issue.code, issue.path) for issue in issues] == [(Code.NODE_UNKNOWN, (0,)), (Code.NODE_UNKNOWN, (0, 0, 0))]


def test_what_follows_a_node_that_is_not_understood_is_not_blamed() -> None:
    assert codes_of(flow("nonsense", price)) == [Code.NODE_UNKNOWN]
    assert codes_of(flow(price, "nonsense", price)) == [Code.NODE_UNKNOWN, Code.NAME_TWICE]


def test_a_plan_is_made_of_a_mapping_or_a_loaded_config_alike() -> None:
    assert compile_flow(flow(price), config=CONFIG) == compile_flow(flow(price), config=ConfigContext.from_dict(CONFIG))


def test_the_declaration_and_the_config_are_left_as_they_are() -> None:
    settings, declared = config(producers={"orders.priced": {"extra": {"acks": 1}}}), flow(price)
    before = (repr(settings), repr(declared))
    errors_of(declared, settings)
    assert (repr(settings), repr(declared)) == before


def test_compiling_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    compile_flow(flow(validate, Price), config=CONFIG)


def test_error_kinds_without_a_route_are_a_warning_that_says_what_happens() -> None:
    route = ErrorRoute([ErrorKind.TASK, ErrorKind.BUSINESS], IntoTopic("bad"))
    (stops,) = compile_flow(flow(price, errors=route), config=CONFIG).warnings
    (drops,) = compile_flow(flow(price, errors=route, unrouted="drop"), config=CONFIG).warnings
    assert stops.message == "no route for wire, routing errors: such a record stops the run"
    assert drops.message == "no route for wire, routing errors: such a record is dropped, counted and logged"


def test_sections_that_other_parts_read_are_no_warning() -> None:
    settings = {**CONFIG, "streaming": {"runtime": {}}, "observability": {"log": {"enabled": True}}}
    assert compile_flow(flow(price), config=settings).warnings == ()


def test_a_section_that_a_step_reads_is_no_warning() -> None:
    settings = {**CONFIG, "pricing": {"currency": "EUR"}, "other": {}}
    (warning,) = compile_flow(flow(Price.from_config("pricing")), config=settings).warnings
    assert "'other'" in warning.message


def test_a_section_that_only_an_interpolation_reads_is_no_warning() -> None:
    settings = {**config(consumer={"group_id": "${names.group}"}), "names": {"group": "orders"}}
    plan = compile_flow(flow(price), config=settings)
    assert (plan.warnings, plan.source.settings.group_id) == ((), "orders")


def test_a_step_is_made_once_for_each_plan() -> None:
    declared = flow(Price)
    one, other = compile_flow(declared, config=CONFIG), compile_flow(declared, config=CONFIG)
    assert one.nodes[0].bound.instance is not other.nodes[0].bound.instance  # type: ignore[union-attr]


def test_an_instance_is_used_as_it_is() -> None:
    made = Price("USD")
    plan = compile_flow(flow(made), config=CONFIG)
    assert plan.nodes[0].bound.instance is made  # type: ignore[union-attr]


def test_a_binding_is_made_from_its_section_and_its_overrides() -> None:
    settings = {**CONFIG, "pricing": {"currency": "USD", "digits": "3"}}
    plan = compile_flow(flow(Price.from_config("pricing", digits=4)), config=settings)
    made = plan.nodes[0].bound.instance  # type: ignore[union-attr]
    assert (made.currency, made.digits) == ("USD", 4)


def test_a_class_without_required_arguments_is_made_with_its_defaults() -> None:
    made = compile_flow(flow(Price), config=CONFIG).nodes[0].bound.instance  # type: ignore[union-attr]
    assert (made.currency, made.digits) == ("EUR", 2)


def test_a_binding_of_something_else_than_a_step_is_no_node() -> None:
    class Clock:
        pass

    from loom.core.config import ConfigBinding

    (issue,) = errors_of(flow(ConfigBinding(Clock)))
    assert issue.code is Code.NODE_UNKNOWN
    assert "Clock" in issue.message
    assert issue.expected == "a subclass of RecordStep, ExpandStep or BatchStep"


def test_the_type_that_leaves_the_process_is_the_outputs() -> None:
    plan = compile_flow(flow(price), config=CONFIG)
    assert plan.output is not None
    assert plan.output.payloads.types == (PricedOrder,)
