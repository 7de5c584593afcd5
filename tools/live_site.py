"""A live mail system as it is before it is taken over: asked of cluster, zone, firewall and pod, or read from saved files of them.

The folder that `save` writes and `load` reads has no secret in it: of ConfigMaps and Secrets the names, of accounts the addresses.
"""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from components.edge.client import Firewall
from components.errors import UserError
from components.mail.image import CONFIG_DIR
from components.mail.secrets import ACCOUNTS_KEY, ALIASES_KEY
from components.names import CONTAINER, MAIL_SERVER
from components.settings.site import Site
from tools.cluster import SUPPORT, UnreachableError, answer, existing, kubectl
from tools.commands.edge import sets

KINDS = ("Deployment", "StatefulSet", "DaemonSet", "CronJob", "Ingress", "Service", "PersistentVolumeClaim", "NetworkPolicy", "Pod")
CLUSTER_WIDE = ("Namespace", "PersistentVolume", "PriorityClass")
NAMES_ONLY = (*SUPPORT, "ExternalSecret")
FILE = "live.json"
# Files of the configuration folder that decide what becomes of mail; the image reads them from there only.
DECIDING = r"sieve$|^postfix-(regexp|aliases|receive-access|send-access)\.cf$|^dovecot-(masters|quotas)\.cf$"


@dataclass(frozen=True)
class LiveSite:
    """Objects without `status`; None where a part was not read. `accounts` are addresses, `aliases` lines of the alias file."""

    objects: list[dict[str, Any]]
    names: list[str]  # Kind/name of what is never taken over
    aliases: list[str] | None = None
    accounts: list[str] | None = None
    files: list[str] | None = None  # those of the configuration folder that decide what becomes of mail
    stored_aliases: str | None = None  # of the secret store; None: it has none, or was not read
    stored_accounts: list[str] | None = None
    zones: dict[str, Any] = field(default_factory=dict)  # answers of Cloudflare's API
    firewall: dict[str, Any] = field(default_factory=dict)  # answers of the agent's plan
    missing: dict[str, str] = field(default_factory=dict)  # what was not read, and why

    def find(self, kind: str, name: str) -> dict[str, Any] | None:
        return next((thing for thing in self.objects if (thing["kind"], thing["metadata"]["name"]) == (kind, name)), None)


def save(live: LiveSite, folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps(asdict(live), indent=1), encoding="utf-8")


def load(folder: Path) -> LiveSite:
    """Raises UserError."""
    try:
        return LiveSite(**json.loads((folder / FILE).read_text("utf-8")))
    except OSError as error:
        raise UserError(
            f"FROM: {folder / FILE}: {error.strerror}; `make adopt … SAVE={folder}` writes it where the cluster can be reached"
        ) from None
    except (ValueError, TypeError):
        raise UserError(f"FROM: {folder / FILE}: is not what `make adopt … SAVE=` writes; save it anew") from None


def stored(aliases: Path | None, accounts: Path | None) -> dict[str, Any]:
    """What the owner's files say that the secret store has. Raises UserError."""
    found: dict[str, Any] = {}
    try:
        if aliases:
            found["stored_aliases"] = aliases.read_text("utf-8")
        if accounts:
            found["stored_accounts"] = _addresses(accounts.read_text("utf-8"), str(accounts))
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from None
    return found


def read(site: Site, declared: Sequence[Mapping[str, Any]], firewall: Firewall | UserError | None, zones: Mapping[str, Any]) -> LiveSite:
    """Ask everything; of what is `declared` in a namespace of others, whether it is there.

    Raises UserError where the cluster does not answer; what else could not be read is in `missing`.
    """
    missing: dict[str, str] = {}
    objects = [bare(thing) for kinds in (KINDS, CLUSTER_WIDE) for thing in _list(site, kinds)]
    named = [f"{kind}/{name}" for kind in NAMES_ONLY for name in _names(site, kind)]
    named += existing(site, [thing for thing in declared if thing["metadata"].get("namespace", site.namespace) != site.namespace])
    pod: dict[str, list[str] | None] = {}
    for part, command in {
        "aliases": f"cat {CONFIG_DIR}/postfix-virtual.cf",
        "accounts": f"cut -d'|' -f1 {CONFIG_DIR}/postfix-accounts.cf",  # the hashes stay in the pod
        "files": f"ls -1 {CONFIG_DIR} | grep -E '{DECIDING}' || true",
    }.items():
        try:
            said = _ask(site, "exec", f"deployment/{MAIL_SERVER}", "--container", CONTAINER, "--", "sh", "-c", command)
            pod[part] = [line.strip() for line in said.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        except UnreachableError as error:
            missing[part] = str(error)
    plans: dict[str, Any] = {}
    if isinstance(firewall, UserError):
        missing["firewall"] = str(firewall)
    elif firewall:
        try:
            plans = {kind: firewall.call("plan", kind, wanted) for kind, wanted in sets(site)}
        except UserError as error:
            missing["firewall"] = str(error)
    secret = site.mail.stored_aliases
    accounts = _secret(site, site.mail.accounts.name, ACCOUNTS_KEY)
    return LiveSite(
        objects=objects,
        names=sorted(named),
        **pod,
        stored_aliases=_secret(site, secret.name, ALIASES_KEY) if secret else None,
        stored_accounts=_addresses(accounts, site.mail.accounts.name) if accounts else None,
        zones=dict(zones),
        firewall=plans,
        missing=missing,
    )


def _addresses(text: str, where: str) -> list[str]:
    """The addresses of the accounts map; the passwords are dropped here."""
    try:
        return sorted(json.loads(text))
    except (ValueError, TypeError):
        raise UserError(f"{where}: is not a JSON object of address to password") from None


def _secret(site: Site, name: str, key: str) -> str | None:
    escaped = key.replace(".", r"\.")
    encoded = _ask(site, "get", "secret", name, "--ignore-not-found", "--output", f"jsonpath={{.data.{escaped}}}")
    return base64.b64decode(encoded).decode() if encoded.strip() else None


def bare(thing: dict[str, Any]) -> dict[str, Any]:
    """Without what only the API server writes, and without variables' values and commands: a predecessor may have a password there."""
    metadata = {key: value for key, value in thing["metadata"].items() if key not in {"uid", "resourceVersion", "generation"}}
    managers = sorted({entry["manager"] for entry in metadata.pop("managedFields", ())})
    annotations = {k: v for k, v in metadata.pop("annotations", {}).items() if not k.startswith("kubectl.kubernetes.io/last-applied")}
    bare = {key: value for key, value in thing.items() if key not in {"metadata", "status"}}
    found = {**bare, "metadata": {**metadata, "annotations": annotations, "managers": managers}}
    return json.loads(json.dumps(found), object_hook=_without_value)


def _without_value(part: dict[str, Any]) -> dict[str, Any]:
    part = {key: value for key, value in part.items() if key not in {"command", "args"}}
    return {"name": part["name"]} if part.keys() == {"name", "value"} else part


def _names(site: Site, kind: str) -> list[str]:
    """Of a kind's objects; none where the cluster does not know the kind."""
    try:
        return _ask(site, "get", kind.lower(), "--no-headers", "--output", "custom-columns=NAME:.metadata.name").split()
    except UnreachableError as error:
        if "resource type" not in str(error):
            raise
        return []


def _list(site: Site, kinds: Iterable[str]) -> list[dict[str, Any]]:
    said = _ask(site, "get", ",".join(kinds).lower(), "--show-managed-fields", "--output", "json")
    things = json.loads(said)["items"]
    return [t for t in things if t["kind"] != "Namespace" or t["metadata"]["name"] == site.namespace]


def _ask(site: Site, *arguments: str) -> str:
    return answer(kubectl(site.cluster.context, "--namespace", site.namespace, "--request-timeout", "20s", *arguments))
