"""What the page of alerts tells the owner of a second MX, with the real blackbox exporter and a real postscreen."""

import shutil
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path

import pytest
import yaml

from tests.lab.support import Log
from tests.lab.watch import fetch, running, until
from tests.unit.monitoring.test_second_mx import MODULES, SCRAPE
from tools.lab.edge import Lab
from tools.lab.paths import SENDER
from tools.lab.servers import free_port

EXPORTER = "prometheus-blackbox-exporter"
pytestmark = [
    pytest.mark.skipif(shutil.which(EXPORTER) is None, reason=f"needs {EXPORTER}"),
    pytest.mark.once("a second MX is another machine"),
]


Probe = Callable[..., bool]


@pytest.fixture
def probe(lab: Lab, tmp_path: Path) -> Iterator[Probe]:
    """Whether the exporter, asked as Prometheus would ask it, finds a host's port 25 well; `hasty`: it talks before the greeting."""
    (name,) = SCRAPE[0]["params"]["module"]
    config = tmp_path / "blackbox.yaml"
    with ExitStack() as stack, lab.outside():
        address = f"127.0.0.1:{free_port()}"
        config.write_text("modules: {}")
        exporter = stack.enter_context(running(EXPORTER, f"--config.file={config}", f"--web.listen-address={address}"))
        until(lambda: fetch(f"http://{address}/-/healthy"), exporter)

        def ask(host: str, *, hasty: bool = False) -> bool:
            module = deepcopy(MODULES["modules"][name])
            module["tcp"]["source_ip_address"] = lab.client()  # one that postscreen has not met
            if hasty:
                module["tcp"]["query_response"].reverse()
            config.write_text(yaml.safe_dump({"modules": {name: module}}))
            urllib.request.urlopen(urllib.request.Request(f"http://{address}/-/reload", method="POST")).close()
            query = urllib.parse.urlencode({"module": name, "target": f"{host}:25"})
            return "\nprobe_success 1\n" in fetch(f"http://{address}{SCRAPE[0]['metrics_path']}?{query}")

        yield ask


def test_a_server_that_greets_is_up_and_one_that_does_not_is_down(lab: Lab, probe: Probe) -> None:
    assert probe(SENDER)
    lab.sender.stop()
    try:
        assert not probe(SENDER)
    finally:
        lab.sender.start()


def test_it_waits_for_postscreens_greeting(lab: Lab, probe: Probe, log: Log) -> None:
    ours = str(lab.site.edge.address)
    assert probe(ours)
    log.line("PASS NEW")
    assert not log.lines("PREGREET")
    probe(ours, hasty=True)
    assert log.line("PREGREET"), "one that talks first is noticed"
