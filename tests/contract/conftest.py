"""A firewall per test, with a site that fits it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from components.edge.desired import haproxy_set
from components.settings.site import Site
from tests.contract.standin import StandIn, missing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = missing()
    for item in items:
        if Path(__file__).parent in item.path.parents and reason and "firewall" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def make_firewall(tmp_path: Path) -> Iterator[Callable[..., StandIn]]:
    made: list[StandIn] = []

    def make(**options: Any) -> StandIn:
        made.append(StandIn(tmp_path / f"fw{len(made)}", **options))
        return made[-1]

    yield make
    for one in reversed(made):
        one.stop()


@pytest.fixture
def firewall(make_firewall: Callable[..., StandIn]) -> StandIn:
    return make_firewall()


@pytest.fixture
def edge_site(firewall: StandIn, site: Callable[..., Site]) -> Callable[..., Site]:
    """The production site on the stand-in's addresses, with settings changed by path."""

    def make(changes: dict[str, Any] | None = None) -> Site:
        nodes = {f"node{number}": {"address": node.address} for number, node in enumerate(firewall.nodes, 1)}
        return site(
            "prod",
            {
                "cluster/nodes": nodes,
                "edge": {"address": firewall.address, "ssh": {"user": "root", "host_key": firewall.host_key}},
                **(changes or {}),
            },
        )

    return make


@pytest.fixture
def wanted(edge_site):
    return haproxy_set(edge_site())


@pytest.fixture
def applied(firewall, wanted):
    firewall.client().call("apply", "haproxy", wanted)
    return wanted
