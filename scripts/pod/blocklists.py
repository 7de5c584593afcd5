"""Block lists of the DNS: which are asked, how an address or a domain is looked up in one, and what an answer means (RFC 5782).

Shared by the job beside the mail server and by the doctor, so standard library only.
"""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["clear", "listed", "policy", "refused"]


@dataclass(frozen=True)
class Blocklist:
    """A list's zone, what it holds, the answers that mean no more than a policy, and where a listing is looked at and removed."""

    zone: str
    kinds: frozenset[str]  # of "ipv4", "ipv6", "domain"
    removal: str
    policy: frozenset[str] = frozenset()


# Widely used by receivers, and open to small sites without registration.
LISTS = (
    # Answers 10 and 11: an address that by its provider's word sends no mail itself, which says nothing about its conduct.
    Blocklist(
        "zen.spamhaus.org", frozenset({"ipv4", "ipv6"}), "https://check.spamhaus.org", policy=frozenset({"127.0.0.10", "127.0.0.11"})
    ),
    Blocklist("dbl.spamhaus.org", frozenset({"domain"}), "https://check.spamhaus.org"),
    Blocklist("bl.spamcop.net", frozenset({"ipv4"}), "https://www.spamcop.net/bl.shtml"),
    Blocklist("psbl.surriel.com", frozenset({"ipv4"}), "https://psbl.org"),
    Blocklist("bl.mailspike.net", frozenset({"ipv4"}), "https://mailspike.org/iplookup.html"),
)

# Every list must hold the first and must not hold the second (RFC 5782 section 5): else its answers mean nothing.
CANARIES = {"ipv4": ("127.0.0.2", "127.0.0.1"), "ipv6": ("::ffff:7f00:2", "::ffff:7f00:1"), "domain": ("test", "invalid")}
_LISTING = ipaddress.ip_network("127.0.0.0/8")
# What Spamhaus answers to a public resolver, above a quota, or to a misspelt zone: never a listing.
_REFUSAL = ipaddress.ip_network("127.255.255.0/24")


def kind(subject: str) -> str:
    """Of an address or a domain."""
    try:
        return f"ipv{ipaddress.ip_address(subject).version}"
    except ValueError:
        return "domain"


def question(subject: str, zone: str) -> str:
    """The name that is looked up for `subject`."""
    if kind(subject) == "domain":
        return f"{subject}.{zone}."
    reverse = ipaddress.ip_address(subject).reverse_pointer.rsplit(".", 2)[0]  # without in-addr.arpa
    return f"{reverse}.{zone}."


def verdict(answers: set[str], blocklist: Blocklist) -> Verdict:
    """What A records say; none of them: clear. Addresses that no list gives out come from a resolver that lies."""
    found = {ipaddress.ip_address(answer) for answer in answers}
    if any(answer in _REFUSAL or answer not in _LISTING for answer in found):
        return "refused"
    if not found:
        return "clear"
    return "policy" if answers <= blocklist.policy else "listed"


def doubt(blocklist: Blocklist, kinds: set[str], look: Callable[[str], Verdict | None]) -> str:
    """Why a list's answers about `kinds` cannot be believed; empty if they can. `look` asks the list, None: the DNS gives no answer."""
    for name in sorted(blocklist.kinds & kinds):
        listed, clear = (look(canary) for canary in CANARIES[name])
        if "refused" in {listed, clear}:
            return "refuses us, as lists refuse public resolvers: let the cluster's resolver ask by itself"
        if None in {listed, clear}:
            return "does not answer"
        if listed == "clear":
            return "does not know its own test entry"
        if clear != "clear":
            return "lists everything"
    return ""
