"""Rules for DKIM: the published keys, and the stages of a key's life."""

import base64
from collections.abc import Iterator

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_public_key

from components.checks.dns.view import View
from components.checks.finding import Area, Found
from components.dns.content import txt_value
from components.settings.dkim import DkimKey
from components.settings.dns import FLIGHT_DAYS, PUBLISH_DAYS
from components.settings.types import Fqdn

RSA_BITS = 2048  # RFC 8301 section 3.2
ED25519_OCTETS = 32

AREA = Area[View]("dkim", "DKIM: published keys and their rotation")


def _tags(value: str) -> dict[str, str]:
    """A tag list (RFC 6376 section 3.2) as a map."""
    parts = (part.partition("=") for part in value.split(";"))
    return {tag.strip(): text.strip() for tag, mark, text in parts if mark}


def _selectors(view: View) -> Iterator[tuple[str, Fqdn, list[str], bool]]:
    """Label, domain and TXT values of each selector, and whether it is a CNAME to a relay's key."""
    for name, there in view.by_name.items():
        _, mark, domain = name.partition("._domainkey.")
        if mark:
            texts = [txt_value(record.content) for record in there if record.type == "TXT"]
            yield f"{name} TXT (DKIM)", domain, texts, any(record.type == "CNAME" for record in there)


def _keys(view: View) -> Iterator[tuple[str, dict[str, str]]]:
    """Label and tags of each key that is published and not revoked."""
    for label, _, texts, _ in _selectors(view):
        yield from ((label, tags) for tags in map(_tags, texts) if tags.get("p"))


def _kinds(view: View) -> dict[Fqdn, set[str]]:
    """The kinds of keys that each domain publishes: `rsa`, `ed25519`, `relay` for a key that a relay keeps."""
    kinds: dict[Fqdn, set[str]] = {domain: set() for domain in view.site.domains}
    for _, domain, texts, delegated in _selectors(view):
        there = kinds.setdefault(domain, set())
        there |= {tags.get("k", "rsa") for tags in map(_tags, texts) if tags.get("p")} | ({"relay"} if delegated else set())
    return kinds


def _octets(tags: dict[str, str]) -> bytes | None:
    try:
        return base64.b64decode("".join(tags["p"].split()), validate=True)
    except ValueError:  # binascii.Error is one, and so is a letter beyond ASCII
        return None


def _key(tags: dict[str, str]) -> PublicKeyTypes | None:
    try:
        return load_der_public_key(_octets(tags) or b"")
    except (ValueError, UnsupportedAlgorithm):
        return None


def _rsa(view: View) -> Iterator[tuple[str, dict[str, str]]]:
    return ((label, tags) for label, tags in _keys(view) if tags.get("k", "rsa") != "ed25519")


@AREA.error("several-records", remedy="keep one", source="RFC 6376 section 3.6.2.2")
def several_records(view: View) -> Found:
    """Which of several records of a selector a verifier takes is undefined."""
    for label, _, texts, _ in _selectors(view):
        if len(texts) > 1:
            yield label, f"{len(texts)} records for one selector"


@AREA.error("version", remedy="use v=DKIM1", source="RFC 6376 section 3.6.1")
def version(view: View) -> Found:
    """A key record of any other version is ignored."""
    for label, tags in _keys(view):
        if tags.get("v", "DKIM1") != "DKIM1":
            yield label, f"unknown DKIM version {tags['v']}"


@AREA.error("hash", remedy="write h=sha256", source="RFC 8301 section 3.1")
def hash_(view: View) -> Found:
    """SHA-1 must not be used for signatures, so SHA-256 has to be allowed."""
    for label, tags in _keys(view):
        if "h" in tags and "sha256" not in tags["h"].split(":"):
            yield label, f"h={tags['h']} allows no hash that may be used"


@AREA.warning("test-mode", remedy="remove it", source="RFC 6376 section 3.6.1")
def test_mode(view: View) -> Found:
    """With t=y verifiers treat mail with a bad signature as unsigned."""
    for label, tags in _keys(view):
        if "y" in tags.get("t", "").split(":"):
            yield label, "t=y marks the key as a test"


@AREA.error("not-a-key", remedy="copy the whole key again", source="RFC 6376 section 3.6.1")
def not_a_key(view: View) -> Found:
    """The text behind p= is not a public key."""
    for label, tags in _keys(view):
        if _octets(tags) is None or (tags.get("k", "rsa") != "ed25519" and _key(tags) is None):
            yield label, "p= is not a public key"


@AREA.error("not-rsa", remedy="publish the RSA key, or set k=", source="RFC 6376 section 3.3.3")
def not_rsa(view: View) -> Found:
    """The record announces an RSA key, and the key is of another kind."""
    for label, tags in _rsa(view):
        key = _key(tags)
        if key is not None and not isinstance(key, RSAPublicKey):
            yield label, "p= is not an RSA key, as k= says"


@AREA.error("weak-key", remedy=f"sign with {RSA_BITS}", source="RFC 8301 section 3.2")
def weak_key(view: View) -> Found:
    """Short RSA keys can be factored, and receivers ignore signatures made with them."""
    for label, tags in _rsa(view):
        key = _key(tags)
        if isinstance(key, RSAPublicKey) and key.key_size < RSA_BITS:
            yield label, f"the RSA key has {key.key_size} bits"


@AREA.error("ed25519-length", remedy="copy the whole key again", source="RFC 8463 section 4")
def ed25519_length(view: View) -> Found:
    """An Ed25519 public key has exactly 32 octets."""
    for label, tags in _keys(view):
        octets = _octets(tags)
        if tags.get("k") == "ed25519" and octets is not None and len(octets) != ED25519_OCTETS:
            yield label, f"an Ed25519 key has {ED25519_OCTETS} octets, this one {len(octets)}"


@AREA.warning("ed25519-alone", remedy="sign with an RSA key too", source="RFC 8463 section 5")
def ed25519_alone(view: View) -> Found:
    """Many receivers verify RSA signatures only."""
    for domain, kinds in _kinds(view).items():
        if kinds == {"ed25519"}:
            yield f"{domain} TXT (DKIM)", "Ed25519 is the only key, and receivers that know only RSA see no signature"


@AREA.error("no-signing-key", remedy="leave the old one in `signing` until the new one does", source="RFC 6376 section 3.6")
def no_signing_key(view: View) -> Found:
    """A domain with keys has one that signs."""
    for domain, settings in view.site.domains.items():
        if settings.dkim and not settings.signing_keys:
            yield f"domains.{domain}.dkim", "no key signs"


def _stages(view: View) -> Iterator[tuple[str, DkimKey]]:
    for domain, settings in view.site.domains.items():
        yield from ((f"domains.{domain}.dkim.{key.selector}", key) for key in settings.dkim)


@AREA.error("no-public-key", source="RFC 6376 section 3.6")
def no_public_key(view: View) -> Found:
    """Without its public half in the settings a key cannot be published, and no signature can be verified."""
    for setting, key in _stages(view):
        if key.public_key is None:
            yield (
                setting,
                "has no public_key, so it cannot be published",
                "docs/runbooks/dkim-rotation.md shows how to make it from the private key",
            )


@AREA.error("published-in-future", remedy="write the day on which the record went live")
def published_in_future(view: View) -> Found:
    """A record cannot have been published on a day to come."""
    for setting, key in _stages(view):
        if key.published_on and key.published_on > view.today:
            yield setting, f"published_on {key.published_on} is in the future"


@AREA.error("signs-too-early", remedy=f"sign {PUBLISH_DAYS} day after that at the earliest", source="RFC 2308")
def signs_too_early(view: View) -> Found:
    """Verifiers that asked for the selector before it existed remember for a day that it does not, and reject what it signs."""
    for setting, key in _stages(view):
        if key.signs and key.published_on and 0 <= (days := (view.today - key.published_on).days) < PUBLISH_DAYS:
            yield setting, f"signs {days} days after it was published"


@AREA.error("takeover-undated", remedy="write in published_on when its record went live")
def takeover_undated(view: View) -> Found:
    """A key that takes over from another one must have been published for a day first."""
    for domain, settings in view.site.domains.items():
        if any(key.stage in {"retiring", "revoked"} for key in settings.dkim):
            for key in settings.dkim:
                if key.signs and key.published_on is None:
                    yield f"domains.{domain}.dkim.{key.selector}", "takes over from another key"


@AREA.error("active-but-retired", remedy="remove retired_on, or set the stage to retiring")
def active_but_retired(view: View) -> Found:
    """Stage and date contradict each other."""
    for setting, key in _stages(view):
        if key.stage in {"published", "signing"} and key.retired_on:
            yield setting, f"is in the stage `{key.stage}` and has a retired_on"


@AREA.error("retired-undated", remedy="write in retired_on when it signed last")
def retired_undated(view: View) -> Found:
    """How long a key must stay published counts from the last day that it signed."""
    for setting, key in _stages(view):
        if key.stage in {"retiring", "revoked"} and key.retired_on is None:
            yield setting, "no longer signs"


@AREA.error("retired-in-future", remedy="write the last day on which it signed")
def retired_in_future(view: View) -> Found:
    """A key that signs until a day to come is still signing."""
    for setting, key in _stages(view):
        if key.stage in {"retiring", "revoked"} and key.retired_on and key.retired_on > view.today:
            yield setting, f"retired_on {key.retired_on} is in the future"


@AREA.error("revoked-too-early", remedy=f"keep it `retiring` for {FLIGHT_DAYS} days", source="RFC 5321 section 4.5.4.1")
def revoked_too_early(view: View) -> Found:
    """Mail that the key signed may still be on its way, and would fail."""
    for setting, key in _stages(view):
        if key.stage == "revoked" and key.retired_on and 0 <= (days := (view.today - key.retired_on).days) < FLIGHT_DAYS:
            yield setting, f"signed until {days} days ago, and mail that it signed is still on its way"


@AREA.warning("unpublished", remedy="set public_key", source="RFC 6376 section 3.6")
def unpublished(view: View) -> Found:
    """Mail is signed, and no record has a key that the signature could be verified with."""
    for domain, kinds in _kinds(view).items():
        if not kinds and domain in view.site.domains and view.site.domains[domain].dkim:
            yield f"{domain} TXT (DKIM)", "no key is published, so no signature can be verified"
