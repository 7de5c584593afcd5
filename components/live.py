"""What the cluster adds to our objects and must keep there, and when a rollout has finished."""

import json

_CLAIM_ANNOTATIONS = (
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/selected-node",
)

# Fields that the API server or a controller fills in. An import reads them as if the program had declared them; without this
# list their absence here would remove them, and for volumeName and clusterIP that means a replacement (pulumi-kubernetes, diff.go).
# Written as on the wire: the SDK translates only names without a dot.
FILLED_IN: dict[str, tuple[str, ...]] = {
    "Namespace": ("spec", 'metadata.labels["kubernetes.io/metadata.name"]'),
    "PersistentVolume": ("metadata.finalizers", "spec.claimRef", "spec.csi.volumeHandle"),  # a handle is its maker's to choose
    "PersistentVolumeClaim": (
        "metadata.finalizers",
        "spec.volumeName",
        "spec.resources.requests.storage",  # grown by the autoresizer or by hand, and never shrunk
        *(f'metadata.annotations["{name}"]' for name in _CLAIM_ANNOTATIONS),
    ),
    "Service": (
        "metadata.finalizers",
        "spec.clusterIP",
        "spec.clusterIPs",
        "spec.ipFamilies",
        "spec.ipFamilyPolicy",
        "spec.healthCheckNodePort",
    ),
}


def rolled_out(replicas: int) -> dict[str, str]:
    """Annotation of a Deployment: Pulumi waits until every pod is of the present generation and ready.

    Its own check is content with a Deployment that still counts the stopped pod: with Recreate most updates came back after a
    second, with no pod up. The provider compares observedGeneration before it looks at these fields.
    """
    fields = ("replicas", "updatedReplicas", "readyReplicas")
    return {"pulumi.com/waitFor": json.dumps([f"jsonpath={{.status.{field}}}={replicas}" for field in fields])}
