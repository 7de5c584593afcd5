"""Asks DNS block lists about our addresses, our domains and the relay's addresses, and tells a Pushgateway who is listed.

Before a list is believed it is asked for an entry that every list must hold and for one that none may hold (RFC 5782): a list that
refuses us, or a resolver that changes answers, would otherwise look like a clean record or like a listing.
Ends with 1 if the relay's name has no address or nothing could be reported, whatever the lists say.
"""

import argparse
import signal
import socket
import sys
import time

import dns.exception
import dns.resolver
from blocklists import LISTS, Blocklist, Verdict, doubt, kind, question, verdict
from common import Metrics, push, reason, terminate_cleanly


def ask(resolver: dns.resolver.Resolver, subject: str, blocklist: Blocklist) -> Verdict | None:
    """None where the DNS gives no answer."""
    try:
        answers = {data.to_text() for data in resolver.resolve(question(subject, blocklist.zone), "A", search=False)}
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        answers = set()
    except dns.exception.DNSException:
        return None
    return verdict(answers, blocklist)


def subjects(options: argparse.Namespace) -> dict[str, str]:
    """What is asked about, and whose it is. The relay's addresses are those of its name; those it sends from may be others."""
    found = dict.fromkeys((*options.address, *options.domain), "own")
    if options.relay:
        relay = {str(entry[4][0]) for entry in socket.getaddrinfo(options.relay, None, type=socket.SOCK_STREAM)}
        found |= {address: "relay" for address in sorted(relay) if address not in found}
    return found


def look(resolver: dns.resolver.Resolver, asked: dict[str, str]) -> Metrics:
    metrics = Metrics()
    for blocklist in LISTS:
        concerned = {subject: whose for subject, whose in asked.items() if kind(subject) in blocklist.kinds}
        if not concerned:
            continue
        why = doubt(blocklist, {kind(subject) for subject in concerned}, lambda canary, at=blocklist: ask(resolver, canary, at))
        metrics.set("mail_blocklist_usable", not why, "Whether a block list answers us as a list must", list=blocklist.zone)
        if why:
            print(f"{blocklist.zone}: {why}")
        for subject, whose in {} if why else concerned.items():
            said = ask(resolver, subject, blocklist)
            if said in {None, "refused"}:
                print(f"{blocklist.zone}: {subject} ({whose}): no answer")
                continue
            for what in ("listed", "policy"):
                metrics.set(
                    "mail_blocklist_listed",
                    said == what,
                    "Whether a block list holds the address or domain; policy: only because its provider says that it sends no mail",
                    list=blocklist.zone,
                    subject=subject,
                    whose=whose,
                    entry=what,
                )
            print(f"{blocklist.zone}: {subject} ({whose}): {said}{f', see {blocklist.removal}' if said != 'clear' else ''}")
    return metrics


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", required=True, help="name of the group in the Pushgateway")
    parser.add_argument("--address", action="append", default=[], help="a public address of ours")
    parser.add_argument("--domain", action="append", default=[], help="a mail domain of ours")
    parser.add_argument("--relay", help="name of the relay")
    parser.add_argument("--resolver", metavar="ADDRESS:PORT", help="DNS server; default: the pod's own")
    parser.add_argument("--timeout", type=float, default=10, help="seconds for one question, all tries included")
    parser.add_argument("--pushgateway")
    options = parser.parse_args()

    signal.signal(signal.SIGTERM, terminate_cleanly)
    resolver = dns.resolver.Resolver(configure=options.resolver is None)
    resolver.lifetime = options.timeout
    if options.resolver:
        address, _, port = options.resolver.rpartition(":")
        resolver.nameservers, resolver.port = [address], int(port)
    try:
        metrics = look(resolver, subjects(options))
    except OSError as error:
        print(f"the relay's name: {reason(error)}", file=sys.stderr)
        return 1
    metrics.set("mail_reputation_last_success_timestamp", time.time(), "When block lists were last asked")
    pushed = push(options.pushgateway, options.job, metrics, replace=True)  # a subject that is asked about no more leaves no listing behind
    return 1 if pushed is False else 0


if __name__ == "__main__":
    sys.exit(main())
