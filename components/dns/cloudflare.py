"""The records at Cloudflare. Nothing else imports its SDK."""

from collections.abc import Mapping, Sequence

import pulumi
import pulumi_cloudflare as cloudflare

from components.base import Component
from components.dns.mta_sts import POLICY_HOST
from components.dns.records import Record
from components.settings.dns import Zone
from components.settings.types import Fqdn

AUTOMATIC = 1  # Cloudflare's word for a TTL of its choice


def declare(
    component: Component, zones: Mapping[Fqdn, Zone], records: Sequence[Record], policy_rollout: Sequence[pulumi.Resource]
) -> list[cloudflare.DnsRecord]:
    """A DnsRecord for each record of a zone at Cloudflare.

    The announcement of an MTA-STS policy waits for `policy_rollout`: who reads a new id and finds the old policy
    keeps that for as long as max_age says (RFC 8461 section 3.3).
    """
    declared = []
    for record in records:
        zone = zones[record.zone]
        if zone.cloudflare is None:
            continue
        options: dict = {"depends_on": list(policy_rollout)} if record.name.startswith(f"_{POLICY_HOST}.") else {}
        if record.key in zone.adopt:
            options["import_"] = f"{zone.cloudflare}/{zone.adopt[record.key]}"
        declared.append(
            cloudflare.DnsRecord(
                f"{record.zone}/{record.key}",
                zone_id=zone.cloudflare,
                name=record.name,
                type=record.type,
                ttl=_ttl(component, record),
                proxied=record.proxied,
                comment="managed by pulumi: mailserver",
                opts=pulumi.ResourceOptions(
                    parent=component,
                    # A changed type or zone is a replacement, and Cloudflare refuses a CNAME beside what it replaces.
                    delete_before_replace=True,
                    # A key that mail under way was signed with must not go: revoke it first, which takes the protection away.
                    protect=record.keeps_mail_valid and component.protected(f"DnsRecord/{record.key}"),
                    **options,
                ),
                **_content(record),
            )
        )
    return declared


def _ttl(component: Component, record: Record) -> int:
    """Proxied records have Cloudflare's own TTL and no other."""
    ttl = component.site.dns.ttl if component.site.dns else None
    return AUTOMATIC if record.proxied or ttl is None else ttl


def _content(record: Record) -> dict:
    """SRV and CAA go in parts; the API makes the content of them."""
    content: dict = {"data": cloudflare.DnsRecordDataArgs(**dict(record.data))} if record.data else {"content": record.content}
    if record.priority is not None:
        content["priority"] = record.priority
    return content
