"""A site's firewall as a reader sees it: what it should hold, and what an empty one would be given."""

import json
from collections.abc import Iterator

from rich.console import Console

from components.edge.agent import agent_digest
from components.edge.desired import haproxy_set, rule_set
from components.edge.differences import differences
from components.edge.haproxy_cfg import haproxy_cfg
from components.settings.site import Site


def edge_artefacts(site: Site) -> Iterator[tuple[str, str]]:
    """Path and text: what the firewall should hold, and the configuration that its HAProxy package makes of it."""
    wanted = {"agent": agent_digest(), "haproxy": haproxy_set(site), "rules": rule_set(site)}
    yield "edge/haproxy.json", json.dumps(wanted, indent=2) + "\n"
    yield "edge/haproxy.cfg", haproxy_cfg(haproxy_set(site))


def edge_summary(site: Site, console: Console) -> None:
    """The plan against a firewall that holds nothing yet."""
    console.print("firewall, if it were empty:", markup=False)
    for wanted in (haproxy_set(site), rule_set(site)):
        for line in differences({}, wanted):
            console.print(f"  {line}", markup=False, soft_wrap=True)
