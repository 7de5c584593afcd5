"""Rules for the mail server: image, mailboxes, aliases, sizes."""

import re
from collections.abc import Iterator

from components.checks.finding import Area, Found
from components.mail.dovecot import foreign_lines
from components.mail.extra import overridden
from components.settings.mail import QUEUE_HEADROOM, TESTED_IMAGE_MAJORS, Mailbox
from components.settings.quantity import in_bytes
from components.settings.schedule import most_runs_per_day
from components.settings.site import Site
from components.settings.types import domain_of, is_pinned

AREA = Area[Site]("mail", "the mail server, its mailboxes and aliases")


@AREA.error("image-untested")
def image_untested(site: Site) -> Found:
    """Another major version of docker-mailserver has another Dovecot, with another configuration syntax."""
    if site.mail.image_major not in TESTED_IMAGE_MAJORS:
        yield "mail.image", f"{site.mail.image} is not of a tested major version", f"use version {' or '.join(TESTED_IMAGE_MAJORS)}"


@AREA.error("dovecot-syntax", source="doc.dovecot.org, Upgrading Dovecot CE from 2.3 to 2.4")
def dovecot_syntax(site: Site) -> Found:
    """A line in the syntax of the other Dovecot: IMAP would be down, while the container looks healthy."""
    for version, line, instead in foreign_lines(site):
        problem = f"`{line}` is not for Dovecot {version}, which docker-mailserver {site.mail.image_major} has"
        yield "mail.extra.dovecot", problem, f"write {instead}"


@AREA.warning("image-not-pinned", remedy="pin it by digest: image:tag@sha256:…")
def image_not_pinned(site: Site) -> Found:
    """Anyone who can push the tag again can run code that reads all mail."""
    if site.production and not is_pinned(site.mail.image):
        yield "mail.image", f"{site.mail.image} is not pinned by digest, so anyone who can push the tag again can read all mail"


@AREA.error("mailbox-outside", remedy="add the domain, or remove the mailbox")
def mailbox_outside(site: Site) -> Found:
    """A mailbox is in one of the site's domains; the server takes no mail for any other."""
    for address in site.mail.mailboxes:
        if domain_of(address) not in site.domains:
            yield f"mail.mailboxes.{address}", f"{domain_of(address)} is not in domains"


@AREA.error("mailbox-with-detail", remedy="use a name without '+'")
def mailbox_with_detail(site: Site) -> Found:
    """Postfix delivers name+detail to name, so a mailbox with '+' in its name never gets mail."""
    for address in site.mail.mailboxes:
        if "+" in address:
            yield f"mail.mailboxes.{address}", "'+' separates an address from its detail, so this mailbox gets no mail"


@AREA.error("alias-outside", remedy="add the domain, or remove the alias")
def alias_outside(site: Site) -> Found:
    """An alias is in one of the site's domains; the server takes no mail for any other."""
    for alias in site.mail.aliases:
        if domain_of(alias) not in site.domains:
            yield f"mail.aliases.{alias}", f"{domain_of(alias)} is not in domains"


@AREA.error("alias-without-target", remedy="name a mailbox, or remove the alias")
def alias_without_target(site: Site) -> Found:
    """An alias forwards to at least one address."""
    for alias, targets in site.mail.aliases.items():
        if not targets:
            yield f"mail.aliases.{alias}", "has no target"


@AREA.error("alias-target-twice", remedy="remove one")
def alias_target_twice(site: Site) -> Found:
    """A target that is listed twice is a mistake in one of the two."""
    for alias, targets in site.mail.aliases.items():
        if len(set(targets)) < len(targets):
            yield f"mail.aliases.{alias}", "lists a target twice"


@AREA.error("alias-target-unknown", remedy="declare it in mail.mailboxes")
def alias_target_unknown(site: Site) -> Found:
    """A target in one of our domains that nothing delivers: its mail would go to the catch-all, or come back."""
    for alias, targets in site.mail.aliases.items():
        for target in targets:
            if domain_of(target) in site.domains and target not in site.mail.mailboxes and target not in site.mail.aliases:
                yield f"mail.aliases.{alias}", f"{target} is neither a mailbox nor an alias"


@AREA.error("alias-with-quotas", remedy="name the mailbox itself as the alias's first target, or remove mail.mailboxes.*.quota")
def alias_with_quotas(site: Site) -> Found:
    """With quotas the image adds each alias of a mailbox to Dovecot's user list, and one between two mailboxes breaks the list."""
    mailboxes = site.mail.mailboxes
    for alias, targets in site.mail.aliases.items() if site.mail.quotas else ():
        # The image (16: of several targets) takes the first that is a part of any line of the accounts file, so a shorter name counts too.
        first = next((target for target in targets if any(target in box for box in mailboxes)), None)
        if first and alias in mailboxes and any(first in box for box in mailboxes if box != alias):
            yield f"mail.aliases.{alias}", "with quotas on, an alias between two mailboxes breaks Dovecot's user list"


def _grants(site: Site) -> Iterator[tuple[str, str, Mailbox, str]]:
    """Setting, mailbox's address, mailbox and each address that it may send as."""
    for address, mailbox in site.mail.mailboxes.items():
        yield from ((f"mail.mailboxes.{address}.send_as", address, mailbox, granted) for granted in mailbox.send_as)


@AREA.error("sender-outside", remedy="remove it")
def sender_outside(site: Site) -> Found:
    """Mailboxes send as addresses of the site's own domains only."""
    for setting, _, _, granted in _grants(site):
        if domain_of(granted) not in site.domains:
            yield setting, f"{granted} is not in one of the site's domains"


@AREA.error("sender-itself", remedy="remove it")
def sender_itself(site: Site) -> Found:
    """A mailbox may always send as itself."""
    for setting, address, _, granted in _grants(site):
        if granted == address:
            yield setting, f"{granted} is the mailbox itself, which needs no grant"


@AREA.error("sender-twice", remedy="remove one")
def sender_twice(site: Site) -> Found:
    """An address that is listed twice is a mistake in one of the two."""
    for address, mailbox in site.mail.mailboxes.items():
        if len(set(mailbox.send_as)) < len(mailbox.send_as):
            yield f"mail.mailboxes.{address}.send_as", "lists an address twice"


@AREA.warning("sender-without-replies")
def sender_without_replies(site: Site) -> Found:
    """Replies and bounces to an address that takes no mail are lost."""
    mail = site.mail
    for setting, _, _, granted in _grants(site):
        if granted not in mail.mailboxes and granted not in mail.aliases and f"@{domain_of(granted)}" not in mail.aliases:
            yield setting, f"replies to {granted} are lost", "add an alias for it"


@AREA.warning("shadowed-by-catch-all", remedy="alias the mailbox to itself if it should get its own mail")
def shadowed_by_catch_all(site: Site) -> Found:
    """Postfix asks the aliases first, and a catch-all answers for every address without an alias of its own."""
    aliases = site.mail.aliases
    unless = ", unless the secret store has an alias for it" if site.mail.stored_aliases else ""
    for box in site.mail.mailboxes:
        if box not in aliases and box not in aliases.get(f"@{domain_of(box)}", (box,)):
            yield f"mail.mailboxes.{box}", f"the catch-all takes its mail{unless}"


@AREA.warning("forwards-through-relay", remedy="try one before you rely on it")
def forwards_through_relay(site: Site) -> Found:
    """A relay may refuse messages whose sender is not its customer's, which is every forwarded message."""
    for alias in site.external_aliases if site.mail.relay else ():
        yield f"mail.aliases.{alias}", f"forwards through {site.mail.relay and site.mail.relay.host}, which may refuse foreign senders"


@AREA.warning("forwards-without-srs", remedy="set mail.srs to true")
def forwards_without_srs(site: Site) -> Found:
    """A forwarded message keeps its sender, whose SPF record does not name us."""
    for alias in site.external_aliases if not site.srs else ():
        yield f"mail.aliases.{alias}", "forwards without SRS, so messages fail SPF at the next hop"


@AREA.warning("srs-undecided", remedy="set mail.srs to true if one of them does, or to false")
def srs_undecided(site: Site) -> Found:
    """Aliases of the secret store are not known here, so whether one forwards outside is for you to say."""
    if site.mail.srs is None and not site.srs and site.mail.stored_aliases:
        yield "mail.srs", "is off, because no alias of the settings forwards outside; those of the secret store may"


@AREA.warning("sieve-tests-envelope", remedy='test the header, such as address "from"')
def sieve_tests_envelope(site: Site) -> Found:
    """SRS rewrites the envelope sender of all inbound mail, so a Sieve test on it sees SRS0=… and never the sender."""
    for address, mailbox in site.mail.mailboxes.items() if site.srs else ():
        if mailbox.sieve and re.search(r'\benvelope\b[^;{]*"from"', mailbox.sieve, re.IGNORECASE):
            yield f"mail.mailboxes.{address}.sieve", 'tests envelope "from", which SRS rewrites'


@AREA.error("storage-fills", remedy="raise size or free_threshold_percent", source="queue_minfree, postconf(5)")
def storage_fills(site: Site) -> Found:
    """Postfix refuses all mail while less than 1.5 times the largest message is free; the volume must grow before that."""
    storage = site.mail.storage
    free = in_bytes(storage.size) * storage.free_threshold_percent // 100
    needed = int(QUEUE_HEADROOM * in_bytes(site.mail.message_size_limit))
    if free <= needed:
        yield (
            "mail.storage",
            f"{storage.free_threshold_percent} % of {storage.size} is {free >> 20} MiB, but Postfix refuses all mail below "
            f"{needed >> 20} MiB free (1.5 x mail.message_size_limit)",
        )


@AREA.error("growth-limit", remedy="raise it")
def growth_limit(site: Site) -> Found:
    """The autoresizer stops at a size that the volume has at least."""
    storage = site.mail.storage
    if in_bytes(storage.growth_limit) < in_bytes(storage.size):
        yield "mail.storage.growth_limit", f"{storage.growth_limit} is below size {storage.size}"


@AREA.error("memory-limit", remedy="raise it")
def memory_limit(site: Site) -> Found:
    """A container's limit is not below its request."""
    resources = site.mail.resources
    if in_bytes(resources.memory_limit) < in_bytes(resources.memory_request):
        yield "mail.resources.memory_limit", f"{resources.memory_limit} is below memory_request {resources.memory_request}"


# `make bench` measures it. Rspamd 3.4 and 3.12 take 7 bytes for each byte of plain text, 2.5 of an attachment, and 15 of a message that
# is nothing but web addresses, which no setting of Rspamd bounds: only an attacker sends those.
_IDLE_MEMORY = 410 << 20
_MEMORY_PER_MESSAGE_BYTE = 14


@AREA.error("memory-for-messages", remedy="raise mail.resources.memory_limit, or lower mail.message_size_limit", consent=True)
def memory_for_messages(site: Site) -> Found:
    """Rspamd reads messages whole: two of the largest at once, which any sender can send, must not end the container."""
    limit = in_bytes(site.mail.resources.memory_limit)
    needed = _IDLE_MEMORY + _MEMORY_PER_MESSAGE_BYTE * in_bytes(site.mail.message_size_limit)
    if limit < needed:
        yield (
            "mail.resources.memory_limit",
            f"{site.mail.resources.memory_limit} is below the {needed >> 20} MiB that two messages of {site.mail.message_size_limit} take",
        )


@AREA.error("sending-limit-without-redis", remedy="set mail.rspamd.redis to true, or mail.sending_limit to null")
def sending_limit_without_redis(site: Site) -> Found:
    """Rspamd counts what an account sends in Redis; without it there is no limit."""
    if site.mail.sending_limit and not site.mail.rspamd.redis:
        yield "mail.sending_limit", "needs Redis, in which Rspamd counts"


@AREA.warning("sending-limit-above-quota", remedy="lower per_day")
def sending_limit_above_quota(site: Site) -> Found:
    """With the quota used up, the relay refuses everybody's mail until the next day; accounts of the Secret alone are not counted."""
    limit, relay, probe = site.mail.sending_limit, site.mail.relay, site.jobs.probe
    if limit is None or relay is None or relay.daily_quota is None:
        return
    boxes, by_api = len(site.mail.mailboxes), most_runs_per_day(probe.schedule) if probe else 0
    if boxes * limit.per_day + by_api > relay.daily_quota:
        yield (
            "mail.sending_limit.per_day",
            f"{boxes} mailboxes with {limit.per_day} each and {by_api} of the probe may use up the relay's quota of {relay.daily_quota}",
        )


# What any program asks for that logs people in (OpenID Connect Core 1.0, section 5.4 and 11).
COMMON_SCOPES = ("openid", "profile", "email", "address", "phone", "offline_access")


@AREA.warning("oauth-scope", remedy="let the issuer give a scope of its own to mail programs, and name that one")
def oauth_scope(site: Site) -> Found:
    """A program that has a user's token with this scope may read all of the user's mail."""
    if site.mail.oauth and site.mail.oauth.scope in COMMON_SCOPES:
        yield "mail.oauth.scope", f"any program that people log in to with the issuer has tokens with {site.mail.oauth.scope}"


@AREA.note("no-relay", remedy="port 25 must be open outbound, and the address needs a matching reverse name")
def no_relay(site: Site) -> Found:
    """Without a relay, the server delivers to each recipient's MX itself."""
    if site.mail.relay is None:
        yield "mail.relay", "is not set, so mail leaves from your own address"


@AREA.note("own-line-replaced", remedy="remove it unless you mean to")
def own_line_replaced(site: Site) -> Found:
    """An extra line or variable of the settings replaces one that the program sets itself."""
    for setting, own in overridden(site) if site.primary in site.domains else ():
        yield setting, f"replaces {own}, which this program sets"
