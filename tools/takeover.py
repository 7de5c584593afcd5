"""What taking a live system over does to each object, and what it must not do: lose mail, replace, or upset another controller."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.errors import UserError
from components.mail.accounts import virtual
from components.mail.files import config_files
from components.names import MAIL_SERVER, WEBMAIL
from components.settings.site import Site
from components.settings.types import domain_of
from tools.adoption import mail_elsewhere
from tools.cluster import label, second_servers
from tools.live_site import NAMES_ONLY, LiveSite
from tools.pod import program

OURS = "pulumi"  # how the field managers of Pulumi's provider begin
# A change of these makes the provider replace the object (pulumi-kubernetes, provider/pkg/provider/forcenew.go).
FORCE_NEW = {
    "Deployment": ("selector",),
    "PersistentVolume": ("csi", "nfs", "hostPath", "local", "iscsi", "rbd", "cephfs", "fc"),
    "PersistentVolumeClaim": ("accessModes", "selector", "storageClassName"),
}
CHOSEN_BY_ITS_MAKER = {"volumeHandle"}  # of a csi volume
# Who reads a label or an annotation that begins with this, and the settings that keep it.
CONTROLLERS = {
    "keel.sh/": "Keel",
    "tier": "the cluster's policies",
    "goldilocks.fairwinds.com/": "Goldilocks",
    "diun.": "Diun",
    "velero.io/": "Velero",
    "backup.velero.io/": "Velero",
    "meta.helm.sh/": "Helm",  # the last three: an owner that may put back what it made
    "argocd.argoproj.io/": "Argo CD",
    "kustomize.toolkit.fluxcd.io/": "Flux",
}


@dataclass(frozen=True)
class Refusal:
    """Why the takeover is refused. With a `name`, the owner may decide to leave that one thing behind (LEAVE)."""

    text: str
    name: str = ""


@dataclass(frozen=True)
class Fate:
    """What becomes of one object."""

    reference: str
    word: str
    live: Mapping[str, Any]
    wanted: Mapping[str, Any]


TAKEN, CREATED, ANEW, OWNED, ALONE = "taken over", "created", "made anew", "ours already", "left alone"


def fates(live: LiveSite, declared: Sequence[Mapping[str, Any]]) -> list[Fate]:
    """Every declared object and every live one of the namespace, in the order of the words above."""
    found = [_fate(live, thing) for thing in declared]
    ours = {fate.reference for fate in found}
    namespaced = [thing for thing in live.objects if "namespace" in thing["metadata"] and thing["kind"] != "Pod"]
    others = sorted({label(thing) for thing in namespaced} | set(live.names))
    found += [Fate(reference, ALONE, {}, {}) for reference in others if reference not in ours]
    words = [TAKEN, CREATED, ANEW, OWNED, ALONE]
    return sorted(found, key=lambda fate: (words.index(fate.word), fate.reference))


def _fate(live: LiveSite, wanted: Mapping[str, Any]) -> Fate:
    reference = label(wanted)
    if wanted["kind"] in NAMES_ONLY:
        return Fate(reference, ANEW if reference in live.names else CREATED, {}, wanted)
    there = live.find(wanted["kind"], wanted["metadata"]["name"])
    if there is None:  # of an object in a namespace of others only the name was asked
        return Fate(reference, TAKEN if reference in live.names else CREATED, {"metadata": {}}, wanted)
    owned = any(manager.startswith(OURS) for manager in there["metadata"]["managers"])
    return Fate(reference, OWNED if owned else TAKEN, there, wanted)


def refusals(site: Site, live: LiveSite, declared: Sequence[Mapping[str, Any]]) -> list[Refusal]:
    """All of them, what could lose mail first."""
    taken = [fate for fate in fates(live, declared) if fate.word == TAKEN]
    found = []
    if live.find("Deployment", MAIL_SERVER) or live.find("PersistentVolumeClaim", site.mail.storage.claim):
        found += [
            Refusal(f"{part}: could not be read from the running mail server ({why}), so nothing says that none is lost")
            for part, why in live.missing.items()
            if part in {"aliases", "accounts", "files"}
        ]
    found += [*lost_aliases(site, live), *lost_accounts(site, live), *lost_files(site, live), *another_major(site, live)]
    for fate in taken:
        found += [
            Refusal(text) for text in (*mail_elsewhere(fate.reference, fate.live, fate.wanted), *replaced(fate), *foreign(site, fate))
        ]
        found += dropped(fate)
    found += [Refusal(text) for text in second_servers(site, declared, live.objects)]
    return [*found, *demoted(site, live, declared)]


def lost_aliases(site: Site, live: LiveSite) -> Iterator[Refusal]:
    """Live aliases, line by line, that the init container would not write, or with fewer targets."""
    if live.aliases is None:
        return
    try:
        ours = aliases(site, live)
    except UserError as problem:
        yield from (Refusal(f"the mail server would not start: {line}") for line in str(problem).splitlines())
        return
    where = _source(site.mail.stored_aliases, "aliases", "mail.aliases")
    for line in live.aliases:
        alias, targets = _alias(line)
        if alias not in ours:
            yield Refusal(
                f"{alias} -> {', '.join(sorted(targets))} is live, and in no source of ours: its mail would go to the catch-all or "
                f"bounce; {where}",
                f"alias/{alias}",
            )
        elif lost := targets - ours[alias]:
            yield Refusal(f"{alias} would no longer reach {', '.join(sorted(lost))}; {where}", f"alias/{alias}")


def aliases(site: Site, live: LiveSite) -> dict[str, set[str]]:
    """Targets by alias, as the init container will write them. Raises UserError with its complaints."""
    assemble = program("assemble")
    addresses = {*site.mail.mailboxes, *(live.stored_accounts or ())}
    try:
        text = assemble.aliases(virtual(site), live.stored_aliases, addresses, list(site.domains), site.mail.quotas)
    except assemble.ProblemError as problem:
        raise UserError(str(problem)) from None
    return dict(map(_alias, text.splitlines()))


def caught(site: Site, live: LiveSite) -> list[str]:
    """Accounts whose mail goes to a catch-all, because they have no alias of their own."""
    try:
        ours = aliases(site, live)
    except UserError:  # which the refusals tell
        return []
    accounts = sorted({*site.mail.mailboxes, *(live.stored_accounts or ())})
    return [a for a in accounts if a not in ours and ours.get(f"@{domain_of(a)}", {a}) != {a}]


def _alias(line: str) -> tuple[str, set[str]]:
    alias, *targets = line.replace(",", " ").split()
    return alias.lower(), {target.lower() for target in targets}


def lost_accounts(site: Site, live: LiveSite) -> Iterator[Refusal]:
    """Live accounts that neither the settings nor the store have."""
    where = _source(site.mail.accounts, "accounts", "mail.mailboxes")
    ours = {*site.mail.mailboxes, *(live.stored_accounts or ())}
    for address in live.accounts or ():
        if address.lower() not in ours:
            yield Refusal(
                f"{address} is an account of the running server, and in no source of ours: its mail would bounce; {where}",
                f"account/{address}",
            )


def _source(secret: Any, name: str, setting: str) -> str:
    if secret and secret.source:
        place = f"{secret.source.key}/{secret.source.property}"
        return f"put it into {setting} or into the store ({place}), and give the store's text: {name.upper()}=<file>"
    return f"put it into {setting}, or into the Secret {secret.name}" if secret else f"put it into {setting}"


def lost_files(site: Site, live: LiveSite) -> Iterator[Refusal]:
    """Sieve scripts, patterns and restrictions of the configuration folder: not on the volume, as users' own scripts are, which stay."""
    ours = config_files(site)
    for file in live.files or ():
        owner = file.removesuffix(".dovecot.sieve")
        sieve = file.endswith("sieve")
        if file not in ours and not (owner in site.mail.mailboxes and site.mail.mailboxes[owner].sieve):
            setting = "mail.mailboxes.<address>.sieve" if sieve else "mail.aliases, mail.extra or the mailbox's settings"
            yield Refusal(
                f"{file} decides what becomes of mail today, and no source of ours writes it; put what it does into {setting}",
                f"{'sieve' if sieve else 'file'}/{file}",
            )


def another_major(site: Site, live: LiveSite) -> Iterator[Refusal]:
    """Two changes at once, of which only one can be taken back."""
    server = live.find("Deployment", MAIL_SERVER) or {"spec": {"template": {"spec": {"containers": []}}}}
    for container in server["spec"]["template"]["spec"]["containers"]:
        runs = re.search(r"docker-mailserver:v?(\d+)", container["image"])
        if runs and runs[1] != site.mail.image_major:
            yield Refusal(
                f"mail.image: {container['image']} runs, and the settings name version {site.mail.image_major}; "
                f"take it over with a release of {runs[1]}, and upgrade afterwards (docs/runbooks/upgrade-docker-mailserver.md)"
            )


def replaced(fate: Fate) -> Iterator[str]:
    """Fields that cannot change in place."""
    kind = fate.wanted["kind"]
    for name in FORCE_NEW.get(kind, ()):
        today, afterwards = (_without_handle(thing.get("spec", {}).get(name)) for thing in (fate.live, fate.wanted))
        if today != afterwards and (afterwards is not None or kind == "PersistentVolume"):
            yield f"{fate.reference}: would be replaced, because spec.{name} is {today}, and {afterwards} by the settings; correct these"


def _without_handle(value: Any) -> Any:
    return {key: part for key, part in value.items() if key not in CHOSEN_BY_ITS_MAKER} if isinstance(value, Mapping) else value


def foreign(site: Site, fate: Fate) -> Iterator[str]:
    """Volumes that are not ours, and what is going already."""
    claim = fate.live.get("spec", {}).get("claimRef")
    if claim and (claim.get("namespace"), claim.get("name")) != (site.namespace, fate.wanted["metadata"]["name"]):
        yield f"{fate.reference}: belongs to the claim {claim.get('namespace')}/{claim.get('name')}, which is not ours; choose another name"
    if fate.live["metadata"].get("deletionTimestamp"):
        yield f"{fate.reference}: is being deleted; find out by whom before anything else"


def dropped(fate: Fate) -> Iterator[Refusal]:
    """Labels and annotations that another controller reads, and that nothing of ours answers."""
    for where, (live, wanted) in {
        "": (fate.live["metadata"], fate.wanted["metadata"]),
        "/pod": tuple(thing.get("spec", {}).get("template", {}).get("metadata", {}) for thing in (fate.live, fate.wanted)),
    }.items():
        for sort in ("labels", "annotations"):
            here = wanted.get(sort) or {}
            for key, value in sorted((live.get(sort) or {}).items()):
                reader = next((begin for begin in CONTROLLERS if key.startswith(begin)), None)
                if reader is None or any(name.startswith(reader) for name in here):
                    continue
                kept = _keeping(fate.wanted, where, sort)
                yield Refusal(
                    f"{fate.reference}: {CONTROLLERS[reader]} may read its {sort.removesuffix('s')} {key}: {value}, which would go; "
                    + (f"keep it in {kept}" if kept else "no setting keeps it"),
                    f"{fate.reference}{where}/{key}",
                )


def _keeping(wanted: Mapping[str, Any], where: str, sort: str) -> str | None:
    """The setting that adds labels or annotations to an object, or to its pod."""
    kind, name = wanted["kind"], wanted["metadata"]["name"]
    if where:
        return {MAIL_SERVER: "mail.pod.annotations", WEBMAIL: "webmail.pod.annotations"}.get(name) if sort == "annotations" else None
    if kind in {"Deployment", "CronJob"}:
        return f"cluster.workload_{sort}"
    return "cluster.namespace_labels" if (kind, sort) == ("Namespace", "labels") else None


def demoted(site: Site, live: LiveSite, declared: Iterable[Mapping[str, Any]]) -> Iterator[Refusal]:
    """A mail server whose priority would fall, or whose class does not exist."""
    declared = list(declared)
    values = {thing["metadata"]["name"]: thing["value"] for thing in (*live.objects, *declared) if thing["kind"] == "PriorityClass"}
    for wanted in declared:
        there = live.find(wanted["kind"], wanted["metadata"]["name"]) if wanted["kind"] == "Deployment" else None
        if there is None:
            continue
        name = wanted["spec"]["template"]["spec"].get("priorityClassName")
        if name and name not in values:
            yield Refusal(f"{label(wanted)}: there is no PriorityClass {name}; correct mail.priority_class")
            continue
        chosen = wanted["spec"]["selector"]["matchLabels"].items()
        pods = [
            p["spec"].get("priority", 0)
            for p in live.objects
            if p["kind"] == "Pod" and chosen <= (p["metadata"].get("labels") or {}).items()
        ]
        today = max([values.get(there["spec"]["template"]["spec"].get("priorityClassName"), 0), *pods])
        if values.get(name, 0) < today:
            yield Refusal(
                f"{label(wanted)}: its priority is {today}, and would be {values.get(name, 0)}: it would be evicted before its neighbours; "
                "set priority_class to the present one",
                f"{label(wanted)}/priority",
            )
