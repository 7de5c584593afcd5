"""The verification of all records before anything is published: no network, every rule, and what to do about each finding."""

from collections.abc import Collection, Iterator, Sequence
from datetime import date

from checkdmarc.utils import DNS_CACHE

from components.checks.dns import auth, site, tls, zone
from components.checks.dns.resolver import Snapshot
from components.checks.dns.view import Finding, View
from components.dns.records import Record, records
from components.settings.site import Site

RULES = (
    zone.form,
    zone.conflicts,
    zone.sizes,
    zone.limits,
    zone.mail_hosts,
    auth.spf,
    auth.dkim,
    auth.dmarc,
    tls.mta_sts,
    tls.certificates,
    tls.tls_reports,
    site.rotation,
    site.reports,
    site.snapshot,  # last: it names what the others asked for in vain
)


def verify(
    site: Site, snapshot: Snapshot, today: date, *, expiring: Collection[str] = (), found: Sequence[Record] | None = None
) -> list[Finding]:
    """Everything that is wrong or doubtful with the site's records, errors first.

    `expiring` are the mailboxes that retention empties; `found` are other records than the site's own, such as those that are live.
    """
    view = View(site, records(site) if found is None else found, snapshot, today, expiring)
    return sorted(findings(view), key=lambda finding: not finding.error)


def findings(view: View) -> Iterator[Finding]:
    """What each rule says, in the rules' order."""
    DNS_CACHE.clear()  # checkdmarc remembers answers for the whole process, also those of another site
    for rule in RULES:
        yield from rule(view)
