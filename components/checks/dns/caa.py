"""Rules for CAA: who may issue certificates, and whether the certificates in use can still be issued."""

import re
from collections.abc import Iterator

from components.checks.dns.view import View
from components.checks.finding import Area, Found
from components.dns.web_pages import web_hosts
from components.settings.dns import Caa
from components.settings.types import Fqdn

AREA = Area[View]("caa", "CAA records")

_ISSUER = re.compile(r"([a-z0-9-]+(\.[a-z0-9-]+)+)?\s*(;.*)?", re.IGNORECASE)  # RFC 8659 section 4.2
_CONTACT = re.compile(r"mailto:[^\s@]+@[^\s@]+|https?://\S+")
_ISSUERS = {"letsencrypt": "letsencrypt.org"}  # authority by a word in the name of a ClusterIssuer


def _entries(view: View) -> Iterator[tuple[str, Fqdn, Caa]]:
    for domain, settings in view.site.domains.items():
        yield from ((f"domains.{domain}.dns.caa", domain, caa) for caa in settings.dns.caa)


@AREA.error("not-an-authority", remedy="write the authority's domain name, such as letsencrypt.org", source="RFC 8659 section 4.2")
def not_an_authority(view: View) -> Found:
    """A value that no certificate authority recognises, so none may issue and no certificate is renewed."""
    for setting, _, caa in _entries(view):
        if caa.tag != "iodef" and not _ISSUER.fullmatch(caa.value):
            yield setting, f"{caa.tag} {caa.value!r} names no authority, so no certificate could be renewed"


@AREA.error("not-a-contact", remedy="write mailto:… or https://…", source="RFC 8659 section 4.4")
def not_a_contact(view: View) -> Found:
    """Reports of refused requests go to a mail address or a web address."""
    for setting, _, caa in _entries(view):
        if caa.tag == "iodef" and not _CONTACT.fullmatch(caa.value):
            yield setting, f"iodef {caa.value!r} is not an address"


@AREA.error("account-of-none", remedy="set account on issue or issuewild only", source="RFC 8657 section 3")
def account_of_none(view: View) -> Found:
    """An account restricts who may issue; it has no meaning for other tags."""
    for setting, _, caa in _entries(view):
        if caa.account and caa.tag not in {"issue", "issuewild"}:
            yield setting, f"{caa.tag} has an account"


@AREA.error("forbids-certificate", remedy="allow the authority that issues it", source="RFC 8659 section 4.2")
def forbids_certificate(view: View) -> Found:
    """The certificates in use could not be issued again."""
    for domain, settings in view.site.domains.items():
        for name, issuer in _certificates(view, domain):
            allowed = _allowed(settings.dns.caa, wildcard=name.startswith("*."))
            wanted = next((authority for word, authority in _ISSUERS.items() if issuer and word in issuer), None)
            if allowed is not None and (not allowed or (wanted and wanted not in allowed)):
                by = f"by {wanted} " if wanted else ""
                yield f"domains.{domain}.dns.caa", f"does not let the certificate for {name} be issued {by}again"


def _certificates(view: View, domain: Fqdn) -> Iterator[tuple[str, str | None]]:
    """Name and issuer, where it is known, of each certificate in use below the domain."""
    for label, certificate in web_hosts(view.site.domains[domain].dns).items():
        yield f"{label}.{domain}", certificate.cluster_issuer
    for name in view.site.tls.names:
        if name.removeprefix("*.") == domain or name.endswith(f".{domain}"):
            yield name, None


def _allowed(entries: tuple[Caa, ...], *, wildcard: bool) -> set[str] | None:
    """Authorities that may issue; None where the records do not restrict it. `issuewild` outranks `issue` for wildcards."""
    for tag in ("issuewild", "issue") if wildcard else ("issue",):
        values = [caa.value for caa in entries if caa.tag == tag]
        if values:
            return {name for value in values if (name := value.partition(";")[0].strip().lower())}
    return None
