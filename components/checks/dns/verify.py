"""The verification of all records before anything is published: no network, every rule, and what to do about each finding."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date

from checkdmarc.utils import DNS_CACHE

from components.checks.dns import caa, dkim, dmarc, hosts, mta_sts, reports, snapshot, spf, zone
from components.checks.dns.resolver import Snapshot
from components.checks.dns.view import View
from components.checks.finding import Finding, run
from components.dns.records import Record, records
from components.settings.site import Site

AREAS = (zone.AREA, hosts.AREA, caa.AREA, spf.AREA, dkim.AREA, dmarc.AREA, mta_sts.AREA, reports.AREA, snapshot.AREA)


def verify(site: Site, snapshot: Snapshot, today: date, *, found: Sequence[Record] | None = None) -> list[Finding]:
    """Everything that is wrong or dubious with the site's records, or with `found`, such as those that are live; errors first."""
    return judge(View(site, records(site) if found is None else found, snapshot, today))


def judge(view: View) -> list[Finding]:
    """What each rule says, errors first. Where a rule names a record, the setting that makes it comes first."""
    DNS_CACHE.clear()  # checkdmarc remembers answers for the whole process, also those of another site
    made_by = {f"{record.name} {record.type}": record.setting for record in view.records if record.setting}
    return [_named(finding, made_by) for finding in run(AREAS, view)]


# Where the setting of a missing record would be, by how its name begins.
_MISSING = {"_dmarc.": "dmarc", "_mta-sts.": "mta_sts", "_smtp._tls.": "tls_reports"}


def _named(finding: Finding, made_by: dict[str, str]) -> Finding:
    label = finding.setting
    record, _, _ = label.partition(" (")
    name, mark, kind = record.partition(" ")
    if not mark:  # a setting already, or an address
        return finding
    setting = made_by.get(record)
    if "(SPF)" in label or kind == "MX":
        setting = f"domains.{name}.dns.{'mx' if kind == 'MX' else 'spf'}"
    for start, part in _MISSING.items():
        if name.startswith(start):
            setting = f"domains.{name.removeprefix(start)}.dns.{part}"
    if "DKIM" in label or "._domainkey." in name:
        setting = setting or f"domains.{name.partition('._domainkey.')[2] or name}.dkim"
    return replace(finding, setting=f"{setting}: {label}") if setting else finding
