"""The live cluster, asked with kubectl and never changed: which one it is, what exists in it already, what a predecessor left."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from components.errors import UserError
from components.settings.site import KEY, Site

PREDECESSORS = {"HashiCorp", "Terraform"}  # field managers of Terraform's Kubernetes provider
SUPPORT = ("ConfigMap", "Secret", "ServiceAccount", "Role", "RoleBinding")  # what a workload of the predecessor needed
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "CronJob", "Ingress")
REFERENCES = {  # by the field that refers
    "configMap": "ConfigMap",
    "configMapRef": "ConfigMap",
    "configMapKeyRef": "ConfigMap",
    "secret": "Secret",
    "secretName": "Secret",
    "secretRef": "Secret",
    "secretKeyRef": "Secret",
    "serviceAccountName": "ServiceAccount",
}
CERTIFICATE = "kubernetes.io/tls"
UNREACHABLE = "PULUMI_K8S_DELETE_UNREACHABLE"

KubernetesObject = Mapping[str, Any]


class UnreachableError(UserError):
    """The cluster was not asked; the text says why."""


def kubectl(
    context: str | None, *arguments: str, text: str | None = None, seconds: float | None = None
) -> subprocess.CompletedProcess[str]:
    command = kubectl_command(context, *arguments)
    return subprocess.run(command, input=text, text=True, capture_output=True, timeout=seconds, check=False)


def kubectl_command(context: str | None, *arguments: str) -> list[str]:
    return ["kubectl", *(["--context", context] if context else []), *arguments]


def answer(result: subprocess.CompletedProcess[str]) -> str:
    """A command's output. Raises UnreachableError with its last words where it failed."""
    if result.returncode:
        raise UnreachableError(reason(result.stderr))
    return result.stdout


def check_cluster(site: Site) -> None:
    """Raise UnreachableError where the site's cluster cannot be asked, UserError where it is another one than the settings say."""
    if os.environ.get(UNREACHABLE, "").lower() in {"1", "true"}:
        raise UserError(f"{UNREACHABLE} is set: while the cluster does not answer, Pulumi would forget every object in it; unset it")
    if site.cluster.context is None:
        return
    if shutil.which("kubectl") is None:
        raise UnreachableError("the cluster was not asked: needs kubectl")
    uid = _ask(site, "get", "namespace", "kube-system", "--output", "jsonpath={.metadata.uid}")
    if site.cluster.uid and uid != site.cluster.uid:
        raise UserError(
            f"{KEY}.cluster.uid: context {site.cluster.context} points to the cluster {uid}, not to {site.cluster.uid}; "
            "correct the context, or the uid if the site is to be set up anew there"
        )
    if not site.cluster.uid:
        print(f"this cluster is `uid: {uid}`; write that below `cluster`, and a context that points elsewhere is noticed")


def existing(site: Site, objects: Iterable[KubernetesObject]) -> list[str]:
    """Which of these objects the cluster has already, as Kind/name."""
    by_namespace: dict[str, list[str]] = {}
    for thing in objects:
        namespace = thing["metadata"].get("namespace", site.namespace)
        by_namespace.setdefault(namespace, []).append(f"{_resource(thing)}/{thing['metadata']['name']}")
    return sorted(found for namespace, wanted in by_namespace.items() for found in _existing(site, namespace, wanted))


def _existing(site: Site, namespace: str, wanted: list[str]) -> list[str]:
    columns = "custom-columns=KIND:.kind,NAME:.metadata.name"
    while wanted:
        flags = ("--namespace", namespace, "--request-timeout", "10s", "--ignore-not-found", "--no-headers", "--output", columns)
        result = kubectl(site.cluster.context, "get", *flags, *wanted)
        if not result.returncode:
            return ["/".join(line.split()) for line in result.stdout.splitlines()]
        # An API that is not there has no objects either; kubectl gives up at the first one.
        known = [entry for entry in wanted if f'"{entry.split("/")[0].split(".")[0]}"' not in result.stderr]
        known = [entry for entry in known if f'"{entry.split("/")[0]}"' not in result.stderr]
        if len(known) == len(wanted):
            raise UnreachableError(f"the cluster was not asked: {reason(result.stderr)}")
        wanted = known
    return []


def absent_namespaces(site: Site, declared: Iterable[KubernetesObject]) -> list[str]:
    """Namespaces of others that declared objects go into, and that the cluster has not."""
    declared = list(declared)
    ours = {thing["metadata"]["name"] for thing in declared if thing["kind"] == "Namespace"}
    needed = sorted({thing["metadata"]["namespace"] for thing in declared if "namespace" in thing["metadata"]} - ours)
    return [name for name in needed if not _ask(site, "get", "namespace", name, "--ignore-not-found", "--output", "name").strip()]


def leftovers(site: Site, declared: Iterable[KubernetesObject]) -> list[str]:
    """What the predecessor made in the namespace and neither the program nor a workload that stays uses, as Kind/name."""
    declared = list(declared)
    ours = {label(thing) for thing in declared}
    workloads = _list(site, WORKLOADS)
    staying = [*declared, *(thing for thing in workloads if label(thing) not in ours)]
    used = {reference for thing in staying for reference in _uses(thing)}
    used.add(f"Secret/{site.tls.secret}")
    # Names and managers only: nothing here may read what is in a Secret.
    fields = (".kind", ".metadata.name", ".type", ".metadata.ownerReferences[*].kind", ".metadata.managedFields[*].manager")
    columns = "custom-columns=" + ",".join(f"C:{field}" for field in fields)
    listed = _ask(site, "get", ",".join(SUPPORT).lower(), "--namespace", site.namespace, "--no-headers", "--output", columns)
    left = set()
    for kind, name, content, owners, managers in (line.split(maxsplit=4) for line in listed.splitlines()):
        if content == CERTIFICATE:
            continue  # what terminates TLS may be of a kind that is not looked at here
        if owners == "<none>" and PREDECESSORS & set(managers.split(",")):
            left.add(f"{kind}/{name}")
    left -= used | ours
    # A right goes with the account that has it, and stays with any other.
    for binding in _list(site, ("RoleBinding",)):
        subjects = {f"{subject['kind']}/{subject['name']}" for subject in binding.get("subjects", ())}
        if not subjects <= left:
            left -= {label(binding), f"{binding['roleRef']['kind']}/{binding['roleRef']['name']}"}
    return sorted(left)


def second_servers(site: Site, declared: Iterable[KubernetesObject], live: Iterable[KubernetesObject] | None = None) -> Iterator[str]:
    """A complaint for each workload that is not ours and keeps running on the mail volume; `live`: the namespace's objects, if known."""
    ours = {label(thing) for thing in declared}
    for thing in _list(site, ("Deployment", "StatefulSet")) if live is None else live:
        if thing["kind"] not in {"Deployment", "StatefulSet"}:
            continue
        spec = thing["spec"]
        claims = {volume.get("persistentVolumeClaim", {}).get("claimName") for volume in spec["template"]["spec"].get("volumes", ())}
        if label(thing) not in ours and site.mail.storage.claim in claims and spec.get("replicas") != 0:
            yield (
                f"{label(thing)} runs on the volume of PersistentVolumeClaim/{site.mail.storage.claim} too: two mail servers damage each "
                f"other's mailboxes; stop it first:\n  kubectl --context {site.cluster.context} --namespace {site.namespace} scale "
                f"{label(thing).lower()} --replicas=0"
            )


def mortal_volumes(site: Site, volumes: Iterable[KubernetesObject] | None = None) -> list[str]:
    """The volumes under the namespace's claims that would be deleted together with their claim; asks for them where they are not given."""
    known: Iterable[KubernetesObject] = _list(site, ("PersistentVolume",)) if volumes is None else volumes
    mortal = (volume for volume in known if volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete")
    return sorted(volume["metadata"]["name"] for volume in mortal if volume["spec"].get("claimRef", {}).get("namespace") == site.namespace)


def keeping(site: Site, volumes: Iterable[str]) -> str:
    """The command after which these volumes survive their claims."""
    policy = json.dumps({"spec": {"persistentVolumeReclaimPolicy": "Retain"}}, separators=(",", ":"))
    return f"kubectl --context {site.cluster.context} patch persistentvolume {' '.join(volumes)} --patch '{policy}'"


def _uses(value: Any) -> Iterable[str]:
    """What an object refers to, as Kind/name."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            if key in REFERENCES and isinstance(part, str):
                yield f"{REFERENCES[key]}/{part}"
            elif key in REFERENCES and isinstance(part, Mapping) and "name" in part:
                yield f"{REFERENCES[key]}/{part['name']}"
            elif key == "imagePullSecrets":
                yield from (f"Secret/{secret['name']}" for secret in part)
            else:
                yield from _uses(part)
    elif isinstance(value, list):
        for part in value:
            yield from _uses(part)


def label(thing: KubernetesObject) -> str:
    return f"{thing['kind']}/{thing['metadata']['name']}"


def _list(site: Site, kinds: Iterable[str]) -> list[dict[str, Any]]:
    return json.loads(_ask(site, "get", ",".join(kinds).lower(), "--namespace", site.namespace, "--output", "json"))["items"]


def removal(site: Site, references: Iterable[str], *flags: str) -> str:
    """The command that removes these objects."""
    words = ("kubectl", "--context", str(site.cluster.context), "--namespace", site.namespace, "delete", *flags)
    return " ".join((*words, *(reference.lower() for reference in references)))


def _resource(thing: KubernetesObject) -> str:
    """`deployment.v1.apps`, as kubectl wants a kind that other APIs may have too."""
    group, _, version = thing["apiVersion"].rpartition("/")
    return f"{thing['kind'].lower()}.{version}.{group}" if group else thing["kind"].lower()


def _ask(site: Site, *arguments: str) -> str:
    result = kubectl(site.cluster.context, *arguments, "--request-timeout", "10s")
    if result.returncode:
        raise UnreachableError(f"the cluster was not asked: {reason(result.stderr)}")
    return result.stdout


def reason(stderr: str) -> str:
    """kubectl's last line: before it come its retries."""
    return (stderr.strip().splitlines() or ["kubectl failed without a word"])[-1].removeprefix("error: ")
