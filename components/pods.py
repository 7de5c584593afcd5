"""What every pod of this stack has in common: hardening, a checksum that restarts it, and where it prefers to run."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import pulumi_kubernetes as k8s

from components.settings.extension import PodFields, Toleration

JOB_LABEL = {"app.kubernetes.io/component": "job"}  # on every pod of a job, and on no server's
BESIDE = "mailserver/beside"  # label of pods that mount the volume of the workload they name


def pod_spec(
    more: PodFields,
    *,
    tolerations: Sequence[k8s.core.v1.TolerationArgs] = (),
    sysctls: Mapping[str, str] | None = None,
    **fields: Any,
) -> k8s.core.v1.PodSpecArgs:
    """A pod with no access to the API server and with the runtime's system-call filter; `more` are the site's own fields.

    Sets no fsGroup: it would change the group of every file in a mail volume.
    """
    return k8s.core.v1.PodSpecArgs(
        automount_service_account_token=False,
        node_selector=more.node_selector or None,
        tolerations=[*tolerations, *map(_toleration, more.tolerations)] or None,
        image_pull_secrets=[k8s.core.v1.LocalObjectReferenceArgs(name=name) for name in more.image_pull_secrets] or None,
        enable_service_links=False,
        security_context=k8s.core.v1.PodSecurityContextArgs(
            seccomp_profile=k8s.core.v1.SeccompProfileArgs(type="RuntimeDefault"),
            sysctls=[k8s.core.v1.SysctlArgs(name=name, value=value) for name, value in (sysctls or {}).items()] or None,
        ),
        **fields,
    )


def _toleration(taint: Toleration) -> k8s.core.v1.TolerationArgs:
    operator = "Exists" if taint.value is None else "Equal"
    return k8s.core.v1.TolerationArgs(key=taint.key, operator=operator, value=taint.value, effect=taint.effect)


def rights(
    user: int, *, capabilities: Sequence[str] = (), escalation: bool = False, read_only: bool = True
) -> k8s.core.v1.SecurityContextArgs:
    """Rights of a container that runs as `user` (and its group) and keeps only the listed capabilities."""
    return k8s.core.v1.SecurityContextArgs(
        run_as_user=user,
        run_as_group=user,
        run_as_non_root=user != 0,
        allow_privilege_escalation=escalation,
        read_only_root_filesystem=read_only,
        capabilities=k8s.core.v1.CapabilitiesArgs(drop=["ALL"], add=list(capabilities) or None),
    )


def checksum(texts: Mapping[str, str]) -> dict[str, str]:
    """A pod annotation that changes with the texts, so that a changed configuration starts a new pod."""
    digest = hashlib.sha256()
    for name, text in sorted(texts.items()):
        digest.update(f"{name}\0{text}\0".encode())
    return {"checksum/config": digest.hexdigest()}


def affinity(labels: Mapping[str, str], *, required: bool = False) -> k8s.core.v1.AffinityArgs:
    """Runs on a node that has a pod with these labels: a volume for one node at a time cannot be mounted elsewhere."""
    term = k8s.core.v1.PodAffinityTermArgs(
        label_selector=k8s.meta.v1.LabelSelectorArgs(match_labels=dict(labels)), topology_key="kubernetes.io/hostname"
    )
    if required:
        return k8s.core.v1.AffinityArgs(
            pod_affinity=k8s.core.v1.PodAffinityArgs(required_during_scheduling_ignored_during_execution=[term])
        )
    preferred = k8s.core.v1.WeightedPodAffinityTermArgs(weight=100, pod_affinity_term=term)
    return k8s.core.v1.AffinityArgs(
        pod_affinity=k8s.core.v1.PodAffinityArgs(preferred_during_scheduling_ignored_during_execution=[preferred])
    )
