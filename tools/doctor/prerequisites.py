"""What must be in the cluster before an `up`, beside kinds and permissions: classes, volumes that stay, free quota, a free address."""

import json
from collections.abc import Iterator
from typing import Any

from components.jobs.bounds import all_jobs
from components.names import LEGACY_SERVICE, SELECTOR
from components.settings.quantity import in_bytes
from components.settings.site import Site
from tools.cluster import answer
from tools.doctor.check import Seen, broken, degraded, ok, unused
from tools.doctor.cluster import AREA
from tools.doctor.patient import Patient

LEAST = (1, 25)  # spec.timeZone of CronJobs is on from there
# What a quota bounds, and what one more job takes of it: a pod, a Job, and the memory of its largest container.
COUNTED = {"pods", "count/pods", "count/jobs.batch"}
MEMORY = {"requests.memory", "limits.memory", "memory"}
SYSTEM = 1_000_000_000  # of the priorities from here on, every one is Kubernetes' own


def _named(patient: Patient, kind: str, name: str) -> dict[str, Any] | None:
    said = answer(patient.kubectl("get", kind, name, "--ignore-not-found", "--output", "json"))
    return json.loads(said) if said.strip() else None


def _all(patient: Patient, kind: str, *flags: str) -> list[dict[str, Any]]:
    return json.loads(answer(patient.kubectl("get", kind, *flags, "--output", "json")))["items"]


def _classes(site: Site) -> Iterator[tuple[str, str | None]]:
    """Classes that the settings name and that someone else makes."""
    webmail, priority = site.webmail, site.mail.priority_class
    yield "storageclass", site.mail.storage.storage_class
    if priority and priority.value is None:
        yield "priorityclass", priority.name
    if webmail:
        yield "storageclass", webmail.storage.storage_class
        yield "ingressclass", webmail.ingress.ingress_class
    if site.dns:
        yield "ingressclass", site.dns.policy_server.ingress_class


@AREA.check(
    "version",
    expects=f"Kubernetes {LEAST[0]}.{LEAST[1]} or later",
    remedy="upgrade the cluster",
    page="runbooks/first-up.md",
)
def version(patient: Patient) -> Iterator[Seen]:
    """The API server's version."""
    server = json.loads(answer(patient.kubectl("version", "--output", "json")))["serverVersion"]
    running = int(server["major"]), int(server["minor"].rstrip("+"))
    yield (ok if running >= LEAST else broken)("API server", server["gitVersion"])


@AREA.check(
    "classes",
    expects="every class that the settings name exists",
    remedy="`kubectl get storageclass,priorityclass,ingressclass` lists those that exist; correct the setting, or make the class",
    page="runbooks/first-up.md",
)
def classes(patient: Patient) -> Iterator[Seen]:
    """Storage, priority and Ingress classes of others; a missing one leaves claims or pods waiting."""
    for kind, name in dict.fromkeys(_classes(patient.site)):
        if name:
            yield ok(f"{kind} {name}", "exists") if _named(patient, kind, name) else broken(f"{kind} {name}", "does not exist")


@AREA.check(
    "volumes",
    expects="every volume outlives its claim",
    remedy="`make preview` prints the command that keeps them",
    page="runbooks/protection.md",
)
def volumes(patient: Patient) -> Iterator[Seen]:
    """The reclaim policy of the volumes under the namespace's claims: with `Delete` a deleted claim takes the mail with it."""
    for volume in _all(patient, "persistentvolumes"):
        spec = volume["spec"]
        if spec.get("claimRef", {}).get("namespace") == patient.site.namespace:
            policy = spec.get("persistentVolumeReclaimPolicy")
            about = f"{spec['claimRef']['name']} ({volume['metadata']['name']})"
            yield ok(about, policy) if policy == "Retain" else degraded(about, f"is deleted with its claim (reclaim policy {policy})")


@AREA.check(
    "quota",
    expects="the namespace's quotas have one more job to spare",
    remedy="raise the ResourceQuota, or delete what finished; a job beyond the quota does not start, and says nothing",
    page="runbooks/deploy.md",
)
def quota(patient: Patient) -> Iterator[Seen]:
    """What the namespace may still use, against the largest job."""
    memory = max((in_bytes(container.memory) for job in all_jobs(patient.site) for container in job.containers), default=0)
    for each in patient.objects("resourcequotas"):
        about, status = f"ResourceQuota/{each['metadata']['name']}", each.get("status", {})
        used = status.get("used", {})
        short = []
        for what, hard in status.get("hard", {}).items():
            if what in MEMORY:
                free, needed = in_bytes(hard) - in_bytes(used.get(what, "0")), memory
            elif what in COUNTED:
                free, needed = int(hard) - int(used.get(what, "0")), 1
            else:
                continue
            if free < needed:
                short.append(f"{what} {used.get(what, '0')} of {hard}")
        yield broken(about, f"not enough left for a job: {', '.join(short)}") if short else ok(about, "enough for a job")


@AREA.check(
    "priority",
    expects="the mail server is not the first to be evicted from its node",
    remedy="a higher mail.priority_class.value, or another class of the cluster in mail.priority_class.name",
    page="runbooks/deploy.md",
)
def priority(patient: Patient) -> Iterator[Seen]:
    """The priority of the mail server's pod, against the other pods on its node; the lowest goes first when memory is short."""
    pods = [pod for pod in _all(patient, "pods", "--all-namespaces") if pod.get("status", {}).get("phase", "Running") == "Running"]
    for pod in pods:
        labels = pod["metadata"].get("labels", {})
        if pod["metadata"].get("namespace", patient.site.namespace) != patient.site.namespace or not SELECTOR.items() <= labels.items():
            continue
        node, own = pod.get("spec", {}).get("nodeName"), _priority(pod)
        others = [_priority(other) for other in pods if other is not pod and other.get("spec", {}).get("nodeName") == node]
        others = [value for value in others if value < SYSTEM]
        above = sum(value > own for value in others)
        text = f"priority {own}; {above} of {len(others)} other pods on {node} are above it"
        lowest = bool(others) and own < min(others)
        yield (degraded if lowest or above > len(others) / 2 else ok)(pod["metadata"]["name"], text)


def _priority(pod: dict[str, Any]) -> int:
    return pod.get("spec", {}).get("priority") or 0


@AREA.check(
    "legacy-address",
    expects="the address of the roll-back belongs to our Service and to no other",
    remedy="name a free address of the LoadBalancer's pool in edge.legacy.address",
    page="runbooks/edge.md",
)
def legacy_address(patient: Patient) -> Iterator[Seen]:
    """Who holds edge.legacy.address: while another Service has it, a roll-back would send mail there."""
    legacy = patient.site.edge.legacy
    if legacy is None:
        yield unused("edge.legacy")
        return
    wanted = str(legacy.address)
    for service in _all(patient, "services", "--all-namespaces"):
        metadata = service["metadata"]
        ours = (metadata.get("namespace"), metadata["name"]) == (patient.site.namespace, LEGACY_SERVICE)
        held = {entry.get("ip") for entry in service.get("status", {}).get("loadBalancer", {}).get("ingress") or []}
        if ours and wanted not in held:
            yield broken(wanted, f"Service/{LEGACY_SERVICE} has {', '.join(sorted(filter(None, held))) or 'no address yet'}")
        elif wanted in held and not ours:
            yield broken(wanted, f"belongs to Service/{metadata['name']} in {metadata.get('namespace')}")
