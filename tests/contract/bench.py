"""Benchmark of the agent: what items of others on the firewall cost a plan. `python -m tests.contract.bench`; exit code 1 when over."""

import copy
import json
import statistics
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

from components.checks.registry import read_site
from components.edge.desired import haproxy_set
from components.settings.site import KEY
from tests.contract.helpers import frontend_item, pool_item
from tests.contract.standin import StandIn, missing
from tools.offline.stackfile import ROOT, load_stack

FOREIGN = 200  # half of them frontends, half pools
ROUNDS = 5
BOUND = 2


def plan_ratio() -> float:
    """Time of a plan among foreign items over the same plan among a handful."""
    with tempfile.TemporaryDirectory() as folder:
        firewall = StandIn(Path(folder) / "firewall")
        try:
            site = json.loads(load_stack(ROOT, "prod").config[KEY])
            site["cluster"]["nodes"] = {f"node{number}": {"address": node.address} for number, node in enumerate(firewall.nodes, 1)}
            site["edge"] = {"address": firewall.address}
            wanted = haproxy_set(read_site(json.dumps(site)))
            client = firewall.client()
            client.call("apply", "haproxy", wanted)

            def took() -> float:
                begun = time.perf_counter()
                client.call("plan", "haproxy", wanted)
                return time.perf_counter() - begun

            few = [took() for _ in range(ROUNDS)]
            firewall.edit(_crowd)
            firewall.boot()
            return statistics.median(took() for _ in range(ROUNDS)) / statistics.median(few)
        finally:
            firewall.stop()


def _crowd(root: ET.Element) -> None:
    haproxy = root.find("installedpackages/haproxy")
    assert haproxy is not None
    for number in range(FOREIGN // 2):
        frontend = copy.deepcopy(frontend_item(root, "internal_https_443"))
        pool = copy.deepcopy(pool_item(root, "traefik"))
        for item, path, text in (
            (frontend, "name", f"site{number}"),
            (frontend, "a_extaddr/item/extaddr_port", f"{20000 + number}"),
            (frontend, "backend_serverpool", f"pool{number}"),
            (pool, "name", f"pool{number}"),
            (pool, "id", f"{200 + number}"),
        ):
            part = item.find(path)
            assert part is not None, path
            part.text = text
        haproxy.find("ha_backends").append(frontend)
        haproxy.find("ha_pools").append(pool)


if __name__ == "__main__":
    if reason := missing():
        sys.exit(f"not measured: {reason}")
    ratio = plan_ratio()
    print(f"a plan among {FOREIGN} items of others / among a handful: {ratio:.2f}x, bound {BOUND}x")
    sys.exit(ratio > BOUND)
