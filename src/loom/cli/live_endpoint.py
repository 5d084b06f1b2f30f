"""Where the processes of a flow tell what they do, and what they tell. Used by `loom top`."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from loom.cli.exit_codes import EndpointError, InputError
from loom.cli.load_flow import load_flow
from loom.cli.project import project_config, project_flow
from loom.core.config import ConfigContext, ConfigError, ConfigProblem
from loom.core.loopback import is_loopback
from loom.core.model import LoomFrozenStruct
from loom.core.observability.settings import ObservabilityConfig, PrometheusEndpoint
from loom.streaming.runtime.telemetry.live_document import VERSION, LiveDocument

__all__ = ["Answers", "Endpoints", "endpoints_of"]

_KEY = "observability.prometheus"
#: seconds that a process has to answer
_PATIENCE = 3.0
#: ports that are tried until a process says how many there are
_TRIED = 8
_MOST_BYTES = 64 * 1024 * 1024
#: `http://host:9100/…`, `host:9100`, `[::1]:9100`, `:9100` or `9100`
_ADDRESS = re.compile(r"https?://\S+|(?:\[[0-9a-fA-F:]+\]|[\w.-]*):\d{1,5}|\d{1,5}")


class Answers(LoomFrozenStruct):
    """What the processes have told, and the addresses that did not answer, with why."""

    documents: tuple[LiveDocument, ...]
    silent: tuple[tuple[str, str], ...]


class Endpoints:
    """The addresses to ask. `flow`: what must answer there; `port`: the first of several that belong together."""

    def __init__(self, addresses: Iterable[str], flow: str | None = None, first: tuple[str, int] | None = None) -> None:
        self._addresses = list(dict.fromkeys(addresses))
        self._flow = flow
        self._first = first

    def ask(self) -> Answers:
        """Ask all of them.

        Raises:
            EndpointError: if none answers, or something that is no flow, or another one.
        """
        self._find()
        documents, silent = [], []
        for address in self._addresses:
            try:
                documents.append(fetch(address))
            except EndpointError as error:
                silent.append((address, str(error)))
        if not documents:
            raise EndpointError("; ".join(why for _, why in silent))
        for told in documents:
            if self._flow is not None and told.flow != self._flow:
                raise EndpointError(
                    f"the flow at {self._addresses[0]} is {told.flow!r}, not {self._flow!r}; another flow has the port of its "
                    f"config, so look for `metrics_server_started` in the log of {self._flow!r}"
                )
        return Answers(tuple(documents), tuple(silent))

    def _find(self) -> None:
        """The processes of one machine count their ports up; one that answers says how many there are."""
        if self._addresses or self._first is None:
            return
        host, port = self._first
        for index in range(_TRIED):
            try:
                found = fetch(_url(host, port + index))
            except EndpointError:
                continue
            self._addresses = [_url(host, port + number) for number in range(found.process.of)]
            return
        raise EndpointError(
            f"nothing answers at {_url(host, port)} ({_KEY}.config of the config): the flow does not run here, or the port "
            "was taken; the log event metrics_server_started has the address"
        )


def endpoints_of(targets: Sequence[str], config: Path | None) -> Endpoints:
    """What `loom top` is to ask: addresses, or the flow whose config names them.

    Raises:
        InputError: for addresses beside a flow.
        ConfigError: if the config names no port.
    """
    addresses = [target for target in targets if _ADDRESS.fullmatch(target)]
    if addresses and len(addresses) == len(targets):
        return Endpoints([_normal(address) for address in addresses])
    if len(targets) > 1:
        raise InputError("loom top takes one flow, or addresses such as http://127.0.0.1:9100")
    flow = load_flow(project_flow(targets[0] if targets else None))
    settings = ConfigContext.from_yaml(project_config(config))
    return Endpoints([], flow.name, _first_of(settings))


def fetch(address: str) -> LiveDocument:
    """What a process tells.

    Raises:
        EndpointError: if nothing answers, or no flow of Loom.
    """
    try:
        with _opener(address).open(f"{address}/live.json", timeout=_PATIENCE) as answer:
            content = answer.read(_MOST_BYTES)
    except urllib.error.HTTPError as error:
        with error:
            raise EndpointError(f"what answers at {address} is no flow of Loom: {error.code} for /live.json") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise EndpointError(f"nothing answers at {address}: {reason}") from None
    try:
        found = msgspec.json.decode(content, type=LiveDocument)
    except msgspec.MsgspecError:
        raise EndpointError(f"what answers at {address} is no flow of Loom, or of another version of it") from None
    if found.version != VERSION:
        raise EndpointError(f"the flow at {address} runs on Loom {found.process.version}, which this one cannot read")
    return found


def _first_of(settings: ConfigContext) -> tuple[str, int]:
    """Where the first process of a flow listens."""
    section = settings.section_optional("observability", ObservabilityConfig)
    prometheus = section.prometheus if section is not None else None
    if prometheus is None or not prometheus.enabled:
        remedy = f"add {_KEY}: {{enabled: true}}, or give the address"
        raise ConfigError(
            [ConfigProblem(settings.file, _KEY, "is off, so the flow has no address to ask", remedy=remedy)]
        )
    endpoint = prometheus.config
    if endpoint.port == 0:
        remedy = "give the address, which the log event metrics_server_started has"
        raise ConfigError(
            [
                ConfigProblem(
                    settings.file, f"{_KEY}.config.port", "0 is any free port, which is not known", remedy=remedy
                )
            ]
        )
    return _reached(endpoint), endpoint.port


def _reached(endpoint: PrometheusEndpoint) -> str:
    """The host to ask where a process listens on this address."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(endpoint.bind_address, endpoint.bind_address)


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _normal(address: str) -> str:
    """A URL without the path of the document."""
    if address.isdigit():
        address = f":{address}"
    if not address.startswith(("http://", "https://")):
        address = f"http://127.0.0.1{address}" if address.startswith(":") else f"http://{address}"
    return address.removesuffix("/live.json").rstrip("/")


def _opener(address: str) -> urllib.request.OpenerDirector:
    """Asks a machine of one's own directly, whatever proxy there is for others."""
    direct = [urllib.request.ProxyHandler({})] if is_loopback(urlsplit(address).hostname or "") else []
    return urllib.request.build_opener(*direct)
