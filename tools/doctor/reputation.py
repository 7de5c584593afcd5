"""What block lists say of our addresses."""

import ipaddress
from collections.abc import Iterator
from typing import Literal

import dns.reversename

from tools.doctor.check import Area, BlindError, Seen, blind, broken, degraded, ok
from tools.doctor.dns import ask, resolver
from tools.doctor.patient import Patient

AREA = Area("reputation", "what block lists say of our addresses")
# Lists that receivers use widely, and that answer everyone who asks little through a resolver of their own.
LISTS = ("zen.spamhaus.org", "bl.spamcop.net", "psbl.surriel.com")
LISTED = ipaddress.ip_network("127.0.0.0/16")  # RFC 5782 section 2.1
TEST = ipaddress.ip_address("127.0.0.2")  # always listed (RFC 5782 section 5), so a list that does not say so does not answer us
ABSENT = ipaddress.ip_address("127.0.0.1")  # never listed, so a list that lists it lists everything
POLICY = {"127.0.0.10", "127.0.0.11"}  # Spamhaus PBL: an end user's line, which does no harm where a relay sends


def meaning(answers: set[str]) -> Literal["clear", "listed", "refused"]:
    """What a list's answer says. Codes outside of 127.0/16, such as Spamhaus' 127.255.255.254, say that it does not answer us."""
    codes = [ipaddress.ip_address(answer) for answer in answers]
    if any(code not in LISTED for code in codes):
        return "refused"
    return "listed" if codes else "clear"


def _name(address: ipaddress.IPv4Address | ipaddress.IPv6Address, zone: str) -> str:
    reverse = dns.reversename.from_address(str(address)).to_text()
    return f"{reverse.removesuffix('.in-addr.arpa.').removesuffix('.ip6.arpa.')}.{zone}"


@AREA.check(
    "block-lists",
    expects="no block list has an address of ours",
    remedy="the list's own page says why and how to leave; first find what sent (`make doctor ONLY=mail`), or it comes back",
    page="runbooks/alerts.md",
)
def block_lists(patient: Patient) -> Iterator[Seen]:
    """Each public address of the mail hosts in each list. A list that refuses to answer, as they do to public resolvers, is not one
    that lists us: its test entries tell."""
    site = patient.site
    server = resolver(patient, str(site.doctor.internal_resolver or patient.resolvers[0]))
    hosts = {site.host(domain) for domain in site.domains}
    addresses = [address for host, entry in (site.dns.hosts if site.dns else {}).items() if host in hosts for address in entry.addresses]
    for zone in LISTS:
        try:
            control, absent = (meaning(ask(server, _name(address, zone), "A")) for address in (TEST, ABSENT))
            if control != "listed" or absent == "listed":
                yield blind(zone, f"does not answer {server.nameservers[0]}: its test entry is {control}")
                continue
            for address in addresses:
                answers = ask(server, _name(ipaddress.ip_address(str(address)), zone), "A")
                yield _verdict(f"{address} in {zone}", answers, relayed=bool(site.mail.relay))
        except BlindError as error:
            yield blind(zone, str(error))


def _verdict(about: str, answers: set[str], *, relayed: bool) -> Seen:
    match meaning(answers):
        case "clear":
            return ok(about, "not listed")
        case "refused":
            return blind(about, f"refused to answer ({', '.join(sorted(answers))})")
        case "listed":
            codes = ", ".join(sorted(answers))
            if relayed:  # others see the relay's address
                return ok(about, f"listed as a line of end users ({codes})") if answers <= POLICY else degraded(about, f"listed ({codes})")
            return broken(about, f"listed ({codes}): others refuse our mail")
