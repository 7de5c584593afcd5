"""Checks a list of attackers and hands it to the firewall, so that no list can ban our own networks or the whole Internet.

It fetches the list every minute, from CrowdSec's mirror in the same pod or from any URL. A list with anything else than addresses and
networks, with one of our own, with more than it may have, or none at all, is refused: the last good one is served on, and metrics and
log say why.

What it serves begins with a sign, an address of the documentation prefix whose last 32 bits say when the list was checked. So a table in
the firewall is never empty (pfSense would drop its rule), and shows its age.
"""

import argparse
import errno
import http.client
import http.server
import ipaddress
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field

from common import Metrics, ProblemError, push, reason, terminate_cleanly

HEALTH = "/healthy"
LINE = 64  # bytes; an address with a comment behind it is shorter
# Broader networks than these are no attackers; and all of a family may hold no more than a sixteenth of it (IPv6: of 2000::/3).
BROADEST = {4: 8, 6: 19}
SHARE = {4: 2**32 // 16, 6: 2**125 // 16}
NO_DECISIONS = b"no decisions available"  # what CrowdSec's mirror says with status 404 when no address is banned
TIMEOUT = 20  # seconds without a byte
LONGEST = 60  # seconds for a whole list: one that trickles in would hold up all later ones

Net = ipaddress.IPv4Network | ipaddress.IPv6Network


def entries(text: str, own: list[Net], limit: int) -> list[str]:
    """The networks of a list in plain text, one a line, comments behind `#` or `;`. Raises ProblemError."""
    found: dict[Net, None] = {}
    for number, line in enumerate(text.splitlines(), 1):
        word = line.replace(";", "#").partition("#")[0].strip()
        if word:
            found[_entry(number, word, own)] = None
            if len(found) > limit:
                raise ProblemError(f"has more than {limit} entries")
    for version, share in SHARE.items():
        if sum(network.num_addresses for network in found if network.version == version) > share:
            raise ProblemError(f"covers more than a sixteenth of all IPv{version} addresses")
    return [str(network.network_address) if network.num_addresses == 1 else str(network) for network in found]


def _entry(number: int, word: str, own: list[Net]) -> Net:
    try:
        network = ipaddress.ip_network(word.replace("%", " "), strict=False)  # behind a % a zone may be any text
    except ValueError:
        raise ProblemError(f"line {number} is not an address or a network: {word[:LINE]!r}") from None
    if isinstance(network, ipaddress.IPv6Network) and (inner := network.network_address.ipv4_mapped):
        raise ProblemError(f"line {number}: {word} is an IPv4 address in IPv6 form; write {inner}")
    if network.prefixlen < BROADEST[network.version]:
        raise ProblemError(f"line {number}: {word} is too broad")
    for mine in own:
        if network.version == mine.version and network.overlaps(mine):
            raise ProblemError(f"line {number}: {word} is in {mine}, which must never be banned")
    return network


class _AsItIs(urllib.request.HTTPErrorProcessor):
    """Every answer is returned: a redirect is not followed, because its target could be plain HTTP or a host inside the cluster."""

    def http_response(self, request: urllib.request.Request, response: http.client.HTTPResponse) -> http.client.HTTPResponse:
        return response

    https_response = http_response


def fetch(url: str, limit: int) -> str:
    """The list's text. Raises ProblemError when it cannot be had as a whole."""
    status, body = _answer(url, limit * LINE)
    if status == http.HTTPStatus.NOT_FOUND and body.startswith(NO_DECISIONS):
        return ""
    if status != http.HTTPStatus.OK:
        hint = "; redirects are not followed, name the list's own URL" if 300 <= status < 400 else ""
        raise ProblemError(f"cannot be fetched: status {status}{hint}")
    if len(body) > limit * LINE:
        raise ProblemError(f"is longer than {limit} entries can be")
    return body.decode("ascii", "replace")


def _answer(url: str, most: int) -> tuple[int, bytes]:
    """Status and body, which is cut off somewhere behind `most` bytes. Raises ProblemError."""
    request = urllib.request.Request(url, headers={"User-Agent": "mailserver-bans"})  # noqa: S310 - the settings name it
    body = bytearray()
    signal.signal(signal.SIGALRM, _too_slow)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        with urllib.request.build_opener(_AsItIs).open(request, timeout=TIMEOUT) as answer:
            # A `read(most)` would take a transfer that broke off for the whole, and is unlimited where a chunk's size is negative.
            while len(body) <= most and (piece := answer.read1(2**16)):
                body += piece
            if answer.length and len(body) <= most:
                raise http.client.IncompleteRead(b"")
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) and isinstance(error.reason, OSError) else error
        raise ProblemError(f"cannot be fetched: {reason(cause)}") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return answer.status, bytes(body)


def _too_slow(*_: object) -> None:
    raise TimeoutError(errno.ETIMEDOUT, f"took more than {LONGEST} seconds")


@dataclass
class Served:
    """The last good list and when it was checked, what is wrong with a newer one, when the firewall last took it (Unix times; 0: never)."""

    networks: list[str] = field(default_factory=list)
    checked: int = 0
    problem: str = ""
    taken: int = 0
    was_empty: bool = False

    def look(self, options: argparse.Namespace) -> None:
        """Fetch and check the list once."""
        try:
            networks = self._fetched(options)
        except ProblemError as problem:
            if str(problem) != self.problem:
                print(f"the list {problem}; the last one stays: {len(self.networks)} entries", file=sys.stderr)
            self.problem = str(problem)
            return
        if networks != self.networks or self.problem or not self.checked:
            print(f"the list is good: {len(networks)} entries")
        self.networks, self.checked, self.problem = networks, int(time.time()), ""

    def _fetched(self, options: argparse.Namespace) -> list[str]:
        """An empty list counts if it is CrowdSec's and seen twice in a row: its mirror has none before the first answer, however late."""
        was_empty, self.was_empty = self.was_empty, False
        networks = entries(fetch(options.url, options.limit), options.own, options.limit)
        self.was_empty = not networks
        if not networks:
            if not (options.lapi and was_empty):
                raise ProblemError("is empty")
            try:
                _answer(f"{options.lapi}/health", LINE)
            except ProblemError as problem:
                raise ProblemError(f"is empty, and CrowdSec's API {problem}") from None
        return networks

    def text(self, sign: str) -> str:
        return "".join(f"{line}\n" for line in (ipaddress.ip_address(sign) + self.checked, *self.networks))

    def metrics(self) -> Metrics:
        metrics = Metrics()
        metrics.set("mail_bans_refused", bool(self.problem), "Whether the newest list is not usable, so that an earlier one is served")
        metrics.set("mail_bans_taken_timestamp_seconds", self.taken, "When the firewall last fetched the list")
        return metrics


def server(served: Served, options: argparse.Namespace) -> http.server.ThreadingHTTPServer:
    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = TIMEOUT

        def do_GET(self) -> None:
            if self.path == HEALTH:
                self._answer(200, "alive\n")
            elif self.path != options.path:
                self._answer(404, "no such list\n")
            elif not served.checked:
                self._answer(503, "no list yet\n")  # the firewall keeps its own
            else:
                served.taken = int(time.time())
                self._answer(200, served.text(options.sign))

        def _answer(self, status: int, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the firewall and the probes ask every few seconds."""

    return http.server.ThreadingHTTPServer(("", options.port), Handler)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="where the list is")
    parser.add_argument("--lapi", help="CrowdSec's local API; while it answers, an empty list means that no address is banned")
    parser.add_argument("--own", action="append", required=True, type=ipaddress.ip_network, help="a network that is never banned")
    parser.add_argument("--limit", type=int, required=True, help="entries that a list may have")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True, help="path at which the firewall fetches the list")
    parser.add_argument("--sign", required=True, help="first address of the prefix that the sign is of")
    parser.add_argument("--interval", type=float, default=60, help="seconds between two looks at the list")
    parser.add_argument("--job", required=True, help="group in the Pushgateway")
    parser.add_argument("--pushgateway")
    options = parser.parse_args(arguments)
    options.own.append(ipaddress.ip_network((options.sign, 96)))  # an entry there would be taken for a sign
    return options


def main() -> int:
    options = parse()
    signal.signal(signal.SIGTERM, terminate_cleanly)
    served = Served()
    listening = server(served, options)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    while True:
        served.look(options)
        push(options.pushgateway, options.job, served.metrics(), replace=True)
        time.sleep(options.interval)


if __name__ == "__main__":
    sys.exit(main())
