"""Rules that compare the records with those that a zone at Cloudflare holds now, and what to demand where nobody could ask it."""

from collections.abc import Iterator, Sequence

from components.dns.live import TOKEN, Live
from components.dns.match import by_name, matches, rivals
from components.dns.mta_sts import enforced, mail_exchangers
from components.dns.records import Record, address_key, prefix, records, zones
from components.settings.site import Site
from components.settings.types import Fqdn

SHOWN = 60  # characters of a content
Found = Iterator[tuple[str, str, str]]  # setting, what is wrong, remedy


def incomplete_adoption(site: Site, zone: Fqdn) -> Found:
    """Some live records are taken over, and nothing says whether those that must not be published twice are live too."""
    adopt = zones(site)[zone].adopt
    if not adopt:
        return
    for record in records(site):
        single = record.type == "MX" or record.key.rpartition(":")[2] in {"spf", "dmarc", "mta-sts"}
        if record.zone == zone and single and record.key not in adopt:
            text = f"does not say whether {record.name} {record.type} is live already"
            yield f"dns.zones.{zone}.adopt", text, f"add {record.key!r} with its id, or with null if there is none; or set {TOKEN}"


def findings(site: Site, zone: Fqdn, live: Sequence[Live]) -> tuple[list[str], list[str]]:
    """Errors and warnings, one line each."""
    errors = list(wrong_zone(zone, live))
    if not errors:
        errors = [found for rule in (unadopted, unknown_ids, vanishing, forgotten_mx, full) for found in rule(site, zone, live)]
    warnings = [] if errors else list(duplicated(site, zone, live))
    return [line(found) for found in errors], [line(found) for found in warnings]


def line(found: tuple[str, str, str]) -> str:
    setting, text, remedy = found
    return f"{setting}: {text}; {remedy}"


def wrong_zone(zone: Fqdn, live: Sequence[Live]) -> Found:
    """The zone id belongs to another zone; every record would be published there."""
    outside = [row.name for row in live if row.name != zone and not row.name.endswith(f".{zone}")]
    if outside:
        yield f"dns.zones.{zone}.cloudflare", f"is the id of another zone, which holds {outside[0]}", f"copy the zone id of {zone}"


def unadopted(site: Site, zone: Fqdn, live: Sequence[Live]) -> Found:
    """A record is live that ours would duplicate: receivers ignore two SPF or DMARC records, and two MX share the mail."""
    for record, found in _rivals(site, zone, live):
        if not any(row.ours for row in found):
            remedy = f"take it over with `{record.key}: {found[0].id}`" if len(found) == 1 else "take over one of them by its id"
            yield f"dns.zones.{zone}.adopt", f"{record.name} already has {_shown(found)}", f"{remedy}, or delete it in the zone"


def duplicated(site: Site, zone: Fqdn, live: Sequence[Live]) -> Found:
    """A record was added by hand beside one of ours."""
    for record, found in _rivals(site, zone, live):
        if any(row.ours for row in found):
            others = _shown([row for row in found if not row.ours])
            yield f"dns.zones.{zone}", f"beside our {record.name} {record.type} the zone has {others}", "delete it in the zone"


def _shown(rows: Sequence[Live]) -> str:
    return ", ".join(f"{row.type} {row.content[:SHOWN]} (id {row.id})" for row in rows)


def _rivals(site: Site, zone: Fqdn, live: Sequence[Live]) -> Iterator[tuple[Record, list[Live]]]:
    """Each of our records with the live ones beside which it would stand, where one of them belongs to others and is not adopted.

    A live record is named once: with its counterpart, if it has one.
    """
    adopted = {record_id for record_id in zones(site)[zone].adopt.values() if record_id}
    rows = by_name(row for row in live if row.id not in adopted)
    ours = [record for record in records(site) if record.zone == zone]
    counterparts = {row.id: key for key, row in matches(ours, live).items()}
    named: set[str] = set()
    for record in ours:
        candidates = (row for row in rows.get(record.name, ()) if counterparts.get(row.id, record.key) == record.key)
        found = [row for row in rivals(record, list(candidates)) if row.id not in named]
        if any(not row.ours for row in found):
            named |= {row.id for row in found if not row.ours}
            yield record, found


def unknown_ids(site: Site, zone: Fqdn, live: Sequence[Live]) -> Found:
    """An id in `adopt` that no live record has."""
    known = {row.id for row in live}
    for key, record_id in zones(site)[zone].adopt.items():
        if record_id and record_id not in known:
            yield f"dns.zones.{zone}.adopt.{key}", f"no live record has the id {record_id}", "list the zone again, or remove the entry"


def vanishing(site: Site, zone: Fqdn, live: Sequence[Live]) -> Found:
    """A record that mail depends on is live, ours and no longer declared. It goes in two steps, so that no slip takes it away."""
    declared = {record.key for record in records(site) if record.zone == zone}
    hosts = site.dns.hosts if site.dns else {}
    for row in live if site.production else ():
        mail = row.name in site.domains if row.type == "MX" else row.name in hosts
        key = _key(row, zone) if row.ours and mail else None
        if key and key not in declared and not zones(site)[zone].releases(key):
            yield (
                f"dns.zones.{zone}.release",
                f"{row.name} {row.type} {row.content} is no longer in the settings, and mail may still depend on it",
                f"put it back, add {key!r} to release, run `up`, and remove it then",
            )


def forgotten_mx(site: Site, zone: Fqdn, live: Sequence[Live]) -> Found:
    """An MX leaves an enforced MTA-STS policy while senders still know it from DNS, and refuse it then."""
    for domain in site.domains:
        mta_sts = site.domains[domain].dns.mta_sts
        if mta_sts is None or not enforced(site, domain):
            continue
        for row in live:
            gone = row.ours and row.type == "MX" and row.name == domain and row.content not in mail_exchangers(site, domain)
            if gone and row.content not in mta_sts.former_mx:
                yield (
                    f"domains.{domain}.dns.mta_sts.former_mx",
                    f"{row.content} is still an MX of {domain}, and the policy that is enforced would no longer name it",
                    "list it there for a day after the `up` that removes the MX",
                )


def full(site: Site, zone: Fqdn, live: Sequence[Live]) -> Found:
    """More records than the plan allows, counted in the zone."""
    ours = sum(record.zone == zone for record in records(site))
    adopted = {record_id for record_id in zones(site)[zone].adopt.values() if record_id}
    others = sum(not row.ours and row.id not in adopted for row in live)
    limit = zones(site)[zone].record_limit
    if ours + others > limit:
        text = f"{ours} records here and {others} of others in the zone are more than the {limit} that the plan allows"
        yield f"dns.zones.{zone}.record_limit", text, "remove some, or raise record_limit with the plan"


def _key(row: Live, zone: Fqdn) -> str | None:
    """The key of a live record of the kinds that go with a host: MX and addresses."""
    if row.type == "MX":
        return f"{prefix(row.name, zone)}mx-{row.content}"
    if row.type in {"A", "AAAA"}:
        return f"{prefix(row.name, zone)}{address_key(row.content)}"
    return None
