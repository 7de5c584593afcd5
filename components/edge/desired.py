"""What the firewall should hold, from the table and the settings: HAProxy's pools and frontends, redirects, pass rules, bans, aliases.

Shapes are those of the agent (scripts/pfsense/agent.php), keyed by the names that an administrator sees in the firewall's web
interface. Every value is text, as in its config.xml; times are milliseconds.
"""

from dataclasses import dataclass
from typing import TypedDict

from components.edge.bans import ALIASES, LOAD, Alias, Ban, CronJob, ban_aliases, ban_jobs, ban_rule_names, ban_rules
from components.listeners import LISTENERS, SMTP, TEST_FRONTEND, TEST_POOL, TEST_PORT, Listener
from components.settings.cluster import Node
from components.settings.site import Site

ALIAS = "mailserver"

CHECK_INTERVAL = 2000
CONNECT_TIMEOUT = 1000
WEIGHT = 10
# The best row of a failover measurement with a dead and a black-holed node: no failed connection, at most 1 s slower.
BACKEND_LINES = "option redispatch 1\ntimeout check 1s"
RETRIES = 3


class Server(TypedDict):
    address: str
    port: str
    status: str
    weight: str
    advanced: str


class Pool(TypedDict):
    check_type: str
    checkinter: str
    balance: str
    connection_timeout: str
    server_timeout: str
    retries: str
    advanced: str
    advanced_backend: str
    transparent_clientip: str
    servers: dict[str, Server]


class Frontend(TypedDict):
    binds: list[str]
    descr: str
    status: str
    type: str
    secondary: str
    pool: str
    client_timeout: str
    advanced: str
    advanced_bind: str


class HaproxySet(TypedDict):
    """`owned` are all names that are ours: one that is no longer declared is removed, and nothing else is changed.

    `node_ports` are those that each service has open on the nodes: the pair in use (mail, checks), then the previous pair if any.
    """

    pools: dict[str, Pool]
    frontends: dict[str, Frontend]
    owned: dict[str, list[str]]
    node_ports: dict[str, list[str]]


class Rule(TypedDict):
    """Matches traffic from `source` to `destination` and `port` that arrives on `interface`.

    `blocked_by` is the rule in front of it that blocks what it passes; none should.
    """

    interface: str
    ipprotocol: str
    protocol: str
    source: str
    destination: str
    port: str
    disabled: str
    blocked_by: str
    descr: str


class Redirect(Rule):
    """A redirect and its pass rule; `pass_rule` is what the latter lets through."""

    target: str
    local_port: str
    pass_rule: str


class PassRule(Rule):
    type: str


class Service(TypedDict):
    """A mail service at an address; `banner` is how its first line begins."""

    address: str
    port: str
    tls: str
    banner: str


class Gate(Service):
    """What must answer through HAProxy before a redirect may point to it."""

    pool: str


class RuleSet(TypedDict):
    """`gates` by frontend; `legacy` are the services that should answer at the legacy address, while there is one; `cron` by command."""

    redirects: dict[str, Redirect]
    passes: dict[str, PassRule]
    bans: dict[str, Ban]
    cron: dict[str, CronJob]
    aliases: dict[str, Alias]
    absent_aliases: list[str]
    gates: dict[str, Gate]
    legacy: dict[str, Service]
    owned: dict[str, list[str]]


@dataclass(frozen=True)
class _Path:
    """One frontend with its pool; the test pair is a second path to the SMTP service."""

    frontend: str
    pool: str
    port: int
    listener: Listener
    descr: str


def haproxy_set(site: Site) -> HaproxySet:
    """Pools and frontends of this site."""
    paths = _paths(site)
    return {
        "pools": {path.pool: _pool(site, path.listener) for path in paths},
        "frontends": {path.frontend: _frontend(site, path) for path in paths},
        "owned": {
            "pools": sorted([*(listener.pool for listener in LISTENERS), TEST_POOL]),
            "frontends": sorted([*(listener.frontend for listener in LISTENERS), TEST_FRONTEND]),
        },
        "node_ports": {listener.name: _node_ports(site, listener) for listener in site.listeners},
    }


def rule_set(site: Site) -> RuleSet:
    """Redirects, pass rules, bans and aliases of this site."""
    edge = site.edge
    to_haproxy = edge.target == "haproxy"
    target = str(edge.address) if to_haproxy else ALIAS
    redirects = {_redirect_name(listener): _redirect(site, listener, target) for listener in site.listeners}
    passes: dict[str, PassRule] = {}
    if edge.ipv6_address is not None:
        passes = {_pass_name(listener): _pass(site, listener, str(edge.ipv6_address)) for listener in site.listeners}
    aliases = ban_aliases(site)
    if edge.legacy is not None:
        address, descr = str(edge.legacy.address), "mail server, legacy LoadBalancer"
        aliases[ALIAS] = {"type": "host", "address": address, "url": "", "updatefreq": "", "descr": descr}
    return {
        "redirects": redirects,
        "passes": passes,
        "bans": ban_rules(site, target),
        "cron": ban_jobs(site),
        "aliases": aliases,
        "absent_aliases": [*([ALIAS] if edge.remove_legacy_alias else []), *(name for name in ALIASES if name not in aliases)],
        "gates": {listener.frontend: _gate(str(edge.address), listener) for listener in site.listeners} if to_haproxy else {},
        "legacy": {listener.name: _service(str(edge.legacy.address), listener) for listener in site.listeners} if edge.legacy else {},
        "owned": {
            "redirects": [_redirect_name(listener) for listener in LISTENERS],
            "passes": [_pass_name(listener) for listener in LISTENERS],
            "bans": ban_rule_names(),
            "cron": [LOAD],
        },
    }


def _redirect_name(listener: Listener) -> str:
    return f"mailserver {listener.name}"


def _pass_name(listener: Listener) -> str:
    return f"mailserver {listener.name} (IPv6)"


def _endpoint(address: str, port: int) -> str:
    """`10.0.20.1:25` or `[2001:db8::1]:25`."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _redirect(site: Site, listener: Listener, target: str) -> Redirect:
    return {
        **_rule(site.edge.wan_interface, "inet", str(site.edge.wan_address), listener, _redirect_name(listener)),
        "target": target,
        "local_port": str(listener.port),
        "pass_rule": _endpoint(target, listener.port),
    }


def _pass(site: Site, listener: Listener, address: str) -> PassRule:
    interface = site.edge.ipv6_interface or site.edge.wan_interface
    return {"type": "pass", **_rule(interface, "inet6", address, listener, _pass_name(listener))}


def _rule(interface: str, family: str, destination: str, listener: Listener, descr: str) -> Rule:
    return {
        "interface": interface,
        "ipprotocol": family,
        "protocol": "tcp",
        "source": "any",
        "destination": destination,
        "port": str(listener.port),
        "disabled": "",
        "blocked_by": "",
        "descr": descr,
    }


def _gate(address: str, listener: Listener) -> Gate:
    return {"pool": listener.pool, **_service(address, listener)}


def _service(address: str, listener: Listener) -> Service:
    return {
        "address": address,
        "port": str(listener.port),
        "tls": "yes" if listener.tls == "implicit" else "",
        "banner": listener.greeting,
    }


def _paths(site: Site) -> list[_Path]:
    paths = [
        _Path(listener.frontend, listener.pool, listener.port, listener, f"{listener.name}, real client address by PROXY v2")
        for listener in site.listeners
    ]
    if site.edge.test_frontend:
        smtp = next(listener for listener in site.listeners if listener.name == SMTP.name)
        paths.append(_Path(TEST_FRONTEND, TEST_POOL, TEST_PORT, smtp, "smtp beside the live path, for testing"))
    return paths


def _pool(site: Site, listener: Listener) -> Pool:
    return {
        "check_type": "Basic",  # a TCP connection; an SMTP dialogue flaps against postscreen
        "checkinter": str(CHECK_INTERVAL),
        "balance": "roundrobin",
        "connection_timeout": str(CONNECT_TIMEOUT),
        "server_timeout": _idle(listener),
        "retries": str(RETRIES),
        "advanced": "",  # appended to every server: a `check-send-proxy` there would kill submission
        "advanced_backend": BACKEND_LINES,
        "transparent_clientip": "",
        "servers": {name: _server(node, listener) for name, node in site.cluster.nodes.items()},
    }


def _server(node: Node, listener: Listener) -> Server:
    return {
        "address": str(node.address),
        "port": str(listener.node_port),
        "status": "disabled" if node.state == "out" else "active",
        "weight": "0" if node.state == "drain" else str(WEIGHT),  # no new connections; checks and open connections continue
        # `port` sends checks, without a PROXY header, to the stock listener; on a PROXY listener each check would kill an smtpd.
        "advanced": f"send-proxy-v2 port {listener.health_node_port} fall 2 rise 2",
    }


def _node_ports(site: Site, listener: Listener) -> list[str]:
    previous = site.cluster.previous_node_ports(listener.name) or ()
    return [str(port) for port in (listener.node_port, listener.health_node_port, *previous)]


def _frontend(site: Site, path: _Path) -> Frontend:
    binds = [_endpoint(str(site.edge.address), path.port)]
    if site.edge.ipv6_address is not None:
        binds.append(_endpoint(str(site.edge.ipv6_address), path.port) + (" (transparent)" if site.edge.ipv6_transparent else ""))
    return {
        "binds": binds,
        "descr": path.descr,
        "status": "active",
        "type": "tcp",
        "secondary": "",
        "pool": path.pool,
        "client_timeout": _idle(path.listener),
        "advanced": "",
        "advanced_bind": "",
    }


def _idle(listener: Listener) -> str:
    return str(int(listener.idle.total_seconds() * 1000))
