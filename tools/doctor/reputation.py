"""What block lists say of our addresses and domains."""

from collections.abc import Iterator

from tools.doctor.check import Area, BlindError, Seen, blind, broken, degraded, ok
from tools.doctor.dns import ask, resolver
from tools.doctor.patient import Patient
from tools.pod import program

AREA = Area("reputation", "what block lists say of our addresses and domains")
blocklists = program("blocklists")


@AREA.check(
    "block-lists",
    expects="no block list has an address or a domain of ours",
    remedy="the list's own page says why and how to leave; first find what sent (`make doctor ONLY=mail`), or it comes back",
    page="runbooks/alerts.md",
)
def block_lists(patient: Patient) -> Iterator[Seen]:
    """Each public address of the mail hosts, and each domain, in each list of the nightly job. A list that refuses to answer, as they
    do to public resolvers, is not one that lists us: its test entries tell."""
    site = patient.site
    server = resolver(patient, str(site.doctor.internal_resolver or patient.resolvers[0]))
    hosts = {site.host(domain) for domain in site.domains}
    addresses = [address for host, entry in (site.dns.hosts if site.dns else {}).items() if host in hosts for address in entry.addresses]
    subjects = [*map(str, addresses), *site.domains]

    def look(subject: str) -> str:
        return blocklists.verdict(ask(server, blocklists.question(subject, blocklist.zone), "A"), blocklist)

    for blocklist in blocklists.LISTS:
        asked = [subject for subject in subjects if blocklists.kind(subject) in blocklist.kinds]
        try:
            if why := blocklists.doubt(blocklist, {blocklists.kind(subject) for subject in asked}, look):
                yield blind(blocklist.zone, f"{why} (asked {server.nameservers[0]})")
                continue
            yield from (_seen(f"{subject} in {blocklist.zone}", look(subject), relayed=bool(site.mail.relay)) for subject in asked)
        except BlindError as error:
            yield blind(blocklist.zone, str(error))


def _seen(about: str, verdict: str, *, relayed: bool) -> Seen:
    match verdict:
        case "clear":
            return ok(about, "not listed")
        case "refused":
            return blind(about, "refused to answer")
        case "policy" if relayed:  # others see the relay's address
            return ok(about, "listed as a line of end users, which send no mail themselves; the relay does")
        case _ if relayed:
            return degraded(about, "listed")
        case _:
            return broken(about, "listed: others refuse our mail")
