"""The records at Cloudflare. Nothing else imports its SDK."""

import os
from collections.abc import Mapping, Sequence

import pulumi
import pulumi_cloudflare as cloudflare

from components.base import Component
from components.dns.live import COMMENT, TOKEN, Live, RefusedError, SilentError, read_zone, shown
from components.dns.match import created_again
from components.dns.mta_sts import POLICY_HOST, enforced
from components.dns.records import Record, ttl_of
from components.errors import UserError
from components.settings.dns import Zone
from components.settings.types import Fqdn

# Other credentials that the provider takes. With one of them an `up` would publish without a look at the live zone before.
_IN_CONFIGURATION = ("apiToken", "apiKey", "apiUserServiceKey")
_IN_ENVIRONMENT = ("CLOUDFLARE_API_KEY", "CLOUDFLARE_API_USER_SERVICE_KEY")


def declare(
    component: Component, zones: Mapping[Fqdn, Zone], records: Sequence[Record], policy_rollout: Sequence[pulumi.Resource]
) -> list[cloudflare.DnsRecord]:
    """A DnsRecord for each record of a zone at Cloudflare.

    The announcement of an MTA-STS policy waits for `policy_rollout`: a sender that reads a new id and fetches the old policy
    keeps that for as long as max_age says (RFC 8461 section 3.3). Where the policy is enforced, a new MX waits for the
    announcement of the policy that names it, because senders refuse an MX that theirs does not name.
    """
    _refuse_other_credentials()
    declared: dict[tuple[Fqdn, str], cloudflare.DnsRecord] = {}
    announcements: dict[str, cloudflare.DnsRecord] = {}
    once = _created_once(zones, records)
    for record in sorted(records, key=lambda record: record.type == "MX"):
        zone = zones[record.zone]
        if zone.cloudflare is None:
            continue
        waits_for: list[pulumi.Resource] = []
        if announces := record.name.startswith(f"_{POLICY_HOST}."):
            waits_for += policy_rollout
        if record.type == "MX" and record.name in announcements and enforced(component.site, record.name):
            waits_for.append(announcements[record.name])
        resource = cloudflare.DnsRecord(
            f"{record.zone}/{record.key}",
            zone_id=zone.cloudflare,
            name=record.name,
            type=record.type,
            ttl=ttl_of(component.site, record),
            proxied=record.proxied,
            comment=COMMENT,
            opts=pulumi.ResourceOptions.merge(
                pulumi.ResourceOptions(
                    parent=component,
                    protect=record.carries_mail and not zone.releases(record.key),
                    import_=f"{zone.cloudflare}/{zone.adopt[record.key]}" if zone.adopt.get(record.key) else None,
                    aliases=[pulumi.Alias(name=f"{record.zone}/{record.former}")] if record.former else None,
                    depends_on=waits_for,
                    hooks=pulumi.ResourceHookBinding(before_create=[once]),
                ),
                _unit(record, declared),
            ),
            **_content(record),
        )
        declared[record.zone, record.key] = resource
        if announces:
            announcements[record.name.removeprefix(f"_{POLICY_HOST}.")] = resource
    return list(declared.values())


def _refuse_other_credentials() -> None:
    configuration = pulumi.Config("cloudflare")
    found = [f"cloudflare:{name}" for name in _IN_CONFIGURATION if configuration.get(name)]
    found += [name for name in _IN_ENVIRONMENT if os.environ.get(name)]
    if found:
        raise UserError(f"{found[0]}: remove it, and set {TOKEN} in the environment, by which live zones are read before a change")


def _created_once(zones: Mapping[Fqdn, Zone], records: Sequence[Record]) -> pulumi.ResourceHook:
    """Refuses, in a preview too, to create a record that the zone has from here already: the stack's state does not know it.

    A hook, because only the engine knows what is to be created. Each zone is read once, before the first of its creations.
    """
    declared = {f"{record.zone}/{record.key}": record for record in records}
    before: dict[Fqdn, list[Live]] = {}

    def look(about: pulumi.ResourceHookArgs) -> None:
        record = declared[about.name]
        zone, zone_id, token = record.zone, zones[record.zone].cloudflare, os.environ.get(TOKEN)
        if zone_id is None or not token:
            return
        try:
            live = before[zone] = before[zone] if zone in before else read_zone(zone, zone_id, token)
        except RefusedError as refusal:
            raise UserError(str(refusal)) from None
        except SilentError as silence:
            text = f"{record.name} {record.type} is not created without a look at the live zone: {silence}; try again"
            raise UserError(f"dns.zones.{zone}: {text}") from None
        if row := created_again(record, live):
            raise UserError(
                f"dns.zones.{zone}.adopt: {shown(row)} is live and ours, but not in the state of this stack; leave {row.name} to the "
                f"stack that has it, or, if the state was lost, take it over with `{record.key}: {row.id}`"
            )

    return pulumi.ResourceHook("dns-created-once", look, pulumi.ResourceHookOptions(on_dry_run=True))


def _unit(record: Record, declared: Mapping[tuple[Fqdn, str], cloudflare.DnsRecord]) -> pulumi.ResourceOptions:
    """Options of records that are replaced together, the old ones deleted first.

    Cloudflare refuses a CNAME beside addresses (81053, 81054). Everywhere else creation comes first: a deletion that is followed
    by a refused creation would leave the name without a record.
    """
    if record.unit is None:
        return pulumi.ResourceOptions()
    if record.unit == record.key:
        return pulumi.ResourceOptions(delete_before_replace=True, replace_on_changes=["content"])
    first = declared[record.zone, record.unit]
    return pulumi.ResourceOptions(delete_before_replace=True, replace_with=[first], depends_on=[first])


def _content(record: Record) -> dict:
    """SRV, CAA and TLSA go in parts; the API makes the content of them."""
    content: dict = {"data": cloudflare.DnsRecordDataArgs(**dict(record.data))} if record.data else {"content": record.content}
    if record.priority is not None:
        content["priority"] = record.priority
    return content
