"""Reads what other mail servers report about us: DMARC (RFC 7489, 9990, 9991) and TLS (RFC 8460), with parsedmarc.

Files each message of INBOX, reports into one folder and all else into another, takes reports out of Junk, and sums up what arrived in the
last days. Anyone can send such a message: each is parsed in a process of its own, under limits of memory and time, and no word of a
reporter becomes a label. Nothing is deleted.
The password comes from REPORTS_PASSWORD. Ends with 0 when the mailbox was read and that was reported.
"""

import argparse
import imaplib
import ipaddress
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import dns.exception
import dns.resolver
import parsedmarc
import parsedmarc.utils
from common import Imap, Metrics, ProblemError, push, reason, terminate_cleanly
from parsedmarc.config import ParserConfig

READ, UNREAD = "Reports", "Reports-unreadable"
NEW, KNOWN = 1000, 2000  # messages of one run: the oldest new ones, and the newest filed ones
LARGEST, EXPANDED = 10 * 2**20, 8 * 2**20  # bytes of a message, and of the report that is packed in it
MEMORY, SECONDS = 512 * 2**20, 30  # of address space and of time, for one message; less than the pod's, which would end with it
SOURCES = 40  # of a domain that get a label of their own
TOGETHER = "other"
OFFLINE = ParserConfig(offline=True, always_use_local_files=True)  # no name of a sender is looked up or told to anyone

DISPOSITIONS = {"none", "quarantine", "reject", "pass"}
POLICIES = {"sts", "tlsa", "no-policy-found"}
# RFC 8460 section 4.3.
RESULTS = {
    *("starttls-not-supported", "certificate-host-mismatch", "certificate-expired", "certificate-not-trusted", "validation-failure"),
    *("tlsa-invalid", "dnssec-invalid", "dane-required", "sts-policy-fetch-error", "sts-policy-invalid", "sts-webpki-invalid"),
}
FAILURES = {"adsp", "bodyhash", "dkim", "dmarc", "dns", "revoked", "signature", "spf"}  # RFC 6591 section 3.1, RFC 9991


@dataclass
class Report:
    """What one report says: its kind, what makes it the same as another, and its counts by labels."""

    kind: str
    identity: tuple[str, ...]
    counts: Counter[tuple[str, ...]] = field(default_factory=Counter)


@dataclass(frozen=True)
class Ours:
    """Who we are: domains, and by domain the networks that may send for it; `sources` are networks' owners that are known too."""

    domains: tuple[str, ...]
    networks: dict[str, tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]]
    sources: frozenset[str]

    def domain(self, name: str) -> str | None:
        """Our domain that `name` is or is below."""
        name = str(name).lower().rstrip(".")
        return next((domain for domain in self.domains if name == domain or name.endswith(f".{domain}")), None)

    def known(self, domain: str, address: str, owner: str) -> bool:
        host = ipaddress.ip_address(address)
        return owner in self.sources or any(host in network for network in self.networks[domain])


# --- one message -------------------------------------------------------------------------------------------------------------------


def parse(text: bytes, ours: Ours) -> Report | None:
    """None for what is not a report about us, and for what breaks the parser's limits."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_parse, args=(sender, text, ours))
    child.start()
    sender.close()
    try:
        return receiver.recv() if receiver.poll(SECONDS) else None
    except EOFError:
        return None
    finally:
        child.kill()
        child.join()
        receiver.close()


def _parse(sender: Connection, text: bytes, ours: Ours) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # a traceback would quote the message
    parsedmarc.MAX_DECOMPRESSED_REPORT_SIZE = EXPANDED
    try:
        found: Any = parsedmarc.parse_report_email(text, config=OFFLINE)
        read = {"aggregate": _aggregate, "failure": _failure, "smtp_tls": _tls}[found["report_type"]]
        sender.send(read(found["report"], ours))
    except (parsedmarc.ParserError, KeyError, TypeError, ValueError, AttributeError, MemoryError, RecursionError):
        sender.send(None)


def _aggregate(report: dict[str, Any], ours: Ours) -> Report | None:
    published, about = report["policy_published"]["domain"], report["report_metadata"]
    if (domain := ours.domain(published)) is None:
        return None
    found = Report("aggregate", (str(about["org_name"]), str(about["report_id"]), str(published)))
    for record in report["records"]:
        source, aligned = record["source"], record["alignment"]
        owner = str(source["as_domain"] or "unknown")
        labels = (
            domain,
            owner,
            "true" if ours.known(domain, source["ip_address"], owner) else "false",
            " and ".join(name for name in ("dkim", "spf") if aligned[name]) or "none",
            _among(DISPOSITIONS, record["policy_evaluated"]["disposition"]),
        )
        found.counts[labels] += max(int(record["count"]), 0)
    return found


def _failure(report: dict[str, Any], ours: Ours) -> Report | None:
    if (domain := ours.domain(report["reported_domain"])) is None:
        return None
    found = Report("failure", (str(report["arrival_date_utc"]), str(report["source"]["ip_address"]), str(report["original_mail_from"])))
    for why in set(report["auth_failure"]):
        found.counts[(domain, _among(FAILURES, why))] += 1
    return found


def _tls(report: dict[str, Any], ours: Ours) -> Report | None:
    found = Report("tls", (str(report["organization_name"]), str(report["report_id"])))
    for policy in report["policies"]:
        if (domain := ours.domain(policy["policy_domain"])) is None:
            continue
        kind = _among(POLICIES, policy["policy_type"])
        found.counts[(domain, kind, "success")] += max(int(policy["successful_session_count"]), 0)
        failed = max(int(policy["failed_session_count"]), 0)
        for detail in policy.get("failure_details") or ():
            sessions = max(int(detail["failed_session_count"]), 0)
            failed -= sessions
            found.counts[(domain, kind, _among(RESULTS, detail["result_type"]))] += sessions
        if failed > 0:  # counted, and not explained
            found.counts[(domain, kind, TOGETHER)] += failed
    return found if found.counts else None


def _among(words: set[str], word: object) -> str:
    return word if isinstance(word, str) and word in words else TOGETHER


# --- who we are --------------------------------------------------------------------------------------------------------------------


def permitted(resolver: dns.resolver.Resolver, domain: str, asked: set[str]) -> Iterator[str]:
    """Networks that may send for a domain by its SPF record, followed as far as a receiver does (RFC 7208 section 4.6.4).

    What names no network (`exists`, `ptr`, macros) is left out. `asked` grows by what was followed.
    """
    for text in _texts(resolver, domain):
        for term in text.lower().split()[1:] if text.lower().startswith("v=spf1 ") else ():
            name, _, value = term.lstrip("+").replace("=", ":", 1).partition(":")
            value = value or domain
            if name in {"ip4", "ip6"}:
                yield value
            elif (
                name in {"include", "redirect", "a", "mx"} and "%" not in term and "/" not in term and term not in asked and len(asked) < 10
            ):
                asked.add(term)
                yield from permitted(resolver, value, asked) if name in {"include", "redirect"} else _hosts(resolver, value, name)


def _texts(resolver: dns.resolver.Resolver, name: str) -> list[str]:
    return [b"".join(data.strings).decode("ascii", "replace") for data in _lookup(resolver, name, "TXT")]


def _hosts(resolver: dns.resolver.Resolver, name: str, mechanism: str) -> Iterator[str]:
    names = [data.exchange.to_text() for data in _lookup(resolver, name, "MX")] if mechanism == "mx" else [name]
    for host in names:
        for kind in ("A", "AAAA"):
            yield from (data.to_text() for data in _lookup(resolver, host, kind))


def _lookup(resolver: dns.resolver.Resolver, name: str, kind: str) -> list[Any]:
    try:
        return list(resolver.resolve(name, kind, search=False))
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return []
    except dns.exception.DNSException:
        raise ProblemError(f"the DNS does not answer for {name} {kind}, so it is unknown who may send for us") from None


# --- the mailbox -------------------------------------------------------------------------------------------------------------------


class Mailbox(Imap):
    """The reports' mailbox; every refusal is a ProblemError."""

    def enter(self, folder: str, *, needed: bool = True) -> bool:
        if self.select(folder)[0] == "OK":
            return True
        if needed:
            raise ProblemError(f"there is no folder {folder}")
        return False

    def text(self, uid: str) -> bytes | None:
        """A message, unless it is too large or was deleted meanwhile."""
        found = [part for part in self.ask("FETCH", uid, f"(BODY.PEEK[]<0.{LARGEST + 1}>)") if isinstance(part, tuple)]
        return found[0][1] if found and len(found[0][1]) <= LARGEST else None

    def file_new(self, ours: Ours) -> None:
        for folder in (READ, UNREAD):
            self.create(folder)  # refused where it is there already
            self.subscribe(folder)
        self.enter("INBOX")
        for uid in self.find("ALL")[:NEW]:
            text = self.text(uid)
            self.ask("MOVE", uid, READ if text and parse(text, ours) else UNREAD)
        if self.enter("Junk", needed=False):
            for uid in self.find("UNSEEN")[:NEW]:
                text = self.text(uid)
                if text and parse(text, ours):
                    self.ask("MOVE", uid, READ)
                else:
                    self.ask("STORE", uid, "+FLAGS.SILENT", r"(\Seen)")  # looked at; it stays

    def reports(self, ours: Ours, days: int, tls_days: int) -> Iterator[Report]:
        """Each report of the last days once."""
        self.enter(READ)
        recent, seen = set(self.find("SINCE", _day(tls_days))), set()
        for uid in self.find("SINCE", _day(days))[-KNOWN:]:
            report = parse(self.text(uid) or b"", ours)
            if report and (report.kind, report.identity) not in seen and (report.kind != "tls" or uid in recent):
                seen.add((report.kind, report.identity))
                yield report


def _day(days: int) -> str:
    return imaplib.Time2Internaldate(time.time() - days * 86400)[1:12].lstrip()


# --- what it all says --------------------------------------------------------------------------------------------------------------

LABELS = {
    "aggregate": (
        "dmarc_messages",
        "Messages in our name, as receivers counted them",
        ("domain", "source", "known", "aligned", "disposition"),
    ),
    "failure": ("dmarc_failure_reports", "Reports about single messages in our name that failed", ("domain", "reason")),
    "tls": ("tls_report_sessions", "Sessions of senders to us, as they counted them", ("domain", "policy", "result")),
}


def summed(reports: list[Report]) -> Metrics:
    metrics = Metrics()
    for kind, (name, meaning, labels) in LABELS.items():
        chosen = [report for report in reports if report.kind == kind]
        metrics.set("mail_reports", len(chosen), "Reports of the last days, by kind", kind=kind)
        total: Counter[tuple[str, ...]] = Counter()
        for report in chosen:
            total.update(report.counts)
        for values, count in sorted((_limited(total) if kind == "aggregate" else total).items()):
            pairs = dict(zip(labels, values, strict=True))
            metrics.set(name, count, meaning, **pairs)
            print(f"{name} {' '.join(f'{label}={value}' for label, value in pairs.items())}: {count}")
    return metrics


def _limited(total: Counter[tuple[str, ...]]) -> Counter[tuple[str, ...]]:
    """A sender of forged mail or reports could make a label for each network of the Internet: those that pass as us come first."""
    weight: Counter[tuple[str, str]] = Counter()
    for (domain, source, _, aligned, _), count in total.items():
        weight[(domain, source)] += count * (1 if aligned == "none" else 10**6)
    rank: Counter[str] = Counter()
    kept = set()
    for domain, source in (key for key, _ in weight.most_common()):
        rank[domain] += 1
        if rank[domain] <= SOURCES:
            kept.add((domain, source))
    found: Counter[tuple[str, ...]] = Counter()
    for (domain, source, *others), count in total.items():
        found[(domain, source if (domain, source) in kept else TOGETHER, *others)] += count
    return found


def _password() -> str:
    found = os.environ.get("REPORTS_PASSWORD", "").rstrip("\r\n")  # as an editor leaves it
    if not found:
        raise ProblemError("REPORTS_PASSWORD is not set or empty")
    return found


def read(options: argparse.Namespace, password: str) -> Metrics:
    resolver = dns.resolver.Resolver(configure=options.resolver is None)
    if options.resolver:
        address, _, port = options.resolver.rpartition(":")
        resolver.nameservers, resolver.port = [address], int(port)
    networks = {
        domain: tuple(ipaddress.ip_network(text, strict=False) for text in (*options.own, *permitted(resolver, domain, set())))
        for domain in options.domain
    }
    parsedmarc.utils.load_reverse_dns_map(OFFLINE.reverse_dns_map, always_use_local_file=True, offline=True)  # once, not in each child
    ours = Ours(tuple(options.domain), networks, frozenset(options.known))
    with Mailbox(options.address, options.port, options.name, options.timeout) as imap:
        imap.log_in(options.mailbox, password)
        imap.file_new(ours)
        metrics = summed(list(imap.reports(ours, options.days, options.tls_days)))
        imap.enter(UNREAD)
        metrics.set("mail_reports", len(imap.find("SINCE", _day(options.days))), kind="unreadable")
    return metrics


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", required=True, help="name of the group in the Pushgateway")
    parser.add_argument("--name", required=True, help="public name of the mail server, which its certificate must be valid for")
    parser.add_argument("--address", required=True, help="where IMAP is reached")
    parser.add_argument("--port", type=int, default=993)
    parser.add_argument("--mailbox", required=True, help="where reports arrive")
    parser.add_argument("--domain", action="append", required=True, help="a mail domain of ours")
    parser.add_argument("--own", action="append", default=[], metavar="NETWORK", help="of our own senders, beside those of the SPF record")
    parser.add_argument("--known", action="append", default=[], metavar="DOMAIN", help="owner of networks that may pass as us")
    parser.add_argument("--days", type=int, required=True, help="how far back DMARC reports count, by arrival")
    parser.add_argument("--tls-days", type=int, required=True, help="the same for TLS reports")
    parser.add_argument("--resolver", metavar="ADDRESS:PORT", help="DNS server; default: the pod's own")
    parser.add_argument("--timeout", type=float, default=120, help="seconds that the server may be silent")
    parser.add_argument("--pushgateway")
    options = parser.parse_args()

    signal.signal(signal.SIGTERM, terminate_cleanly)
    try:
        metrics = read(options, _password())
    except (ProblemError, SystemExit, OSError, UnicodeError, imaplib.IMAP4.error) as error:
        said = reason(error) if isinstance(error, ProblemError | SystemExit) else f"IMAP: {type(error).__name__}"
        print(f"{options.mailbox}: {said}", file=sys.stderr)
        failed = Metrics()
        failed.set("mail_reports_success", 0, "Whether the last run read the mailbox")
        push(options.pushgateway, options.job, failed)
        return 1
    metrics.set("mail_reports_success", 1, "Whether the last run read the mailbox")
    metrics.set("mail_reports_last_success_timestamp", time.time(), "When the mailbox was last read")
    # Replaced as a whole: a failure that is no longer reported must leave no series behind.
    return 1 if push(options.pushgateway, options.job, metrics, replace=True) is False else 0


if __name__ == "__main__":
    sys.exit(main())
