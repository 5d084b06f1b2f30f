"""Typical mistakes of newcomers, one table: what is changed in a flow that works, what is typed, and what helps.

`docs/mistakes.md` shows each of them with what the command prints (`tests/support/mistakes_page.py`). `test_mistakes.py`, and
`tests/kafka/test_security.py` for those that need a real broker, type the commands and compare.
"""

from __future__ import annotations

from dataclasses import dataclass

from loom.cli.exit_codes import Exit

#: the broker of the config on the page
BROKER = "localhost:9092"

FLOW = """\
# shop.py
from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, step


class Order(LoomFrozenStruct):
    id: int
    country: str
    amount: int


class Priced(LoomFrozenStruct):
    id: int
    cents: int


@step
def price(order: Order) -> Priced:
    return Priced(order.id, order.amount * 100)


flow = StreamFlow(
    "shop",
    source=FromTopic("orders", payload=Order),
    process=Process(price),
    output=IntoTopic("priced", payload=Priced),
    errors=IntoTopic("rejected"),
)
"""

CONFIG = """\
# config.yaml
kafka:
  consumer:
    brokers: ["localhost:9092"]
    group_id: shop
    delivery: at_least_once
  producer:
    brokers: ["localhost:9092"]
streaming:
  runtime:
    epoch_interval_ms: 1000
"""

BASE = {"shop.py": FLOW, "config.yaml": CONFIG}


@dataclass(frozen=True)
class Mistake:
    """One mistake: what is typed, in which file what is written instead of what, and what the command ends with."""

    title: str
    command: str
    code: Exit
    #: (file, what stands in it, what is written instead); a file that is not there is made
    changes: tuple[tuple[str, str, str], ...] = ()
    #: a sentence for what the message cannot say
    note: str = ""
    #: what must run beside it: one of the names in `test_mistakes.py`, or `kafka` for those of `tests/kafka`
    beside: str = ""

    def files(self) -> dict[str, str]:
        """The files as the newcomer has them."""
        found = dict(BASE)
        for name, before, after in self.changes:
            text = found.get(name, "")
            assert before in text, f"{self.title}: {before!r} is not in {name}"
            found[name] = text.replace(before, after) if before else text + after
        return found


def flow(before: str, after: str) -> tuple[tuple[str, str, str], ...]:
    return (("shop.py", before, after),)


def config(before: str, after: str) -> tuple[tuple[str, str, str], ...]:
    return (("config.yaml", before, after),)


CHECK = "loom check shop:flow -c config.yaml"
RUN = "loom run shop:flow -c config.yaml"

_GROUP = "    group_id: shop\n"
_PROCESS = "process=Process(price)"
_IMPORTS = "import FromTopic, IntoTopic, Process, StreamFlow, step"
_STEP = "@step\ndef price(order: Order) -> Priced:\n    return Priced(order.id, order.amount * 100)\n"
_AT_LEAST = "    delivery: at_least_once\n"
_EPOCH = "epoch_interval_ms: 1000"
_OUTPUT = '    output=IntoTopic("priced", payload=Priced),\n'
_CONSUMER = '  consumer:\n    brokers: ["localhost:9092"]\n'
_PRODUCER = '  producer:\n    brokers: ["localhost:9092"]\n'


def _secured(protocol: str, *more: str) -> tuple[tuple[str, str, str], ...]:
    lines = "".join(f"      {line}\n" for line in (f"protocol: {protocol}", *more))
    security = f"    security:\n{lines}"
    return (
        ("config.yaml", _CONSUMER, _CONSUMER + security),
        ("config.yaml", _PRODUCER, _PRODUCER + security),
    )


MISTAKES: dict[str, tuple[Mistake, ...]] = {
    "The command": (
        Mistake("No flow behind the module", "loom check shop -c config.yaml", Exit.USAGE),
        Mistake("A module that is not there", "loom check shpo:flow -c config.yaml", Exit.USAGE),
        Mistake("A flow that is not there", "loom check shop:flwo -c config.yaml", Exit.USAGE),
        Mistake("Something else than a flow", "loom check shop:price -c config.yaml", Exit.USAGE),
        Mistake("No flow at all", "loom check", Exit.USAGE),
        Mistake("A command that is not there", "loom chekc shop:flow", Exit.USAGE),
        Mistake("A file of input that is not there", f"{RUN} --source orders.jsonl --output priced", Exit.USAGE),
        Mistake("A number of processes that is none", f"{RUN} --processes 0", Exit.USAGE),
    ),
    "The module": (
        Mistake(
            "A syntax error",
            CHECK,
            Exit.FAILED,
            flow('    errors=IntoTopic("rejected"),\n)\n', '    errors=IntoTopic("rejected"),\n'),
        ),
        Mistake("An import that fails", CHECK, Exit.FAILED, flow("from loom.core", "import pandsa\nfrom loom.core")),
        Mistake("A name that is not imported", CHECK, Exit.FAILED, flow(", step\n", "\n")),
        Mistake(
            "A misspelled name of Loom",
            CHECK,
            Exit.FAILED,
            flow(_IMPORTS, "import FromTopic, IntoTopics, Process, StreamFlow, step"),
        ),
        Mistake(
            "A variable of the environment that is not set",
            CHECK,
            Exit.FAILED,
            flow("\n\nclass Order", '\nimport os\n\nREGION = os.environ["SHOP_REGION"]\n\n\nclass Order'),
        ),
        Mistake("An argument that a node does not have", CHECK, Exit.FAILED, flow("output=", "outputs=")),
        Mistake(
            "A limit that is not positive",
            CHECK,
            Exit.FAILED,
            (
                *flow(_IMPORTS, "import CollectBatch, ForEach, FromTopic, IntoTopic, Process, StreamFlow, step"),
                *flow("Process(price)", "Process(CollectBatch(0, timeout_ms=500), ForEach(), price)"),
            ),
        ),
    ),
    "The config": (
        Mistake("A config that is not there", "loom check shop:flow -c confg.yaml", Exit.CONFIG),
        Mistake("No valid YAML", CHECK, Exit.CONFIG, config("    group_id: shop", "    group_id: shop: eu")),
        Mistake("An unknown key", CHECK, Exit.CONFIG, config("group_id", "groupid")),
        Mistake("An unknown section", CHECK, Exit.CONFIG, config("kafka:", "kafak:")),
        Mistake("A key that is missing", CHECK, Exit.CONFIG, config(_GROUP, "")),
        Mistake("A value of the wrong type", CHECK, Exit.CONFIG, config(_GROUP, _GROUP + "    batch_size: many\n")),
        Mistake("A value that is not positive", CHECK, Exit.CONFIG, config(_EPOCH, "epoch_interval_ms: 0")),
        Mistake("A value that is none of the choices", CHECK, Exit.CONFIG, config("at_least_once", "at_leastonce")),
        Mistake(
            "A variable that is not set",
            CHECK,
            Exit.CONFIG,
            config("group_id: shop", "group_id: ${oc.env:SHOP_GROUP}"),
        ),
        Mistake(
            "Two options that contradict each other",
            CHECK,
            Exit.CONFIG,
            config(_AT_LEAST, _AT_LEAST + "    enable_auto_commit: true\n"),
        ),
        Mistake(
            "A property of the client that Loom sets",
            CHECK,
            Exit.CONFIG,
            config(_PRODUCER, _PRODUCER + "    extra: {acks: 1}\n"),
        ),
        Mistake("An engine that is not there", CHECK, Exit.CONFIG, config("  runtime:", "  engine: flink\n  runtime:")),
        Mistake(
            "A sink that nobody has registered",
            CHECK,
            Exit.CONFIG,
            config("  runtime:", "  sinks:\n    store: {type: postgres}\n  runtime:"),
        ),
        Mistake(
            "An extra that is not installed",
            CHECK,
            Exit.CONFIG,
            config("streaming:\n", "observability:\n  prometheus: {enabled: true}\nstreaming:\n"),
            beside="without prometheus_client",
        ),
    ),
    "The flow": (
        Mistake(
            "Two steps that do not fit",
            CHECK,
            Exit.COMPILATION,
            (
                *flow(
                    "\n\nflow = ",
                    "\n\n@step\ndef label(order: Order) -> Priced:\n    return Priced(order.id, 0)\n\n\nflow = ",
                ),
                *flow("Process(price)", "Process(price, label)"),
            ),
        ),
        Mistake(
            "A step whose result the output does not take",
            CHECK,
            Exit.COMPILATION,
            flow('"priced", payload=Priced', '"priced", payload=Order'),
        ),
        Mistake("A function that is not a step", CHECK, Exit.COMPILATION, flow("@step\n", "")),
        Mistake(
            "A step without types", CHECK, Exit.DONE, flow("def price(order: Order) -> Priced:", "def price(order):")
        ),
        Mistake("An async step outside `WithAsync`", CHECK, Exit.COMPILATION, flow("def price", "async def price")),
        Mistake(
            "A dependency that nobody gives",
            CHECK,
            Exit.COMPILATION,
            flow("price(order: Order)", "price(order: Order, rates: dict[str, int])"),
        ),
        Mistake(
            "A payload that cannot be decoded",
            CHECK,
            Exit.COMPILATION,
            flow("class Order(LoomFrozenStruct):", "class Order:"),
        ),
        Mistake("No output", CHECK, Exit.COMPILATION, flow(_OUTPUT, "")),
        Mistake(
            "Two outputs at the end",
            CHECK,
            Exit.COMPILATION,
            flow("Process(price)", 'Process(price, IntoTopic("copies", payload=Priced))'),
        ),
        Mistake(
            "A flow that reads what it writes",
            CHECK,
            Exit.COMPILATION,
            flow('IntoTopic("priced"', 'IntoTopic("orders"'),
        ),
        Mistake(
            "A field that the payload does not have",
            CHECK,
            Exit.COMPILATION,
            (
                *flow(_IMPORTS, "import FromTopic, IntoTopic, Process, Router, StreamFlow, payload, step"),
                *flow("Process(price)", 'Process(Router.by(payload.contry, {"ES": Process(price)}))'),
            ),
        ),
        Mistake(
            "Errors without a route",
            CHECK,
            Exit.DONE,
            flow('    errors=IntoTopic("rejected"),\n', ""),
            note="A warning: the first bad record stops the run.",
        ),
        Mistake(
            "Routes without a default",
            CHECK,
            Exit.DONE,
            (
                *flow(
                    _IMPORTS,
                    "import ErrorKind, ErrorRoute, FromTopic, IntoTopic, Process, Router, StreamFlow, payload, step",
                ),
                *flow("Process(price)", 'Process(Router.by(payload.country, {"ES": Process(price)}))'),
                *flow(
                    'errors=IntoTopic("rejected")',
                    'errors=ErrorRoute([ErrorKind.TASK, ErrorKind.WIRE], IntoTopic("rejected"))',
                ),
            ),
            note="A warning: the first country without a route stops the run. Give the router a `default`, or route its errors.",
        ),
        Mistake(
            "`exactly_once` with a sink that cannot keep it",
            CHECK,
            Exit.COMPILATION,
            (
                *config("at_least_once", "exactly_once"),
                *flow(
                    "\n\nflow = ",
                    "\n\nclass Lines:\n    def build_partition(self, *_):\n        ...\n\n\nflow = ",
                ),
                *flow("Process(price)", "Process(price, Lines())"),
                *flow(_OUTPUT, ""),
            ),
        ),
    ),
    "Brokers and topics": (
        Mistake("No broker at this address", RUN, Exit.ENVIRONMENT, beside="nobody"),
        Mistake("A host that is not there", RUN, Exit.ENVIRONMENT, config("localhost:9092", "kafka.invalid:9092")),
        Mistake("A port of something else", RUN, Exit.ENVIRONMENT, beside="web server"),
        Mistake("TLS to a port without TLS", RUN, Exit.ENVIRONMENT, _secured("SSL"), beside="broker"),
        Mistake("No TLS to a port with TLS", RUN, Exit.ENVIRONMENT, beside="tls"),
        Mistake("Topics that do not exist", RUN, Exit.ENVIRONMENT, beside="empty broker"),
        Mistake(
            "An output topic that does not exist", RUN, Exit.ENVIRONMENT, flow('"priced"', '"pirced"'), beside="broker"
        ),
        Mistake(
            "More processes than partitions",
            f"{RUN} --processes 5",
            Exit.CONFIG,
            beside="broker",
            note="Each process says so.",
        ),
        Mistake(
            "A wrong password",
            RUN,
            Exit.ENVIRONMENT,
            _secured("SASL_PLAINTEXT", "sasl_mechanism: PLAIN", "sasl_username: bob", "sasl_password: guessed"),
            beside="kafka",
        ),
        Mistake(
            "No permission",
            RUN,
            Exit.ENVIRONMENT,
            _secured("SASL_PLAINTEXT", "sasl_mechanism: PLAIN", "sasl_username: bob", "sasl_password: bob-secret"),
            beside="kafka",
        ),
        Mistake("A group that is in use", RUN, Exit.REPLACED, beside="kafka"),
    ),
    "While it runs": (
        Mistake(
            "A step that raises, without a route for its error",
            f"{RUN} --source orders.jsonl --output priced",
            Exit.FAILED,
            (
                *flow('    errors=IntoTopic("rejected"),\n', ""),
                *flow("order.amount * 100", "100 // order.amount"),
                ("orders.jsonl", "", '{"id": 1, "country": "ES", "amount": 0}\n'),
            ),
        ),
        Mistake(
            "A record that cannot be decoded, without a route for its error",
            f"{RUN} --source orders.jsonl --output priced",
            Exit.FAILED,
            (
                *flow('    errors=IntoTopic("rejected"),\n', ""),
                ("orders.jsonl", "", '{"id": 1, "country": "ES", "amount": "ten"}\n'),
            ),
        ),
        Mistake(
            "A step that returns something else than it says",
            f"{RUN} --source orders.jsonl --output priced",
            Exit.FAILED,
            (
                *flow('    errors=IntoTopic("rejected"),\n', ""),
                *flow("return Priced(order.id, order.amount * 100)", "return order.amount * 100"),
                ("orders.jsonl", "", '{"id": 1, "country": "ES", "amount": 7}\n'),
            ),
        ),
        Mistake(
            "A step that returns nothing",
            f"{RUN} --source orders.jsonl --output priced",
            Exit.FAILED,
            (
                *flow('    errors=IntoTopic("rejected"),\n', ""),
                *flow("return Priced(order.id, order.amount * 100)", "Priced(order.id, order.amount * 100)"),
                ("orders.jsonl", "", '{"id": 1, "country": "ES", "amount": 7}\n'),
            ),
        ),
    ),
}


def all_mistakes() -> dict[str, Mistake]:
    """Every mistake, by its title."""
    return {mistake.title: mistake for group in MISTAKES.values() for mistake in group}
