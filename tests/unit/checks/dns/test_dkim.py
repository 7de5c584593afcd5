"""Rules for DKIM."""

import base64
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from components.checks.dns.verify import verify
from components.dns.content import txt
from components.dns.records import records
from components.settings.site import Site
from tests.conftest import Settings
from tests.unit.checks.dns.support import (
    KEY,
    OTHERS,
    PROD,
    TODAY,
    Case,
    D,
    K,
    ago,
    doubted,
    encoded,
    live,
    public_key,
    published,
    refused,
    said,
)

OLD = {"selector": "old", "public_key": public_key(2048)}

CASES: dict[str, Case] = {
    "weak RSA key": refused("has 1024 bits; sign with 2048 (RFC 8301", {f"{K}/0/public_key": public_key(1024)}),
    "no key at all in p=": refused("p= is not a public key", {f"{K}/0/public_key": "A" * 64}),
    "not an RSA key": refused("p= is not an RSA key", {f"{K}/0/public_key": encoded(ec.generate_private_key(ec.SECP256R1()))}),
    "no public key": refused("has no public_key", {f"{K}/0/public_key": None}),
    "no signature": refused("no key signs", {f"{K}": [KEY | {"stage": "published"}]}),
    "signs on the day of its publication": refused("signs 0 days after it was published", {f"{K}": [KEY | {"published_on": ago(0)}]}),
    "published tomorrow": refused("is in the future", {f"{K}": [KEY | {"published_on": ago(-1)}]}),
    "takes over unannounced": refused("takes over from another key", {f"{K}": [KEY, OLD | {"stage": "retiring", "retired_on": ago(1)}]}),
    "retires without a date": refused(
        "no longer signs; write in retired_on", {f"{K}": [KEY | {"published_on": ago(9)}, OLD | {"stage": "retiring"}]}
    ),
    "retires tomorrow": refused(
        "retired_on 2026-11-22 is in the future",
        {f"{K}": [KEY | {"published_on": ago(9)}, OLD | {"stage": "retiring", "retired_on": ago(-1)}]},
    ),
    "revoked while mail is under way": refused(
        "signed until 6 days ago", {f"{K}": [KEY | {"published_on": ago(9)}, OLD | {"stage": "revoked", "retired_on": ago(6)}]}
    ),
    "signs and has retired": refused("has a retired_on", {f"{K}": [KEY | {"retired_on": ago(1)}]}),
    "Ed25519 alone": doubted(
        "Ed25519 is the only key", {f"{K}/0/public_key": base64.b64encode(b"k" * 32).decode(), f"{D}/dkim_cnames": {}}
    ),
    "two keys for a selector": published("2 records for one selector", (f"mail._domainkey.{PROD}", "TXT", '"v=DKIM1; p="')),
    "sha1": published("h=sha1 allows no hash", (f"s._domainkey.{PROD}", "TXT", txt(f"v=DKIM1; h=sha1; p={KEY['public_key']}"))),
    "DKIM2": published("unknown DKIM version DKIM2; use v=DKIM1", (f"s._domainkey.{PROD}", "TXT", txt(f"v=DKIM2; p={KEY['public_key']}"))),
    "short Ed25519": published("an Ed25519 key has 32 octets", (f"s._domainkey.{PROD}", "TXT", '"v=DKIM1; k=ed25519; p=AAAA"')),
}


@pytest.mark.parametrize("what", CASES)
def test_a_rule_finds_it(what: str, site: Callable[..., Site]):
    CASES[what].check(site)


def test_a_rotation_passes_at_every_step(site: Callable[..., Site]):
    new = {"selector": "new", "public_key": public_key(2048)}
    steps: list[list[Settings]] = [
        [KEY, new | {"stage": "published", "published_on": ago(0)}],
        [KEY | {"stage": "retiring", "retired_on": ago(0)}, new | {"published_on": ago(1)}],
        [KEY | {"stage": "revoked", "retired_on": ago(7)}, new | {"published_on": ago(8)}],
        [new | {"published_on": ago(9)}],
    ]
    for keys in steps:
        assert said(verify(site("prod", {K: keys}), OTHERS, TODAY), error=True) == []


def test_a_key_that_is_not_published_is_doubtful(site: Callable[..., Site]):
    prod = site("prod")
    found = [record for record in records(prod) if "._domainkey." not in record.name]
    assert "dkim.unpublished" in {finding.code for finding in verify(prod, OTHERS, TODAY, found=found)}


def test_a_key_on_trial_is_doubtful(site: Callable[..., Site]):
    prod = site("prod")
    found = live(prod, (f"s._domainkey.{PROD}", "TXT", txt(f"v=DKIM1; t=y; p={KEY['public_key']}")))
    assert any("t=y marks the key as a test" in text for text in said(verify(prod, OTHERS, TODAY, found=found), error=False))
