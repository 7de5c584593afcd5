"""Mail judged by the published records: libraries that receivers use, against the rendered zone, without a network."""

import base64
import json
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import authheaders
import dkim
import dns.name
import dns.rdatatype
import dns.zone
import pytest
import spf
from authres import DKIMAuthenticationResult, SPFAuthenticationResult
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from components.checks.registry import read_site
from components.settings.site import Site
from tests.conftest import change, settings
from tools.offline.dns_view import zone_files

DOMAIN = "example.org"
MESSAGE = b"""\
From: Alice <alice@example.org>\r
To: bob@example.net\r
Subject: Lunch?\r
Date: Sat, 21 Nov 2026 12:00:00 +0000\r
Message-ID: <1@example.org>\r
\r
At noon.\r
"""


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a verdict asked the network")

    for function in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, function, refuse)


class Published:
    """The zone files of a site as a DNS server would answer from them."""

    def __init__(self, site: Site) -> None:
        files = {
            path.removeprefix("dns/").removesuffix(".zone"): text
            for path, text in zone_files(site, datetime.now(UTC))
            if ".internal." not in path
        }
        self._zones = [dns.zone.from_text(text, origin=zone, relativize=False) for zone, text in files.items()]

    def rdata(self, name: str, kind: str) -> Iterator[Any]:
        owner = dns.name.from_text(name)
        for zone in self._zones:
            if zone.origin is not None and owner.is_subdomain(zone.origin):
                yield from zone.get_rdataset(owner, kind) or ()

    def txt(self, name: bytes | str, timeout: int = 5) -> bytes | None:
        """As dkimpy asks: the joined strings, or None."""
        found = [b"".join(data.strings) for data in self.rdata(name.decode() if isinstance(name, bytes) else name, "TXT")]
        return found[0] if found else None

    def spf_answers(self, name: str, kind: str, *_: Any, **__: Any) -> list[tuple[tuple[str, str], Any]]:
        """As pyspf asks: ((name, type), value) of each record."""
        values: dict[str, Callable[[Any], Any]] = {
            "TXT": lambda data: data.strings,
            "MX": lambda data: (data.preference, data.exchange.to_text(omit_final_dot=True)),
            "A": lambda data: data.address,
            "AAAA": lambda data: data.address,
        }
        return [((name, kind), values[kind](data)) for data in self.rdata(name, kind)] if kind in values else []


def keys() -> Iterator[tuple[str, bytes, str, bytes]]:
    """Selector, private key as dkimpy wants it, public key for the settings, and signature algorithm."""
    big = rsa.generate_private_key(65537, 2048)
    der = big.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pem = big.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    yield "rsa2048", pem, base64.b64encode(der).decode(), b"rsa-sha256"
    huge = rsa.generate_private_key(65537, 4096)
    der = huge.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pem = huge.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    yield "rsa4096", pem, base64.b64encode(der).decode(), b"rsa-sha256"
    small = ed25519.Ed25519PrivateKey.generate()
    seed = base64.b64encode(small.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))
    public = base64.b64encode(small.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
    yield "ed25519", seed, public, b"ed25519-sha256"


@pytest.fixture(scope="module")
def signers() -> dict[str, tuple[bytes, str, bytes]]:
    return {selector: (private, public, algorithm) for selector, private, public, algorithm in keys()}


def publish(signers: dict[str, tuple[bytes, str, bytes]], **changes: Any) -> Published:
    base = settings("dev")
    stages = changes.pop("stages", {})
    change(base, f"domains/{DOMAIN}/dkim", [{"selector": s, "public_key": key[1], **stages.get(s, {})} for s, key in signers.items()])
    for path, value in changes.items():
        change(base, f"domains/{DOMAIN}/dns/{path}", value)
    return Published(read_site(json.dumps(base)))


def signed(signers: dict[str, tuple[bytes, str, bytes]], selector: str, domain: str = DOMAIN) -> bytes:
    private, _, algorithm = signers[selector]
    return dkim.sign(MESSAGE, selector.encode(), domain.encode(), private, signature_algorithm=algorithm) + MESSAGE


@pytest.mark.parametrize("selector", ["rsa2048", "rsa4096", "ed25519"])
def test_a_signature_is_verified_against_the_zone(selector: str, signers: dict):
    published = publish(signers)
    assert dkim.verify(signed(signers, selector), dnsfunc=published.txt) is True
    assert dkim.verify(signed(signers, selector).replace(b"At noon.", b"At ten."), dnsfunc=published.txt) is False


def test_a_retiring_key_verifies_and_a_revoked_one_does_not(signers: dict):
    retired = {"retired_on": "2026-11-01"}
    retiring = publish(signers, stages={"rsa4096": retired | {"stage": "retiring"}})
    assert dkim.verify(signed(signers, "rsa4096"), dnsfunc=retiring.txt) is True
    revoked = publish(signers, stages={"rsa4096": retired | {"stage": "revoked"}})
    assert dkim.verify(signed(signers, "rsa4096"), dnsfunc=revoked.txt) is False


SPF_CASES = {
    "the mail host": ({"mx": True}, "192.0.2.25", "pass"),
    "the mail host over IPv6": ({"mx": True}, "2001:db8::25", "pass"),
    "a listed network": ({"addresses": ["198.51.100.0/24"]}, "198.51.100.7", "pass"),
    "an external sender": ({"mx": True}, "203.0.113.9", "fail"),
    "an external sender, softfail": ({"mx": True, "all": "softfail"}, "203.0.113.9", "softfail"),
    "an external sender, neutral": ({"mx": True, "all": "neutral"}, "203.0.113.9", "neutral"),
    "a host by name": ({"hosts": ["mail.example.org"]}, "192.0.2.25", "pass"),
    "an included sender": ({"includes": ["example.net"]}, "192.0.2.25", "pass"),
}


@pytest.mark.parametrize("what", SPF_CASES)
def test_spf_says_of(what: str, signers: dict, monkeypatch: pytest.MonkeyPatch):
    record, address, verdict = SPF_CASES[what]
    monkeypatch.setattr(spf, "DNSLookup", publish(signers, spf=record).spf_answers)
    assert spf.check2(i=address, s=f"alice@{DOMAIN}", h="mail.example.org")[0] == verdict


def test_a_parked_domain_sends_nothing(signers: dict, monkeypatch: pytest.MonkeyPatch):
    published = publish(signers)
    monkeypatch.setattr(spf, "DNSLookup", published.spf_answers)
    assert spf.check2(i="192.0.2.25", s="ceo@example.com", h="example.com")[0] == "fail"
    verdict = dmarc(published, MESSAGE.replace(b"alice@example.org", b"ceo@example.com"), spf_domain="example.com", spf_result="fail")
    assert (verdict.result, verdict.policy) == ("fail", "reject")
    assert [(data.preference, data.exchange.to_text()) for data in published.rdata("example.com", "MX")] == [(0, ".")]


def dmarc(published: Published, message: bytes, *, spf_domain: str, spf_result: str, dkim_domain: str | None = None) -> Any:
    """The verdict on SPF and DKIM results that are given."""
    return authheaders.check_dmarc(
        message,
        SPFAuthenticationResult(result=spf_result, smtp_mailfrom=f"alice@{spf_domain}"),
        DKIMAuthenticationResult(result="pass" if dkim_domain else "fail", header_d=dkim_domain or DOMAIN),
        dnsfunc=lambda name: (published.txt(name) or b"").decode() or None,
    )


def test_an_aligned_signature_passes_dmarc_through_any_relay(signers: dict):
    published = publish(signers, dmarc={"policy": "reject"})
    message = signed(signers, "rsa2048")
    assert dkim.verify(message, dnsfunc=published.txt) is True
    relayed = dmarc(published, message, spf_domain="bounces.relay.example", spf_result="pass", dkim_domain=DOMAIN)
    assert (relayed.result, relayed.policy) == ("pass", "reject")


@pytest.mark.parametrize("policy", ["none", "quarantine", "reject"])
def test_a_forgery_meets_the_policy(policy: str, signers: dict):
    verdict = dmarc(publish(signers, dmarc={"policy": policy}), MESSAGE, spf_domain="forger.example", spf_result="pass")
    assert (verdict.result, verdict.policy) == ("fail", policy)


def test_a_subdomain_meets_its_own_policy(signers: dict):
    published = publish(signers, dmarc={"policy": "reject", "subdomains": "quarantine"})
    forged = MESSAGE.replace(b"alice@example.org", b"alice@mail.example.org")
    assert dmarc(published, forged, spf_domain="forger.example", spf_result="pass").policy == "quarantine"


def test_strict_alignment_refuses_a_subdomain(signers: dict):
    def verdict(alignment: str) -> str:
        published = publish(signers, dmarc={"policy": "reject", "dkim_alignment": alignment})
        return dmarc(published, MESSAGE, spf_domain="forger.example", spf_result="fail", dkim_domain="mail.example.org").result

    assert (verdict("relaxed"), verdict("strict")) == ("pass", "fail")
