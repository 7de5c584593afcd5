"""A new site: what its settings can be read off its cluster, its keys, and what is left to do by hand."""

import base64
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from components.mail.secrets import ACCOUNTS_KEY, handmade_secrets
from components.settings.site import Site
from tools.cluster import UnreachableError, answer, kubectl

SELECTOR = "mail"
DKIM_BITS = 2048  # RFC 8301 asks for at least 1024; some resolvers still cut off a record of 4096
SECONDS = 20.0  # for one answer of the cluster
TUNNELS = ("projectcalico.org/IPv4VXLANTunnelAddr", "projectcalico.org/IPv4IPIPTunnelAddr")  # annotations of a node
FLANNEL = "flannel.alpha.coreos.com/backend-type"  # its tunnel has the first address of the node's range
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
POOLS = "ippools.crd.projectcalico.org"
EXTERNAL_SECRETS = "externalsecrets.external-secrets.io"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


@dataclass(frozen=True)
class Survey:
    """What a cluster says of itself."""

    uid: str
    nodes: dict[str, dict[str, str]]  # settings of each, by name
    workers: tuple[str, ...]  # those that are not kept for the control plane
    pod_networks: tuple[str, ...]  # empty where nothing says so
    storage_classes: dict[str, bool]  # by name, whether it is the default
    external_secrets: bool
    reloader: bool


def survey(context: str) -> Survey:
    """Raises UnreachableError."""
    kinds = _ask(context, "get", "customresourcedefinition", "--output", "name").split()
    nodes = _items(context, "nodes")
    pools = _items(context, POOLS) if any(name.endswith(f"/{POOLS}") for name in kinds) else []
    ranges = [pool["spec"]["cidr"] for pool in pools] or [cidr for node in nodes if (cidr := node.get("spec", {}).get("podCIDR"))]
    controlled = {
        node["metadata"]["name"] for node in nodes if any(t["key"] == CONTROL_PLANE for t in node.get("spec", {}).get("taints", ()))
    }
    names = [node["metadata"]["name"] for node in nodes]
    return Survey(
        uid=_ask(context, "get", "namespace", "kube-system", "--output", "jsonpath={.metadata.uid}"),
        nodes={node["metadata"]["name"]: _settings(node) for node in nodes},
        workers=tuple([name for name in names if name not in controlled] or names),
        pod_networks=tuple(sorted(set(ranges))),
        storage_classes={
            each["metadata"]["name"]: each["metadata"].get("annotations", {}).get(DEFAULT_CLASS) == "true"
            for each in _items(context, "storageclasses")
        },
        external_secrets=any(name.endswith(f"/{EXTERNAL_SECRETS}") for name in kinds),
        reloader="reloader" in _ask(context, "get", "deployments", "--all-namespaces", "--output", "name"),
    )


def _settings(node: Mapping[str, Any]) -> dict[str, str]:
    annotations, spec = node["metadata"].get("annotations", {}), node.get("spec", {})
    addresses = [entry["address"] for entry in node.get("status", {}).get("addresses", ()) if entry["type"] == "InternalIP"]
    tunnels = [annotations[name] for name in TUNNELS if name in annotations]
    if FLANNEL in annotations and "podCIDR" in spec:
        tunnels.append(str(ip_network(spec["podCIDR"]).network_address))
    return {name: found[0] for name, found in (("address", addresses), ("tunnel_address", tunnels)) if found}


def contexts() -> list[str]:
    """Of the user's kubeconfig; none where there is no kubectl."""
    try:
        return kubectl(None, "config", "get-contexts", "--output", "name", seconds=SECONDS).stdout.split()
    except OSError:
        return []


def _items(context: str, kind: str) -> list[dict[str, Any]]:
    return json.loads(_ask(context, "get", kind, "--output", "json"))["items"]


def _ask(context: str, *arguments: str) -> str:
    try:
        return answer(kubectl(context, *arguments, "--request-timeout", "10s", seconds=SECONDS))
    except OSError:
        raise UnreachableError("needs kubectl") from None


def dkim_key() -> tuple[str, str]:
    """A new key: PEM of the private half, base64 of the public one."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=DKIM_BITS)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return key.private_bytes(*form).decode(), base64.b64encode(public).decode()


def first_account(mailbox: str) -> str:
    """The accounts Secret with one password, which no one has chosen."""
    return json.dumps({mailbox: secrets.token_urlsafe(18)}) + "\n"


def by_hand(site: Site, stack: str, folder: str) -> Iterator[str]:
    """What has to be done before the first `up`, step by step; commands are indented. `folder` has the keys."""
    kubectl = " ".join(("kubectl", *(["--context", site.cluster.context] if site.cluster.context else [])))
    yield "1. State. Say where Pulumi keeps it (a folder, S3, PostgreSQL) and how its secrets are encrypted; keep both."
    yield "       export PULUMI_BACKEND_URL=file://$HOME/mail-state PULUMI_CONFIG_PASSPHRASE=<yours>"
    if site.cluster.context is None:
        yield "   Set cluster.context in place of cluster.render_to."
    yield f"2. Secrets. The certificate for {', '.join(site.tls.names)} comes from an authority (fullchain.pem, privkey.pem)."
    yield f"       {kubectl} create namespace {site.namespace}"
    domain = site.primary
    for name, keys in handmade_secrets(site).items():
        create = f"{kubectl} --namespace {site.namespace} create secret"
        if name == site.tls.secret:
            yield f"       {create} tls {name} --cert=fullchain.pem --key=privkey.pem"
        else:
            files = {key: f"{folder}/accounts.json" if key == ACCOUNTS_KEY else f"{folder}/{key}.pem" for key in keys}
            yield f"       {create} generic {name} {' '.join(f'--from-file={key}={file}' for key, file in files.items())}"
    yield f"   {folder} has your first password and the DKIM key: keep a copy elsewhere and remove it; git ignores it."
    yield f"3. DNS. `make render STACK={stack}` writes build/{stack}/dns/{domain}.zone: add these records at your DNS provider, and ask the"
    yield f"   provider of your addresses for the reverse name {site.hostname}."
    yield "4. Firewall. To let it be managed, compare its host key with the one at its console, and write it below `edge`:"
    yield f"       ssh-keyscan -t ed25519 {site.edge.address}"
    yield "       ssh: {user: admin, host_key: ssh-ed25519 AAAA…}"
    yield f"   Or set it up by hand from build/{stack}/edge/haproxy.cfg, and forward the ports to {site.edge.address}."


def commands(stack: str) -> tuple[str, str, str]:
    """What to type then."""
    return f"make stack-init STACK={stack}", f"make preview STACK={stack}", f"make up STACK={stack}"


def afterwards(site: Site, stack: str) -> Iterator[str]:
    yield f"Write to {next(iter(site.mail.mailboxes))} from elsewhere, and read it at {site.hostname}, port 993 (IMAP with TLS)."
    yield f"`make doctor STACK={stack}` says what is not well. Then take `adopt` out of the settings (docs/runbooks/deploy.md)."
