"""From CrowdSec's mirror by the program that the pod runs, as rendered, to pf's table. A stand-in answers as the real mirror does."""

import http.server
import shutil
import threading

import pytest

from components.bans.pod import MIRROR_LIST, MIRROR_PORT, command
from components.edge.bans import LOAD
from components.edge.desired import haproxy_set, rule_set
from components.mail.component import POD_SCRIPTS
from tests.contract.standin import wait
from tests.contract.test_bans import ATTACKER, BYSTANDER, PORTS, RELAY, lets_in, table

pytestmark = pytest.mark.contract
BANS = {"crowdsec": {"lapi": "http://crowdsec:8080"}, "allow": [f"{RELAY}/32"]}


class Mirror:
    """cs-blocklist-mirror 0.0.5 (pkg/server, pkg/formatters): a value a line, and 404 with a sentence when there is no decision."""

    def __init__(self) -> None:
        self.decisions: list[str] = []
        self.asked = 0
        mirror = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                text = "".join(f"{value}\n" for value in mirror.decisions) or "no decisions available\n"
                self.send_response(200 if mirror.decisions and self.path == MIRROR_LIST else 404)
                self.end_headers()
                self.wfile.write(text.encode())
                mirror.asked += 1

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", MIRROR_PORT), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def mirror(firewall):
    mirror = Mirror()
    yield mirror
    mirror.server.shutdown()
    mirror.server.server_close()


def test_a_decision_is_refused_at_the_firewall_until_it_ends(firewall, edge_site, mirror):
    site = edge_site({"edge/bans": BANS, "jobs/pushgateway": None})
    (firewall.root / "scripts").mkdir()
    for script in ("bans.py", "common.py"):
        shutil.copy(POD_SCRIPTS / script, firewall.root / "scripts")
    firewall.spawn("bans", *command(site, site.edge.bans), "--interval", "0.2", "--port", str(site.edge.bans.node_port))
    wait(lambda: firewall.answers(firewall.nodes[0].address, site.edge.bans.node_port))
    mirror.decisions = [ATTACKER, "2001:db9::/48"]
    seen(mirror)
    firewall.client().call("apply", "haproxy", haproxy_set(site))
    assert firewall.client().call("apply", "rules", rule_set(site))["warnings"] == []
    assert [lets_in(firewall, ATTACKER, port) for port in PORTS] == [False] * 4
    assert [lets_in(firewall, BYSTANDER, port) for port in PORTS] == [True] * 4

    for wrong in ("0.0.0.0/0", RELAY, firewall.address, "10.10.3.4", "2001:470:6e:43d::2"):
        mirror.decisions = [BYSTANDER, wrong]
        seen(mirror)
        firewall.shell(LOAD)
        assert table(firewall, "mailserver_banned")[1:] == [ATTACKER, "2001:db9::/48"], wrong
    assert all(lets_in(firewall, own, "25") for own in (RELAY, "10.10.3.4", BYSTANDER))

    mirror.decisions = []
    seen(mirror)
    firewall.shell(LOAD)
    assert all(lets_in(firewall, ATTACKER, port) for port in PORTS)


def seen(mirror: Mirror) -> None:
    """The program has looked twice at what the mirror says now, and is done with the first two answers."""
    before = mirror.asked
    wait(lambda: mirror.asked >= before + 4, 30)
