"""The verification of all records before anything is published: no network, every rule, and what to do about each finding."""

from collections.abc import Sequence
from datetime import date

from checkdmarc.utils import DNS_CACHE

from components.checks.dns import dkim, dmarc, mta_sts, reports, snapshot, spf, zone
from components.checks.dns.resolver import Snapshot
from components.checks.dns.view import View
from components.checks.finding import Finding, run
from components.dns.records import Record, records
from components.settings.site import Site

AREAS = (zone.AREA, spf.AREA, dkim.AREA, dmarc.AREA, mta_sts.AREA, reports.AREA, snapshot.AREA)


def verify(site: Site, snapshot: Snapshot, today: date, *, found: Sequence[Record] | None = None) -> list[Finding]:
    """Everything that is wrong or dubious with the site's records, or with `found`, such as those that are live; errors first."""
    return judge(View(site, records(site) if found is None else found, snapshot, today))


def judge(view: View) -> list[Finding]:
    """What each rule says, errors first."""
    DNS_CACHE.clear()  # checkdmarc remembers answers for the whole process, also those of another site
    return run(AREAS, view)
