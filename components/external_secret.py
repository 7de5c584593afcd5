"""ExternalSecrets: the cluster itself fetches credentials from the secret store, so none passes through Pulumi."""

from collections.abc import Mapping

import pulumi
import pulumi_kubernetes as k8s

from components.base import MANAGED_BY
from components.settings.secrets import SecretStore, StoreKey


def external_secret(
    resource_name: str,
    *,
    name: str,
    namespace: str,
    store: SecretStore,
    api_version: str,
    keys: Mapping[str, StoreKey],
    opts: pulumi.ResourceOptions,
    template: Mapping[str, str] | None = None,
) -> k8s.apiextensions.CustomResource:
    """An ExternalSecret that makes the Secret `name`.

    `keys` maps each key of the Secret to its place in the store. With a `template`, `keys` are only its variables and the
    Secret holds exactly the template's keys (Go templates with sprig, engine v2).
    """
    target: dict = {"name": name, "creationPolicy": "Owner"}
    if template:
        target["template"] = {"engineVersion": "v2", "data": dict(template)}
    return k8s.apiextensions.CustomResource(
        resource_name,
        api_version=f"external-secrets.io/{api_version}",
        kind="ExternalSecret",
        metadata=k8s.meta.v1.ObjectMetaArgs(
            name=name,
            namespace=namespace,
            labels=MANAGED_BY,
            # Dependents wait until the Secret exists, and get the store's error if it cannot be made.
            annotations={"pulumi.com/waitFor": "condition=Ready"},
        ),
        spec={
            "refreshInterval": store.refresh_interval,
            "secretStoreRef": {"kind": store.kind, "name": store.name},
            "target": target,
            "data": [{"secretKey": key, "remoteRef": {"key": place.key, "property": place.property}} for key, place in keys.items()],
        },
        opts=opts,
    )
