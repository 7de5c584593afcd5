"""What becomes of mail in the pod: its envelope rewriter, its signing keys, its relay, and what its log complains of."""

import base64
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from components.mail.files import SRS_PORT, SRS_RECIPIENT_PORT
from components.mail.rspamd import dkim_key_path
from components.monitoring.log_alerts import OWN_ADDRESS
from components.monitoring.rules import LOKI
from components.names import CONTAINER, MAIL_SERVER
from components.settings.site import Site
from tools.cluster import answer
from tools.doctor import relay_login
from tools.doctor import reverse_names as reverse_lookup
from tools.doctor.check import Seen, blind, broken, degraded, ok, unused
from tools.doctor.dns import ask, resolver
from tools.doctor.mail import AREA, listening
from tools.doctor.patient import Patient

PUBLIC_ED25519 = 32  # bytes at the end of its DER form; RFC 8463 publishes them alone
_OWN = re.compile(OWN_ADDRESS)
# A client that was let in by its name, and one that was refused for it.
_SENDER = re.compile(r"(?:: client=(?!unknown\[)\S+?|cannot find your (?:reverse )?hostname, )\[([0-9a-f.:]+)\](?!.*sasl_username=)")
_QUERY = re.compile(r"sum(?: by \(\w+\) )?\(count_over_time\(\{[^}]*\} (.*) \[(\d+)([mh])\]\)\) > (\d+)")
_FILTER = re.compile(r"\|([=~]) `([^`]*)`")


@AREA.check(
    "srs",
    expects="postsrsd answers where envelope senders are rewritten",
    remedy="without it Postfix defers all mail (451): the pod's log says why it ended; restart the pod",
    page="runbooks/deploy.md",
)
def srs(patient: Patient) -> Iterator[Seen]:
    """The two ports of postsrsd, as the pod's kernel lists them."""
    if not patient.site.srs:
        yield unused("mail.srs")
        return
    missing = [port for port in (SRS_PORT, SRS_RECIPIENT_PORT) if port not in listening(patient)]
    yield broken("postsrsd", f"nothing listens on {', '.join(map(str, missing))}") if missing else ok("postsrsd", "listens")


@AREA.check(
    "dkim",
    expects="the key that signs is the one that is published",
    remedy="publish the key of the Secret, or put the published one's private half into it (docs/runbooks/dkim-rotation.md)",
    page="runbooks/dkim-rotation.md",
)
def dkim(patient: Patient) -> Iterator[Seen]:
    """The public half of each signing key in the pod, against the record that receivers read. The private half stays in the pod."""
    internet = resolver(patient, patient.resolvers[0])
    for domain, entry in patient.site.domains.items():
        for key in entry.signing_keys:
            about = f"{key.selector}._domainkey.{domain}"
            pem = answer(patient.inside("openssl", "pkey", "-in", dkim_key_path(domain, key), "-pubout"))
            ours = "".join(line for line in pem.splitlines() if not line.startswith("-"))
            published = {tag: value for text in ask(internet, about, "TXT") for tag, value in _tags(text)}
            there = "".join(published.get("p", "").split())
            if not there:
                yield broken(about, "no key is published" if "p" not in published else "the published key is revoked (p=)")
            elif there in {ours, _short_ed25519(ours)}:
                yield ok(about, "is the signing key")
            else:
                yield broken(about, f"publishes {there[-16:]}, mail is signed with {ours[-16:]}: every signature fails")


def _tags(text: str) -> Iterator[tuple[str, str]]:
    yield from ((tag.strip(), value.strip()) for tag, sign, value in (part.partition("=") for part in text.split(";")) if sign)


def _short_ed25519(key: str) -> str:
    return base64.b64encode(base64.b64decode(key)[-PUBLIC_ED25519:]).decode()


@AREA.check(
    "relay",
    expects="the relay takes our log-in",
    remedy="a refused log-in: the relay's account, then mail.relay.credentials in the store; no TLS: the relay's certificate",
    page="runbooks/deploy.md",
)
def relay(patient: Patient) -> Iterator[Seen]:
    """A log-in at the relay from the pod, with the pod's own password, which does not leave it; nothing is sent."""
    relay = patient.site.mail.relay
    if relay is None:
        yield unused("mail.relay")
        return
    # The image has Python, but not this project.
    said = patient.inside("python3", "-c", Path(relay_login.__file__).read_text("utf-8"), relay.host, str(relay.port))
    try:
        verdict, text = json.loads(said.stdout)
    except ValueError:
        yield blind(relay.next_hop, f"the pod could not try: {(said.stderr.strip().splitlines() or ['no words'])[-1]}")
        return
    yield (ok if verdict == "ok" else broken)(relay.next_hop, text)


@dataclass(frozen=True)
class Pattern:
    """An alert on log lines: lines that match all filters within a span, and how many of them are still fine."""

    filters: tuple[re.Pattern[str], ...]
    span: timedelta
    bound: int

    def lines(self, log: Sequence[tuple[datetime, str]], now: datetime) -> list[str]:
        return [line for when, line in log if now - when <= self.span and all(each.search(line) for each in self.filters)]


def pattern(query: str) -> Pattern | None:
    """What an alert's LogQL counts, for a log that is read here; None for a query of another form."""
    match = _QUERY.fullmatch(query)
    if match is None:
        return None
    filters = (re.compile(text if kind == "~" else re.escape(text)) for kind, text in _FILTER.findall(match[1]))
    span = timedelta(**{"m": {"minutes": int(match[2])}, "h": {"hours": int(match[2])}}[match[3]])
    return Pattern(tuple(filters), span, int(match[4]))


def log_lines(text: str) -> list[tuple[datetime, str]]:
    """Lines of `kubectl logs --timestamps`; a line without a time was not the container's."""
    found = []
    for line in text.splitlines():
        when, _, rest = line.partition(" ")
        try:
            found.append((datetime.fromisoformat(_six_digits(when)).astimezone(UTC), rest))
        except ValueError:
            continue
    return found


def _log(patient: Patient) -> list[tuple[datetime, str]]:
    """The mail server's lines of the last day."""
    place = ("--namespace", patient.site.namespace, f"deployment/{MAIL_SERVER}", "--container", CONTAINER)
    return log_lines(answer(patient.kubectl("logs", *place, "--since", "24h", "--timestamps")))


def _six_digits(when: str) -> str:
    """Kubernetes writes nanoseconds."""
    return re.sub(r"(\.\d{6})\d+", r"\1", when)


@AREA.check(
    "reverse-names",
    expects="every host of your own that sends to port 25 has a name that points back, as the pod sees it",
    remedy="a PTR record and its address in the resolver that the pod asks, or a log-in of the host on port 587",
    page="runbooks/alerts.md#internalhostcannotsendmail",
)
def reverse_names(patient: Patient) -> Iterator[Seen]:
    """The private addresses that sent without a log-in within a day, or were refused for their name, looked up in the pod now."""
    if not patient.site.mail.require_reverse_name:
        yield unused("mail.require_reverse_name")
        return
    senders = sorted({match[1] for _, line in _log(patient) if (match := _SENDER.search(line)) and _OWN.search(f"[{match[1]}]")})
    if not senders:
        yield ok("internal senders", "none within a day")
        return
    names = json.loads(answer(patient.inside("python3", "-c", Path(reverse_lookup.__file__).read_text("utf-8"), *senders)))
    for address, (name, fault) in names.items():
        yield degraded(address, f"{fault}; its mail is refused") if fault else ok(address, name)


@AREA.check(
    "log",
    expects="no line that an alert waits for",
    remedy="docs/runbooks/alerts.md has a section for each name",
    page="runbooks/alerts.md",
)
def log(patient: Patient) -> Iterator[Seen]:
    """The mail server's log of the last day, with the patterns and the spans of the alerts on log lines; the relay's quota is one."""
    site, lines, now = patient.site, _log(patient), datetime.now(UTC)
    for name, severity, counted in _patterns(site):
        if len(found := counted.lines(lines, now)) > counted.bound:
            text = f"{len(found)} lines in {counted.span.total_seconds() / 3600:g} h, the last: {found[-1][:200]}"
            yield (broken if severity == "critical" else degraded)(name, text)


def _patterns(site: Site) -> Iterator[tuple[str, str, Pattern]]:
    for alerts in LOKI.values():
        for alert in alerts:
            if (query := alert.query(site)) and (counted := pattern(query)):
                yield alert.name, alert.severity, counted
