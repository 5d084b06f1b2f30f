"""A flow whose classes stand in the program that is started: their labels are those by which everybody else imports them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SHOP = """
from typing import ClassVar
from loom.core.model import LoomFrozenStruct
from loom.streaming import FromMultiTypeTopic, FromTopic, IntoTopic, Message, MessageMeta, Process, StreamFlow, step
from loom.streaming.kafka import KafkaRecord, MsgspecCodec
from loom.streaming.testing import StreamingTestRunner

class Order(LoomFrozenStruct):
    id: int
class Refund(LoomFrozenStruct):
    id: int
class Named(LoomFrozenStruct):
    __loom_message_type__: ClassVar[str] = "named"
    id: int
class Odd(Exception): ...

@step
def split(order: Order) -> Order | Refund:
    if order.id < 0:
        raise Odd("negative")
    return order
@step
def whole(order: Order) -> Order:
    return order
@step
def name(order: Order) -> Named:
    return Named(order.id)
@step
def event(found: Order | Refund) -> Order:
    return Order(found.id)

def kit(node, source=FromTopic("t", payload=Order), **producer):
    config = {"kafka": {"consumer": {"brokers": "x:1", "group_id": "g"}, "producer": {"brokers": "x:1", **producer}}}
    flow = StreamFlow("shop", source, Process(node), IntoTopic("o"), errors=IntoTopic("e"))
    return StreamingTestRunner.from_flow(flow, config)

def header(record, name):
    return dict(record.headers).get(name, b"none").decode()

def several():
    return header(kit(split).with_payloads([Order(1)]).run().written("o")[0], "x-message-type")
def full():
    return header(kit(whole, headers="full").with_payloads([Order(1)]).run().written("o")[0], "x-message-type")
def envelope():
    record = kit(whole, format="envelope").with_payloads([Order(1)]).run().written("o")[0]
    return MsgspecCodec(Order).decode(record).message.meta.message_type
def error():
    return header(kit(split).with_payloads([Order(-1)]).run().written("e")[0], "x-error-type")
def reads():
    source = FromMultiTypeTopic("t", (Order, Refund))
    records = [KafkaRecord("t", None, b'{"id":1}', {"x-message-type": b"shop.Refund"})]
    return str(len(kit(event, source).with_records(records).run().output))
def plain():
    return header(kit(whole).with_payloads([Order(1)]).run().written("o")[0], "x-message-type")
def named():
    return header(kit(name).with_payloads([Order(1)]).run().written("o")[0], "x-message-type")

if __name__ == "__main__":
    import sys
    for what in sys.argv[1:]:
        try:
            print(what, globals()[what]())
        except Exception as problem:
            print(what, problem)
"""
IMPORTED = "import shop, sys; [print(what, getattr(shop, what)()) for what in sys.argv[1:]]"
PACKAGE = "store/shop.py"


def said(where: Path, *how: str) -> list[str]:
    run = subprocess.run([sys.executable, *how], capture_output=True, text=True, cwd=where, check=True)
    return run.stdout.splitlines()


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "__init__.py").touch()
    (tmp_path / PACKAGE).write_text(SHOP)
    return tmp_path


@pytest.mark.parametrize("how", [["shop.py"], ["-m", "shop"], ["-c", IMPORTED]], ids=["file", "module", "imported"])
def test_a_class_has_one_label_however_its_flow_was_started(shop: Path, how: list[str]) -> None:
    assert said(shop, *how, "several", "full", "envelope", "error", "reads") == [
        "several shop.Order",
        "full shop.Order",
        "envelope shop.Order",
        "error shop.Odd",
        "reads 1",
    ]


def test_a_module_of_a_package_has_its_whole_name(shop: Path) -> None:
    assert said(shop, "-m", "store.shop", "full") == ["full store.shop.Order"]


@pytest.mark.parametrize("how", [[PACKAGE], ["-c", SHOP]], ids=["a file of a package", "a text"])
def test_where_it_has_no_name_a_flow_that_would_write_or_read_it_does_not_compile(shop: Path, how: list[str]) -> None:
    told = said(shop, *how, "several", "full", "envelope", "reads")
    assert [line for line in told if "does not compile" in line] == [
        "several flow 'shop' does not compile: 2 problems",
        "full flow 'shop' does not compile: 1 problem",
        "envelope flow 'shop' does not compile: 1 problem",
        "reads flow 'shop' does not compile: 2 problems",
    ]
    assert sum("Order is defined in the program that was started" in line for line in told) == 4
    assert sum('__loom_message_type__ = "…" in Order' in line for line in told) == 4


def test_where_no_label_of_its_own_is_written_it_needs_no_name(shop: Path) -> None:
    assert said(shop, "-c", SHOP, "plain", "named") == ["plain none", "named named"]


def test_a_process_that_was_spawned_knows_the_name_of_the_program_that_spawned_it(shop: Path) -> None:
    spawn = """
if __name__ == "__main__":
    import multiprocessing
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(several))
"""
    (shop / "shop.py").write_text(SHOP.split("if __name__", maxsplit=1)[0] + spawn)
    assert said(shop, "shop.py") == ["shop.Order"]
