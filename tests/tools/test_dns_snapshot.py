"""The snapshot of other people's DNS, taken from a real server on loopback."""

import socket
import threading
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import pytest

from components.checks.dns.resolver import Snapshot, read_snapshot, write_snapshot
from components.checks.dns.verify import verify
from components.settings.site import Site
from tools.commands.dns_snapshot import look

TODAY = date(2026, 11, 21)
INTERNET = {
    ("spf.brevo.com.", "TXT"): ['"v=spf1 include:deep.example.net ~all"'],
    ("deep.example.net.", "TXT"): ['"v=spf1 ip4:192.0.2.0/24 ~all"'],
    ("viktorbarzin.me._report._dmarc.inbox.ondmarc.com.", "TXT"): ['"v=DMARC1"'],
    ("inbox.ondmarc.com.", "MX"): ["10 mx.example.net."],
}


class Server(threading.Thread):
    """Answers over UDP from INTERNET; what is not there is NXDOMAIN, what is in `broken` is SERVFAIL."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.broken: set[str] = set()
        self.asked: list[str] = []

    def run(self) -> None:
        while True:
            packet, client = self.socket.recvfrom(4096)
            if not packet:
                return
            query = dns.message.from_wire(packet)
            question = query.question[0]
            name, kind = question.name.to_text(), dns.rdatatype.to_text(question.rdtype)
            self.asked.append(name)
            answer = dns.message.make_response(query)
            answer.flags |= dns.flags.RA
            if name in self.broken:
                answer.set_rcode(dns.rcode.SERVFAIL)
            elif (name, kind) in INTERNET:
                answer.answer.append(dns.rrset.from_text_list(name, 300, "IN", kind, INTERNET[name, kind]))
            else:
                answer.set_rcode(dns.rcode.NXDOMAIN)
            self.socket.sendto(answer.to_wire(), client)


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    running.start()
    yield running
    running.socket.sendto(b"", ("127.0.0.1", running.port))
    running.join(5)
    running.socket.close()


def resolver(server: Server) -> dns.resolver.Resolver:
    made = dns.resolver.Resolver(configure=False)
    made.nameservers, made.port, made.lifetime = ["127.0.0.1"], server.port, 2
    return made


def test_after_a_look_nothing_is_unknown(server: Server, site: Callable[..., Site], tmp_path: Path):
    snapshot, failed = look([site("dev"), site("prod")], resolver(server), TODAY)
    assert failed == []
    assert snapshot.names["deep.example.net"] == {"TXT": ('"v=spf1 ip4:192.0.2.0/24 ~all"',)}, "named by an include only"
    assert snapshot.names["*._report._dmarc.inbox.ondmarc.com"] == {"TXT": ()}, "what is not there is known too"
    write_snapshot(snapshot, tmp_path / "dns" / "snapshot.json")
    again = read_snapshot(tmp_path / "dns" / "snapshot.json")
    assert again == snapshot
    assert not any(finding.code == "snapshot.unknown-names" for finding in verify(site("prod"), again, TODAY))


def test_a_failing_server_does_not_mean_absence(server: Server, site: Callable[..., Site]):
    server.broken = {"spf.brevo.com."}
    snapshot, failed = look([site("prod")], resolver(server), TODAY)
    assert "spf.brevo.com" not in snapshot.names
    assert len(failed) == 1
    assert failed[0].startswith("spf.brevo.com TXT: ")


def test_our_own_names_are_not_asked_for(server: Server, site: Callable[..., Site]):
    look([site("dev"), site("prod")], resolver(server), TODAY)
    assert server.asked
    assert not [name for name in server.asked if name.endswith((".viktorbarzin.me.", ".example.org."))]


def test_no_file_is_an_empty_snapshot_and_a_broken_one_is_refused(tmp_path: Path):
    assert read_snapshot(tmp_path / "none.json") == Snapshot()
    broken = tmp_path / "broken.json"
    broken.write_text('{"taken": "soon"}')
    with pytest.raises(ValueError, match="taken"):
        read_snapshot(broken)
