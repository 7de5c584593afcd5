"""Rules that need the rest of the site: DKIM rotation, report mailboxes, and how old the snapshot is."""

from collections.abc import Iterator

from components.checks.dns.resolver import STALE_DAYS
from components.checks.dns.view import Finding, View, error, warning
from components.dns.content import txt_value
from components.settings.dns import FLIGHT_DAYS, PUBLISH_DAYS
from components.settings.secrets import DkimKey
from components.settings.types import Fqdn, domain_of

_REFRESH = "refresh it with `make dns-snapshot`"


def rotation(view: View) -> Iterator[Finding]:
    """The stages of the DKIM keys make sense together, and no step is taken before the mail under way has arrived."""
    for domain, settings in view.site.domains.items():
        keys = settings.dkim
        if keys and not settings.signing_keys:
            yield error(f"{domain} DKIM", "no key signs; leave the old one in `signing` until the new one does", "RFC 6376 section 3.6")
        replaced = any(key.stage in {"retiring", "revoked"} for key in keys)
        for key in keys:
            yield from _stage(view, domain, key, replaced=replaced)


def _stage(view: View, domain: Fqdn, key: DkimKey, *, replaced: bool) -> Iterator[Finding]:
    where, source = f"{key.selector}._domainkey.{domain} DKIM", "RFC 6376 section 3.6"
    if key.public_key is None:
        yield error(where, "has no public_key, so it cannot be published; the runbook shows how to make it from the private key", source)
    if key.published_on and key.published_on > view.today:
        yield error(where, f"published_on {key.published_on} lies in the future", source)
    elif key.signs and key.published_on and (days := (view.today - key.published_on).days) < PUBLISH_DAYS:
        yield error(
            where,
            f"signs {days} days after it was published; wait {PUBLISH_DAYS}, or verifiers that remember its absence refuse mail",
            source,
        )
    elif key.signs and replaced and key.published_on is None:
        yield error(where, "takes over from another key; say in published_on when its record went live", source)
    if key.stage in {"published", "signing"} and key.retired_on:
        yield error(where, f"is in the stage `{key.stage}` and has a retired_on; remove that, or set the stage to retiring", source)
    if key.stage in {"retiring", "revoked"} and key.retired_on is None:
        yield error(where, "no longer signs; say since when in retired_on", source)
    elif key.stage in {"retiring", "revoked"} and key.retired_on and key.retired_on > view.today:
        yield error(where, f"retired_on {key.retired_on} lies in the future", source)
    elif key.stage == "revoked" and key.retired_on and (days := (view.today - key.retired_on).days) < FLIGHT_DAYS:
        yield error(
            where,
            f"signed until {days} days ago; keep it `retiring` for {FLIGHT_DAYS}, mail that it signed is still under way",
            "RFC 5321 section 4.5.4.1",
        )


def reports(view: View) -> Iterator[Finding]:
    """Reports to ourselves arrive, and stay long enough to be read."""
    asked: dict[str, None] = {}
    for record in view.records:
        if record.type != "TXT" or not record.name.startswith(("_dmarc.", "_smtp._tls.")):
            continue
        for tag in txt_value(record.content).split(";"):
            name, _, value = tag.strip().partition("=")
            if name in {"rua", "ruf"}:
                asked |= {
                    uri.strip().removeprefix("mailto:").lower(): None for uri in value.split(",") if uri.strip().startswith("mailto:")
                }
    for address in asked:
        if domain_of(address) in view.site.domains:
            yield from _report_mailbox(view, address)


def _report_mailbox(view: View, address: str) -> Iterator[Finding]:
    mail, dns = view.site.mail, view.site.dns
    ends = _destinations(view, address)
    if not ends and not (dns and address in dns.external_report_addresses):
        yield error(
            address,
            "is to get reports, but is neither a mailbox nor an alias; add it to mail.aliases, "
            "or to dns.external_report_addresses when the secret store has it",
            "RFC 9989 section 4.7",
        )
    if expiring := [box for box in ends if box in view.expiring]:
        yield warning(address, f"gets reports, which retention deletes in {', '.join(expiring)}; lead it to another mailbox", "settings")
    if address not in mail.mailboxes and address not in mail.aliases and ends:
        where = ", ".join(ends)
        yield warning(
            address, f"gets reports only through the catch-all, in {where}, among everybody's mail; give it an alias", "RFC 9990 section 4"
        )


def _destinations(view: View, address: str) -> list[str]:
    """The mailboxes in which mail to `address` ends, as Postfix follows its aliases."""
    mail, found, waiting, seen = view.site.mail, [], [address], set()
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        targets = mail.aliases.get(current)
        if targets is None and current not in mail.mailboxes:
            targets = mail.aliases.get(f"@{domain_of(current)}")
        if current in mail.mailboxes and (targets is None or current in targets):
            found.append(current)
        elif targets is not None and any(domain_of(target) not in view.site.domains for target in targets):
            found += [target for target in targets if domain_of(target) not in view.site.domains]
        waiting += targets or ()
    return sorted(set(found))


def snapshot(view: View) -> Iterator[Finding]:
    """What other people's DNS was taken to say. The last rule: the others have asked by then."""
    unknown = sorted(view.resolver.unknown)
    if unknown:
        names = ", ".join(f"{name} {kind}" for name, kind in unknown)
        yield warning("snapshot", f"nothing is known of {names}; what they cost and say was not counted, {_REFRESH}", "snapshots/dns.json")
    if view.snapshot.taken and (days := (view.today - view.snapshot.taken).days) > STALE_DAYS:
        yield warning("snapshot", f"is {days} days old; {_REFRESH}", "snapshots/dns.json")
