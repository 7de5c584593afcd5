"""Rules that compare the records with those that a zone at Cloudflare holds now."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from components.checks.finding import Area, Found
from components.dns.live import RIGHTS, SHOWN, TOKEN, Live, RefusedError, SilentError, read_zone, shown
from components.dns.match import by_name, matches, rivals, takes_over
from components.dns.mta_sts import enforced, mail_exchangers
from components.dns.records import Record, address_key, prefix, records, zones
from components.settings.dns import Zone
from components.settings.site import Site
from components.settings.types import Fqdn


@dataclass(frozen=True)
class LiveZone:
    """A zone of the site at Cloudflare with its live records; None where they could not be asked for, and why."""

    site: Site
    zone: Fqdn
    live: Sequence[Live] | None
    refusal: str = ""
    silence: str = ""

    @property
    def rows(self) -> Sequence[Live]:
        return self.live or ()

    @property
    def settings(self) -> Zone:
        return zones(self.site)[self.zone]

    @property
    def path(self) -> str:
        return f"dns.zones.{self.zone}"

    def records(self) -> list[Record]:
        return [record for record in records(self.site) if record.zone == self.zone]

    def adopted(self) -> set[str]:
        return {record_id for record_id in self.settings.adopt.values() if record_id}

    def is_other(self) -> bool:
        return any(_outside(row.name, self.zone) for row in self.rows)


AREA = Area[LiveZone]("live", "the records against those that a zone at Cloudflare holds")


def look(site: Site) -> Iterator[LiveZone]:
    """Each zone at Cloudflare as it is now, where the environment has a token.

    A look by ourselves and not through the provider, because it has to come before anything is declared, and a provider's data
    source would make the program's result depend on more than its settings in a render.
    """
    token = os.environ.get(TOKEN)
    for zone, settings in zones(site).items():
        if settings.cloudflare is None:
            continue
        try:
            yield LiveZone(site, zone, read_zone(zone, settings.cloudflare, token) if token else None)
        except RefusedError as refusal:
            yield LiveZone(site, zone, None, refusal=str(refusal))
        except SilentError as silence:
            yield LiveZone(site, zone, None, silence=str(silence))


@AREA.error("refused")
def refused(subject: LiveZone) -> Found:
    """Cloudflare refuses the token or the zone id, so an `up` would fail half way."""
    if subject.refusal:
        setting, _, text = subject.refusal.partition(": ")
        yield setting, text


@AREA.error("not-answered", remedy="try again, or acknowledge it for an `up` that changes no record", consent=True)
def not_answered(subject: LiveZone) -> Found:
    """Cloudflare cannot be asked now, so nothing would stop an `up` from publishing a second SPF record."""
    if subject.silence:
        yield subject.path, f"cannot be compared with the live zone: {subject.silence}"


@AREA.note("not-asked", remedy=f"set {TOKEN}; an `up` needs one with {RIGHTS}")
def not_asked(subject: LiveZone) -> Found:
    """Without a token the records are not compared with the live zone."""
    if subject.live is None and not subject.refusal and not subject.silence:
        yield subject.path, f"is not compared with the live zone, because {TOKEN} is not set"


@AREA.error("incomplete-adoption")
def incomplete_adoption(subject: LiveZone) -> Found:
    """`adopt` names some records, the zone cannot be asked, and a second SPF, DMARC, MX or MTA-STS record would do harm."""
    adopt = subject.settings.adopt
    if not adopt or subject.live is not None:
        return
    for record in subject.records():
        role = record.key.rpartition(":")[2]
        single = record.type == "MX" or role == "mta-sts" or (record.carries_mail and role in {"spf", "dmarc"})
        if single and record.key not in adopt:
            text = f"does not say whether {record.name} {record.type} is live already"
            yield (
                f"{subject.path}.adopt",
                text,
                f"add {record.key!r} with its id, or with null if the zone has no such record; or set {TOKEN}",
            )


@AREA.error("other-zone")
def wrong_zone(subject: LiveZone) -> Found:
    """The zone id belongs to another zone, and every record would be published there."""
    outside = next((row.name for row in subject.rows if _outside(row.name, subject.zone)), None)
    if outside:
        yield f"{subject.path}.cloudflare", f"is the id of another zone, which holds {outside}", f"copy the zone id of {subject.zone}"


@AREA.error("unadopted")
def unadopted(subject: LiveZone) -> Found:
    """A live record that ours would duplicate: receivers ignore two SPF or DMARC records, and two MX share the mail."""
    for record, found in _rivals(subject):
        if not any(row.ours for row in found):
            yield f"{subject.path}.adopt", f"{record.name} already has {_shown(found)}", _remedy(record, found)


def _remedy(record: Record, found: list[Live]) -> str:
    row = next((row for row in found if takes_over(record, row)), None)
    if row is None:
        return "delete it in the zone; it is of another type, so it cannot become ours"
    which = "it" if len(found) == 1 else "one of them"
    return f"take {which} over with `{record.key}: {row.id}`, or delete it in the zone"


@AREA.error("adopts-another", remedy="write the id under the key of the record that it is, or remove the entry")
def adopts_another(subject: LiveZone) -> Found:
    """An id in `adopt` of a record that is something else: the `up` would overwrite it."""
    rows = {row.id: row for row in subject.rows}
    for record in subject.records():
        row = rows.get(subject.settings.adopt.get(record.key) or "")
        if row and not takes_over(record, row):
            yield (
                f"{subject.path}.adopt.{record.key}",
                f"is the id of {shown(row)}, which would become {record.name} {record.type}",
            )


@AREA.warning("duplicated", remedy="delete it in the zone")
def duplicated(subject: LiveZone) -> Found:
    """A record that was added by hand beside one of ours."""
    for record, found in _rivals(subject):
        if any(row.ours for row in found):
            others = _shown([row for row in found if not row.ours])
            yield subject.path, f"beside our {record.name} {record.type} the zone has {others}"


def _outside(name: str, zone: Fqdn) -> bool:
    return name != zone and not name.endswith(f".{zone}")


def _shown(rows: Sequence[Live]) -> str:
    return ", ".join(f"{row.type} {row.content[:SHOWN]} (id {row.id})" for row in rows)


def _rivals(subject: LiveZone) -> Iterator[tuple[Record, list[Live]]]:
    """Each of our records with the live ones that it would join, where one of them belongs to others and is not adopted.

    A live record is named once: with its counterpart, if it has one.
    """
    if subject.is_other():
        return
    adopted, ours = subject.adopted(), subject.records()
    rows = by_name(row for row in subject.rows if row.id not in adopted)
    counterparts = {row.id: key for key, row in matches(ours, subject.rows).items()}
    named: set[str] = set()
    for record in ours:
        candidates = (row for row in rows.get(record.name, ()) if counterparts.get(row.id, record.key) == record.key)
        found = [row for row in rivals(record, list(candidates)) if row.id not in named]
        if any(not row.ours for row in found):
            named |= {row.id for row in found if not row.ours}
            yield record, found


@AREA.error("unknown-id", remedy="list the zone again, or remove the entry")
def unknown_ids(subject: LiveZone) -> Found:
    """An id in `adopt` that no live record has."""
    known = {row.id for row in subject.rows}
    for key, record_id in subject.settings.adopt.items():
        if subject.live is not None and record_id and record_id not in known:
            yield f"{subject.path}.adopt.{key}", f"no live record has the id {record_id}"


@AREA.error("vanishing")
def vanishing(subject: LiveZone) -> Found:
    """A record that mail depends on is live, ours and not in the settings. It goes in two steps, so that no slip removes it."""
    site, declared = subject.site, {record.key for record in subject.records()}
    hosts, parked = (site.dns.hosts, site.dns.parked) if site.dns else ({}, {})
    for row in subject.rows:
        mail = row.name in {*site.domains, *parked} if row.type == "MX" else row.name in hosts
        key = _key(row, subject.zone) if row.ours and mail else None
        if key and key not in declared and not subject.settings.releases(key):
            yield (
                f"{subject.path}.release",
                f"{row.name} {row.type} {row.content} is live and not in the settings, and mail may still depend on it",
                f"put it back, add {key!r} to release, run `up`, and remove it then",
            )


@AREA.error("mx-left-policy", remedy="list it there for a day after the `up` that removes the MX", source="RFC 8461 section 8.3")
def forgotten_mx(subject: LiveZone) -> Found:
    """An MX leaves an enforced MTA-STS policy while senders still know it from DNS, and then refuse it."""
    site = subject.site
    for domain, settings in site.domains.items():
        mta_sts = settings.dns.mta_sts
        if mta_sts is None or not enforced(site, domain):
            continue
        named = {*mail_exchangers(site, domain), *mta_sts.previous_mx}
        for row in subject.rows:
            if row.ours and row.type == "MX" and row.name == domain and row.content not in named:
                text = f"{row.content} is still an MX of {domain}, and the policy that is enforced would no longer name it"
                yield f"domains.{domain}.dns.mta_sts.previous_mx", text


@AREA.error("over-limit", remedy="remove some, or raise record_limit with the plan", source="Cloudflare's limits")
def over_limit(subject: LiveZone) -> Found:
    """More records than the plan allows, counted in the zone."""
    ours, limit = subject.records(), subject.settings.record_limit
    # What an edit removes counts too: the engine creates before it deletes. So does what another stack has in the zone.
    others = len(subject.rows) - len(matches(ours, subject.rows))
    if len(ours) + others > limit:
        text = f"{len(ours)} records of ours and {others} others are more than the {limit} that the plan allows"
        yield f"{subject.path}.record_limit", text


def _key(row: Live, zone: Fqdn) -> str | None:
    """The key of a live record of the kinds that go with a host: MX and addresses."""
    if row.type == "MX":
        return f"{prefix(row.name, zone)}mx-{row.content}"
    if row.type in {"A", "AAAA"}:
        return f"{prefix(row.name, zone)}{address_key(row.content)}"
    return None
