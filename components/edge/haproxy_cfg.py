"""HAProxy's configuration as pfSense's package writes it: what the render shows and the lab runs."""

from collections.abc import Iterator

from components.edge.desired import Frontend, HaproxySet, Pool

# The package's own head of the file, less what belongs to the firewall (user, chroot, socket, saved server states).
_GLOBAL = """global
\tmaxconn\t\t\t{maxconn}
\tnbthread\t\t\t1
\thard-stop-after\t\t15m
"""


def haproxy_cfg(desired: HaproxySet, *, maxconn: int = 1000, with_global: bool = True) -> str:
    """The text that the package generates for our pools and frontends, as on a firewall that holds nothing else.

    `with_global` adds a `global` section, so that HAProxy starts from it. What differs from the firewall's file: the parts of
    that section that name its user, chroot and socket, and `load-server-state-from-file`, which needs the socket.
    """
    blocks = [_GLOBAL.format(maxconn=maxconn)] if with_global else []
    blocks += ["\n".join(_frontend(name, frontend)) + "\n" for name, frontend in desired["frontends"].items()]
    used = dict.fromkeys(frontend["pool"] for frontend in desired["frontends"].values())
    blocks += ["\n".join(_backend(name, desired["pools"][name])) + "\n" for name in used]
    return "\n".join(blocks)


def backend_name(pool: str) -> str:
    """The package's name in statistics and logs for a pool that serves both families."""
    return f"{pool}_ipvANY"


def _frontend(name: str, frontend: Frontend) -> Iterator[str]:
    yield f"frontend {name}"
    for bind in frontend["binds"]:
        endpoint, _, options = bind.partition(" ")
        address = endpoint.replace("[", "").replace("]", "")  # the package writes IPv6 without brackets; the port follows the last colon
        yield f"\tbind\t\t\t{address} name {address}   {options.strip('()')}".rstrip()
    yield f"\tmode\t\t\t{frontend['type']}"
    yield "\tlog\t\t\tglobal"
    yield f"\ttimeout client\t\t{frontend['client_timeout']}"
    yield f"\tdefault_backend {backend_name(frontend['pool'])}"


def _backend(name: str, pool: Pool) -> Iterator[str]:
    yield f"backend {backend_name(name)}"
    yield "\tmode\t\t\ttcp"
    yield "\tlog\t\t\tglobal"
    yield f"\tbalance\t\t\t{pool['balance']}"
    yield f"\ttimeout connect\t\t{pool['connection_timeout']}"
    yield f"\ttimeout server\t\t{pool['server_timeout']}"
    yield f"\tretries\t\t\t{pool['retries']}"
    for line in pool["advanced_backend"].split("\n"):
        yield f"\t{line}"
    for server, entry in pool["servers"].items():
        state = "" if entry["status"] == "active" else entry["status"]
        yield (
            f"\tserver\t\t\t{server} {entry['address']}:{entry['port']} check inter {pool['checkinter']} {state} weight {entry['weight']}"
            f" {entry['advanced']}"
        )
