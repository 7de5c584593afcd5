"""scripts/pod/bans.py: what a list may ban, what it never may, and what the firewall is given meanwhile."""

import http.server
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address

import pytest

from components.edge.bans import SIGN
from tools.pod import program

bans = program("bans")
OWN = ("10.0.0.0/8", "203.0.113.25/32", "2001:db8:25::2/128")


class Source:
    """A list's origin on loopback."""

    def __init__(self) -> None:
        self.pieces: Iterable[bytes] = ()
        self.hung_up_on = threading.Event()
        source = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                try:
                    for piece in source.pieces:
                        self.wfile.write(piece)
                except OSError:
                    source.hung_up_on.set()

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/list"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def say(self, text: str, status: int = 200) -> None:
        self.pieces = (f"HTTP/1.0 {status} -\r\nContent-Length: {len(text.encode())}\r\n\r\n{text}".encode(),)


@pytest.fixture
def source():
    source = Source()
    yield source
    source.server.shutdown()
    source.server.server_close()


@pytest.fixture
def options(source):
    own = [word for network in OWN for word in ("--own", network)]
    words = ["--url", source.url, "--limit", "3", "--port", "0", "--path", "/banned", "--sign", SIGN, "--job", "mail-bans", *own]
    return bans.parse(words)


@pytest.fixture
def served(source, options):
    """One that has a good list."""
    served = bans.Served()
    source.say("198.51.100.7\n")
    served.look(options)
    assert served.networks == ["198.51.100.7"]
    return served


def test_addresses_networks_and_comments_of_both_families(source, options):
    served = bans.Served()
    source.say("# a list\n198.51.100.7 ; since yesterday\n\n198.51.100.9/32\r\n2001:db9::/48 # a network\n198.51.100.7\n")
    served.look(options)
    assert served.networks == ["198.51.100.7", "198.51.100.9", "2001:db9::/48"]
    assert served.problem == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0.0.0.0/0", "too broad"),
        ("::/0", "too broad"),
        ("198.0.0.0/7", "too broad"),
        ("10.1.2.3", "10.0.0.0/8, which must never be banned"),
        ("203.0.113.0/24", "203.0.113.25/32, which must never be banned"),
        ("2001:db8:25::/64", "2001:db8:25::2/128, which must never be banned"),
        ("::ffff:10.1.2.3", "IPv4 address in IPv6 form"),
        ("::ffff:a01:203", "IPv4 address in IPv6 form"),
        ("010.1.2.3", "line 1 is not an address"),
        ("0xa010203", "line 1 is not an address"),
        ("167838211", "line 1 is not an address"),
        ("10.1.2.3/255.255.255.255", "10.0.0.0/8, which must never be banned"),
        ("2001:db9::1%$(reboot)", "line 1 is not an address"),
        ("2001:db8::7fff:ffff", "2001:db8::/96, which must never be banned"),
        ("20.0.0.0/8\n30.0.0.0/8\n2001:db9::1\n40.0.0.0/8", "more than 3 entries"),
        ("\n".join(f"{first}.0.0.0/8" for first in range(20, 37)), "sixteenth of all IPv4"),
        ("\n".join(f"{IPv6Address((0x2400 << 112) + (number << 109))}/19" for number in range(2**12 + 1)), "sixteenth of all IPv6"),
        ("198.51.100.8\nmail.example.org", "line 2 is not an address"),
        ("<html><body>Log in</body></html>", "line 1 is not an address"),
        ("198.51.100.8 198.51.100.9", "line 1 is not an address"),
        ("", "is empty"),
        ("# nothing but a remark\n", "is empty"),
        ("198.51.100.8 " + "x" * 300, "longer than"),
    ],
)
def test_a_list_that_must_not_be_loaded_leaves_the_last_one(source, options, served, text, why, capsys):
    if "sixteenth" in why:
        options.limit = 5000
    checked = served.checked
    source.say(f"198.51.100.6\n{text}" if text and "broad" in why else text)
    served.look(options)
    assert why in served.problem
    assert (served.networks, served.checked) == (["198.51.100.7"], checked)
    assert "mail_bans_refused 1" in served.metrics().text()
    assert "the last one stays: 1 entries" in capsys.readouterr().err
    source.say("198.51.100.8\n")
    served.look(options)
    assert (served.networks, served.problem) == (["198.51.100.8"], "")


def test_a_source_that_is_gone_leaves_the_last_list(source, options, served):
    for status, text in ((500, "198.51.100.8"), (404, "not found"), (403, "access denied")):
        source.say(text, status)
        served.look(options)
        assert f"status {status}" in served.problem
    source.server.shutdown()
    source.server.server_close()
    served.look(options)
    assert "cannot be fetched: Connection refused" in served.problem
    assert served.networks == ["198.51.100.7"]


@pytest.fixture
def lapi(options):
    """CrowdSec's own API, which answers."""
    lapi = Source()
    lapi.say("")
    options.lapi = lapi.url
    yield lapi
    lapi.server.shutdown()
    lapi.server.server_close()


def test_a_mirror_that_waits_for_crowdsec_has_no_decisions_and_is_not_believed(source, options, served, lapi):
    """The real one says so as long as its first request hangs."""
    lapi.pieces = ()
    source.say("no decisions available\n", 404)
    for _ in range(3):
        served.look(options)
        assert served.networks == ["198.51.100.7"]
    assert "is empty, and CrowdSec's API cannot be fetched" in served.problem
    lapi.say("")
    served.look(options)
    assert (served.networks, served.problem) == ([], "")


@pytest.mark.usefixtures("lapi")
def test_crowdsecs_mirror_says_that_no_address_is_banned_and_is_believed_the_second_time(source, options, served):
    """It says so too in the seconds before it has heard of any decision."""
    source.say("no decisions available\n", 404)
    served.look(options)
    assert served.networks == ["198.51.100.7"]
    served.look(options)
    assert (served.networks, served.problem) == ([], "")
    source.say("198.51.100.8\n")
    served.look(options)
    for text, status in (("no decisions available\n", 404), ("", 503), ("no decisions available\n", 404)):
        source.say(text, status)
        served.look(options)
        assert served.networks == ["198.51.100.8"], "not twice in a row"


def test_another_list_is_not_emptied_by_a_404_of_those_words(source, options, served):
    source.say("no decisions available\n", 404)
    served.look(options)
    served.look(options)
    assert served.networks == ["198.51.100.7"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("200 OK\r\nContent-Length: 13\r\n\r\n198.51.100.7", "IncompleteRead"),
        ("200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n198.51.100.8\n", "cannot be fetched"),
        ("404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n50\r\nno deci", "IncompleteRead"),
    ],
    ids=["broken off", "a negative chunk", "an error page that is broken off"],
)
def test_an_answer_that_is_not_whole_leaves_the_last_list(source, options, served, answer, why):
    source.pieces = (f"HTTP/1.1 {answer}".encode(),)
    served.look(options)
    assert why in served.problem
    assert served.networks == ["198.51.100.7"]


def test_a_redirect_is_not_followed(source, options, served):
    """It would fetch an HTTPS list over plain HTTP, or ask what only the pod can reach."""
    other = Source()
    other.say("198.51.100.8\n")
    source.pieces = (f"HTTP/1.0 302 Found\r\nLocation: {other.url}\r\nContent-Length: 0\r\n\r\n".encode(),)
    served.look(options)
    other.server.shutdown()
    other.server.server_close()
    assert "status 302; redirects are not followed" in served.problem
    assert served.networks == ["198.51.100.7"]


@pytest.mark.parametrize("framing", ["", "Transfer-Encoding: chunked\r\n"])
def test_an_endless_answer_is_cut_off(source, options, served, framing):
    """Python reads a chunk of size -1 to the end, whatever it was told to read at most."""
    head = f"HTTP/1.1 200 OK\r\n{framing}\r\n{'-1' if framing else ''}\r\n".encode()
    source.pieces = (head, *(b"198.51.100.8\n" * 100_000,) * 30)
    served.look(options)
    assert "longer than" in served.problem
    assert source.hung_up_on.wait(10)


@pytest.mark.parametrize("head", [b"HTTP/1.0 200 OK\r\nX: ", b"HTTP/1.0 200 OK\r\n\r\n198.51.100.8\n#"], ids=["headers", "body"])
def test_an_answer_that_trickles_in_is_given_up(source, options, served, head, monkeypatch):
    monkeypatch.setattr(bans, "LONGEST", 0.1)
    source.pieces = (time.sleep(0.02) or piece for piece in (head, *(b"x",) * 100))
    served.look(options)
    assert "took more than 0.1 seconds" in served.problem
    assert served.networks == ["198.51.100.7"]


def ask(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_what_the_firewall_is_given(source, options):
    served = bans.Served()
    with bans.server(served, options) as listening:
        threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
        port = listening.server_port
        try:
            assert ask(port, "/healthy")[0] == 200
            assert ask(port, "/banned")[0] == 503, "an empty answer would be loaded"
            assert served.taken == 0
            source.say("198.51.100.7\n2001:db9::/48\n")
            served.look(options)
            status, text = ask(port, "/banned")
            sign, *rest = text.splitlines()
            assert (status, rest) == (200, ["198.51.100.7", "2001:db9::/48"])
            assert int(ip_address(sign)) - int(ip_address(SIGN)) == served.checked
            assert served.taken >= served.checked
            assert ask(port, "/other")[0] == 404
        finally:
            listening.shutdown()
