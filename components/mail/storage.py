"""The mail volume: protected, kept when the stack goes, and never shrunk or grown by Pulumi."""

import pulumi_kubernetes as k8s

from components.base import NO_WAIT, Component
from components.settings.quantity import Bytes

# Mail, state and logs share one claim. Another folder name would start with an empty mailbox.
MOUNTS = {"data": "/var/mail", "state": "/var/mail-state", "log": "/var/log/mail"}


def mail_claim(component: Component) -> k8s.core.v1.PersistentVolumeClaim:
    storage = component.site.mail.storage
    annotations = {}
    if component.site.cluster.autoresizer:
        annotations = {
            "resize.topolvm.io/threshold": f"{storage.free_threshold_percent}%",  # of FREE space: 80 % once grew a volume every few minutes
            "resize.topolvm.io/increase": f"{storage.growth_percent}%",
            "resize.topolvm.io/storage_limit": storage.growth_limit,
        }
    return claim(component, storage.claim, storage.size, annotations)


def claim(
    component: Component, name: str, size: Bytes, annotations: dict[str, str] | None = None, storage_class: str | None = None
) -> k8s.core.v1.PersistentVolumeClaim:
    """A claim for one node at a time that outlives the stack. `size` counts at creation only: others grow it later."""
    return k8s.core.v1.PersistentVolumeClaim(
        component.named(f"claim-{name}"),
        # A class that binds on first use would never be ready while Pulumi waits for it before the pod.
        metadata=component.metadata(name, annotations=NO_WAIT | (annotations or {})),
        spec=k8s.core.v1.PersistentVolumeClaimSpecArgs(
            access_modes=["ReadWriteOnce"],
            storage_class_name=storage_class or component.site.mail.storage.storage_class,
            resources=k8s.core.v1.VolumeResourceRequirementsArgs(requests={"storage": size}),
        ),
        opts=component.child("PersistentVolumeClaim", name, keep=True),
    )
