"""The inbound path: the firewall as it says itself, and the services as a client finds them from where the doctor runs."""

import datetime as dt
import smtplib
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from components.edge.bans import BANNED, MINUTES
from components.edge.client import Verb
from components.edge.desired import rule_set
from components.edge.differences import differences
from components.errors import UserError
from components.listeners import LISTENERS, SMTP, SUBMISSION, Listener
from components.settings.site import Site
from tools.commands.edge import sets
from tools.doctor.check import Area, Seen, blind, broken, degraded, ok, unused
from tools.doctor.dns import ask, resolver
from tools.doctor.patient import Patient, UnreachedError
from tools.pod import program

AREA = Area("edge", "the inbound path, as the firewall and a client see it")
SECONDS = 15.0  # postscreen keeps the greeting back for up to six
NO_GREETING = 12.0  # twice that: no greeting by then is a refusal
BANS_LATE = 3 * MINUTES  # two missed turns of the firewall's cron
RENEWED = 14.0  # days; certificates of 90 days are renewed with 30 left
NAME = "doctor.invalid"
SERVED = ("A", "AAAA")
inside = program("inside")
FORGED = "192.0.2.1"  # RFC 5737: no client has it


@AREA.check(
    "drift",
    expects="the firewall holds what the settings say",
    remedy="`make edge-plan` shows each line; `make up REFRESH=1` writes it",
    page="runbooks/edge.md",
)
def drift(patient: Patient) -> Iterator[Seen]:
    """What an apply would change on the firewall now, asked of the firewall itself."""
    if patient.firewall is None:
        yield unused("edge.access")
    for kind, answer in _answers(patient, "plan"):
        lines = differences(answer["before"], answer["after"])
        if lines or answer["changed"]:
            yield degraded(kind, f"{len(lines)} differences: {lines[0].strip()}" if lines else "correct but not active; reload it")
        else:
            yield ok(kind, "as declared")


@AREA.check(
    "servers",
    expects="HAProxy sees every server up",
    remedy="`make edge-health`; a node that is down needs its kube-proxy and its tunnel",
    page="runbooks/edge.md",
)
def servers(patient: Patient) -> Iterator[Seen]:
    """The state of each server in each pool, and what the firewall warns of: a foreign HAProxy, a rule that blocks ours."""
    if patient.firewall is None:
        yield unused("edge.access")
    for kind, answer in _answers(patient, "health"):
        for warning in answer["warnings"]:
            yield degraded(kind, warning)
        for pool, states in dict(answer["servers"] or {}).items():
            down = sorted(server for server, state in states.items() if not state.startswith("UP"))
            if not down:
                yield ok(pool, f"{len(states)} servers up")
            elif len(down) == len(states):
                yield broken(pool, "every server is down")
            else:
                yield degraded(pool, f"down: {', '.join(down)} of {len(states)}")


@AREA.check(
    "bans",
    expects="the table of banned addresses in pf is recent",
    remedy="`make edge-plan` first; then the alerts BanListRefused and BanListNotLoaded say which part stopped",
    page="runbooks/bans.md",
)
def bans(patient: Patient) -> Iterator[Seen]:
    """How many addresses the firewall refuses, and when their list was last found good, by the sign in pf's own table."""
    firewall = patient.firewall
    if isinstance(firewall, UserError):
        raise firewall
    if firewall is None or patient.site.edge.bans is None:
        yield unused("edge.bans")
        return
    table = firewall.call("health", "rules", rule_set(patient.site))["bans"]
    about, minutes = BANNED, (table["now"] - table["checked"]) / 60
    if not table["checked"]:
        yield degraded(about, "no list was ever loaded")
    elif minutes > BANS_LATE:
        yield degraded(about, f"{table['entries']} addresses, from a list of {minutes:.0f} minutes ago")
    else:
        yield ok(about, f"{table['entries']} addresses, checked {minutes:.0f} minutes ago")


def _answers(patient: Patient, verb: Verb) -> Iterator[tuple[str, dict[str, Any]]]:
    """The firewall's answer about each set; nothing where the site has no firewall. Raises UserError where it cannot be asked."""
    firewall = patient.firewall
    if isinstance(firewall, UserError):
        raise firewall
    if firewall is not None:
        yield from ((kind, firewall.call(verb, kind, wanted)) for kind, wanted in sets(patient.site))


def _addresses(patient: Patient) -> Iterator[tuple[str, str]]:
    """The mail hosts' names and public addresses."""
    site = patient.site
    internet = resolver(patient, patient.resolvers[0])
    for host in dict.fromkeys(site.host(domain) for domain in site.domains):
        yield from ((host, address) for kind in SERVED for address in sorted(ask(internet, host, kind)))


Say = Callable[[str, str], Seen]  # ok, degraded, broken or blind
Look = Callable[[Patient, Listener, str, str], tuple[Say, str]]  # at one service, host and address


@dataclass(frozen=True)
class _Sight:
    """What was seen of one service at one address, and whether the address took the connection at all."""

    listener: Listener
    host: str
    address: str
    seen: Seen
    reached: bool = True


def _each(patient: Patient, look: Look, failed: Say, *listeners: Listener) -> Iterator[Seen]:
    """What `look` sees at each service and address; a session that cannot be had is `failed`."""
    yield from (sight.seen for sight in _sights(patient, look, failed, list(_addresses(patient)), listeners))


def _sights(
    patient: Patient, look: Look, failed: Say, places: Sequence[tuple[str, str]], listeners: Sequence[Listener]
) -> Iterator[_Sight]:
    """As `_each`; all at once, because a silent address takes its time."""

    def one(listener: Listener, host: str, address: str) -> _Sight:
        about = f"{listener.name} {host} {'IPv6' if ':' in address else 'IPv4'}"
        try:
            seen, text = look(patient, listener, host, address)
            return _Sight(listener, host, address, seen(about, text))
        except ssl.SSLCertVerificationError as error:
            return _Sight(listener, host, address, failed(about, f"certificate: {error.verify_message}"))
        except UnreachedError as error:
            # Without an address of the family nothing leaves this machine: that says nothing about the service.
            seen = blind if error.no_family else failed
            return _Sight(listener, host, address, seen(about, str(error)), reached=False)
        except (OSError, smtplib.SMTPException, EOFError) as error:
            return _Sight(listener, host, address, failed(about, f"{type(error).__name__}: {error}"))

    wanted = [(listener, host, address) for host, address in places for listener in listeners]
    with ThreadPoolExecutor(max_workers=max(1, len(wanted))) as pool:
        yield from pool.map(lambda each: one(*each), wanted)


class Smtp(smtplib.SMTP):
    """A session with one address of a host, whose certificate is to carry the host's name."""

    def __init__(self, patient: Patient, host: str, address: str, port: int, wrap: ssl.SSLContext | None = None) -> None:
        self._patient = patient
        self._wrap = wrap
        self._name = host
        super().__init__(local_hostname=NAME, timeout=SECONDS)
        code, text = self.connect(address, port)
        if code != 220:
            raise smtplib.SMTPConnectError(code, text)
        self._host = host

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        plain = self._patient.connect(host, port, timeout)
        return self._wrap.wrap_socket(plain, server_hostname=self._name) if self._wrap else plain


def _session(patient: Patient, listener: Listener, host: str, address: str) -> Smtp:
    return Smtp(patient, host, address, listener.port, patient.tls() if listener.tls == "implicit" else None)


@AREA.check(
    "services",
    expects="every service greets, with a certificate that verifies and is not about to expire",
    remedy="a refused connection: `make edge-health`; a certificate: its issuer, then the Secret, then the pod",
    page="runbooks/edge.md",
)
def services(patient: Patient) -> Iterator[Seen]:
    """Greeting, TLS and days left of each service at its public name and address, from doctor.vantage or else from this machine.

    An address that takes no connection at all may only be out of reach from inside, so there the firewall's own address is tried.
    """
    sights = list(_sights(patient, _service, broken, list(_addresses(patient)), LISTENERS))
    for place in dict.fromkeys((sight.host, sight.address) for sight in sights):
        here = [sight for sight in sights if (sight.host, sight.address) == place]
        if patient.outside or any(sight.reached for sight in here):
            yield from (sight.seen for sight in here)
        else:
            yield from _from_inside(patient, here)


def _from_inside(patient: Patient, unreached: Sequence[_Sight]) -> Iterator[Seen]:
    """What the firewall's own address says of services whose public address takes no connection from here."""
    own = str(patient.site.edge.address)
    places = list(dict.fromkeys((sight.host, own) for sight in unreached))
    for sight, there in zip(unreached, _sights(patient, _service, broken, places, [sight.listener for sight in unreached]), strict=True):
        about, why = sight.seen.about, sight.seen.text
        if sight.seen.verdict != "broken" or sight.address == own:
            yield sight.seen
        elif there.reached:
            text = f"{there.seen.text} at {own}; {sight.address} is out of reach from inside ({why}), so set doctor.vantage"
            yield Seen(there.seen.verdict if there.seen.verdict != "ok" else "could not check", about, text)
        elif "refused" in there.seen.text.lower():
            yield broken(about, f"{why}; also at {own}")
        else:
            yield blind(about, f"neither {sight.address} nor {own} is in reach from here ({why})")


def _service(patient: Patient, listener: Listener, host: str, address: str) -> tuple[Say, str]:
    if listener.protocol == "imap":
        with (
            patient.connect(address, listener.port, SECONDS) as plain,
            patient.tls().wrap_socket(plain, server_hostname=host) as secure,
        ):
            certificate = secure.getpeercert()
            line = secure.makefile("rb").readline(1024)
            if not line.startswith(listener.greeting.encode()):
                return broken, f"greets with {line.decode('ascii', 'replace').strip()!r}"
    else:
        with _session(patient, listener, host, address) as session:
            if listener.tls == "starttls":
                session.starttls(context=patient.tls())
            assert isinstance(session.sock, ssl.SSLSocket)  # noqa: S101 - starttls raises otherwise
            certificate = session.sock.getpeercert()
    days = (ssl.cert_time_to_seconds(str((certificate or {})["notAfter"])) - time.time()) / 86400
    until = dt.datetime.fromtimestamp(time.time() + days * 86400, dt.UTC).date()
    text = f"greets, certificate until {until}"
    return (ok, text) if days > RENEWED else (degraded, f"{text}: {days:.0f} days left")


@AREA.check(
    "log-in-without-tls",
    expects="no log-in before TLS",
    remedy="smtpd_tls_auth_only and the listeners' options are ours: `make preview REFRESH=1`; then the extra lines of the settings",
    page="runbooks/edge.md",
)
def log_in_without_tls(patient: Patient) -> Iterator[Seen]:
    """Whether a service that begins in plain text offers a log-in before STARTTLS, which would send passwords readable."""

    def look(patient: Patient, listener: Listener, host: str, address: str) -> tuple[Say, str]:
        with _session(patient, listener, host, address) as session:
            session.ehlo()
            return (broken, "offers AUTH before TLS") if session.has_extn("auth") else (ok, "none offered")

    yield from _each(patient, look, blind, SMTP, SUBMISSION)


@AREA.check(
    "open-relay",
    expects="mail for others is refused without a log-in",
    remedy="stop the edge (`make edge-flip-back` if the old one is sound) and look for extra lines of main.cf in the settings",
    page="runbooks/edge.md",
)
def open_relay(patient: Patient) -> Iterator[Seen]:
    """A recipient elsewhere, without a log-in; nothing is sent."""

    def look(patient: Patient, listener: Listener, host: str, address: str) -> tuple[Say, str]:
        with _session(patient, listener, host, address) as session:
            if listener.tls == "starttls":
                session.starttls(context=patient.tls())
            session.ehlo()
            verdict, text = inside.relaying(session)
            return {"ok": ok, "broken": broken, "could not check": blind}[verdict], text

    yield from _each(patient, look, blind, *(listener for listener in LISTENERS if listener.protocol == "smtp"))


@AREA.check(
    "forged-client",
    expects="a PROXY header from this machine is refused",
    remedy="list only the firewall's addresses as senders of PROXY headers (network policy of the mail server); this machine is not one",
    page="runbooks/edge.md",
)
def forged_client(patient: Patient) -> Iterator[Seen]:
    """A connection straight to a node's PROXY port with a header that claims another client's address."""
    for about, greeting in _greetings(patient.site, _header):
        yield broken(about, f"believes a forged client address: {greeting}") if greeting else ok(about, "refused")


@AREA.check(
    "no-header",
    expects="a PROXY port does not greet without a header",
    remedy="`make preview REFRESH=1` shows what changed the listeners; extra lines of master.cf or Dovecot may have",
    page="runbooks/edge.md",
)
def no_header(patient: Patient) -> Iterator[Seen]:
    """A connection straight to a node's PROXY port without any header; a greeting would mean that the client's address is lost."""
    for about, greeting in _greetings(patient.site, lambda _: b""):
        yield broken(about, f"greets without a header: {greeting}") if greeting else ok(about, "refused")


def _greetings(site: Site, header: Callable[[str], bytes]) -> Iterator[tuple[str, str]]:
    """What the PROXY port of 25 answers to a header at each node; all nodes at once, because silence takes its time."""
    (port,) = [listener.node_port for listener in site.listeners if listener.name == SMTP.name]
    nodes = {name: str(node.address) for name, node in sorted(site.cluster.nodes.items()) if node.state != "out"}
    with ThreadPoolExecutor(max_workers=max(1, len(nodes))) as pool:
        answers = pool.map(lambda address: _greeting(address, port, header(address)), nodes.values())
    yield from ((f"{name} {port}", greeting) for name, greeting in zip(nodes, answers, strict=True))


def _header(address: str) -> bytes:
    """PROXY protocol 2.0, section 2.2: a TCP connection from FORGED, or its IPv6 form, to `address`."""
    target: IPv4Address | IPv6Address = ip_address(address)
    source = ip_address(FORGED if target.version == 4 else "2001:db8::1")
    body = source.packed + target.packed + struct.pack("!HH", 40000, SMTP.port)
    return b"\r\n\r\n\0\r\nQUIT\n" + bytes([0x21, 0x11 if target.version == 4 else 0x21]) + struct.pack("!H", len(body)) + body


def _greeting(address: str, port: int, header: bytes) -> str:
    """The greeting; nothing where the connection is refused, closed, silent, or answered by something else than a mail server."""
    try:
        with socket.create_connection((address, port), NO_GREETING) as connection:
            connection.settimeout(NO_GREETING)
            connection.sendall(header)
            line = connection.recv(512).partition(b"\r")[0].decode("ascii", "replace")
            return line if line.startswith(SMTP.greeting) else ""
    except OSError:
        return ""


# What a client sees, from anywhere: what an `up` looks at once it has written the redirects.
CLIENT = (services, log_in_without_tls, open_relay)
