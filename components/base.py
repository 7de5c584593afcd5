"""What every component shares: its place in the tree, the labels and the options of its children."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pulumi
import pulumi_kubernetes as k8s

from components.live import FILLED_IN
from components.settings.site import Site

CLUSTER_SCOPED = {"Namespace", "PriorityClass", "PersistentVolume"}
NO_WAIT = {"pulumi.com/skipAwait": "true"}  # for what Pulumi would wait for though nothing here depends on its being ready
MANAGED_BY = {"app.kubernetes.io/managed-by": "pulumi", "app.kubernetes.io/part-of": "mailserver"}


@dataclass
class Context:
    """What all components of one stack are built from."""

    site: Site
    cluster: k8s.Provider
    declared: set[str] = field(default_factory=set)  # Kind/name of each Kubernetes object and of whatever else can be protected


class Component(pulumi.ComponentResource):
    """A component on this stack's cluster, unless `opts` or their parent bring another Kubernetes provider.

    `TYPE` and every logical name are part of URNs: one that changes needs an alias, or the engine replaces what is deployed.
    """

    TYPE: ClassVar[str]

    def __init__(
        self,
        name: str,
        context: Context,
        opts: pulumi.ResourceOptions | None = None,
        *,
        namespace: k8s.core.v1.Namespace | None = None,
    ) -> None:
        """`namespace` is what every namespaced child depends on."""
        super().__init__(self.TYPE, name, {}, _on_cluster(context.cluster, opts))
        self.context = context
        self.site = context.site
        self.namespace = namespace

    def named(self, part: str) -> str:
        """Logical name of a child: it begins with the component's, so that a program can hold two."""
        return f"{self.pulumi_resource_name}-{part}"

    def child(self, kind: str, name: str, *, namespace: str | None = None, keep: bool = False, **options: Any) -> pulumi.ResourceOptions:
        """Options of the Kubernetes object `kind`/`name`: parented here, adopted if the settings say so.

        `namespace` is where it lives if not in the site's.

        `keep` leaves it in the cluster when it goes from the program, whatever the settings say, and protects it from going at all
        unless the settings name it under `unprotected`. Adopted objects come in by import, which makes the engine refuse any
        replacement (pulumi/pulumi, step_generator.go).
        """
        reference = f"{kind}/{name}"
        namespaced = kind not in CLUSTER_SCOPED
        self.context.declared.add(reference)
        if reference in self.site.adopt:
            options["import_"] = f"{namespace or self.site.namespace}/{name}" if namespaced else name
        if namespaced and self.namespace:
            options["depends_on"] = [self.namespace, *options.get("depends_on", [])]
        if keep:
            options |= {"protect": self.protected(reference), "retain_on_delete": True}
        if kind in FILLED_IN:
            options["ignore_changes"] = list(FILLED_IN[kind])
        return pulumi.ResourceOptions(parent=self, **options)

    def protected(self, reference: str) -> bool:
        """Whether the engine must refuse to delete or replace `reference` (Kind/name); only `unprotected` says no, one by one."""
        self.context.declared.add(reference)
        return reference not in self.site.unprotected

    def metadata(
        self, name: str, labels: dict[str, str] | None = None, annotations: dict[str, str] | None = None
    ) -> k8s.meta.v1.ObjectMetaArgs:
        """Metadata of an object in the site's namespace."""
        return k8s.meta.v1.ObjectMetaArgs(
            name=name, namespace=self.site.namespace, labels=MANAGED_BY | (labels or {}), annotations=annotations or None
        )

    def workload_metadata(self, name: str, labels: dict[str, str], annotations: dict[str, str] | None = None) -> k8s.meta.v1.ObjectMetaArgs:
        """Metadata of what runs pods, with what the cluster's settings add to it."""
        cluster = self.site.cluster
        return self.metadata(name, cluster.workload_labels | labels, cluster.workload_annotations | (annotations or {}))

    def config_map(self, name: str, data: dict[str, str], labels: dict[str, str]) -> k8s.core.v1.ConfigMap:
        """A ConfigMap of files in the site's namespace."""
        return k8s.core.v1.ConfigMap(
            self.named(f"config-{name}"),
            metadata=self.metadata(name, labels=labels),
            data=data,
            opts=self.child("ConfigMap", name),
        )


def _on_cluster(cluster: k8s.Provider, opts: pulumi.ResourceOptions | None) -> pulumi.ResourceOptions | None:
    if opts and (opts.provider or (opts.parent and opts.parent.get_provider("kubernetes:core/v1:Namespace"))):
        return opts
    return pulumi.ResourceOptions.merge(pulumi.ResourceOptions(providers=[cluster]), opts)


def cluster_provider(site: Site, name: str = "cluster") -> k8s.Provider:
    """The stack's own Kubernetes provider: never the cluster that a kubeconfig happens to point at."""
    cluster = site.cluster
    return k8s.Provider(
        name,
        kubeconfig="",  # found by the provider itself; as an input, each operator's path would be a change
        context=cluster.context,
        render_yaml_to_directory=cluster.render_to,
        cluster_identifier=cluster.uid,  # replaced when this changes, and not for a renamed context
        enable_config_map_mutable=True,  # a replaced ConfigMap would be gone while the pod mounts it
        # Server-side apply leaves every field in place that another manager has set, for good: an adopted Deployment becomes a
        # mixture of both owners', and a field that Terraform had set can never be removed. A three-way patch of what was
        # declared, what is declared and what is there has no such second owner, for imported and for new objects alike.
        enable_server_side_apply=False,
    )
