"""Rules for values that a schema takes as any text: quantities and words with a fixed choice."""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from components.checks.finding import Area, Found
from components.checks.objects import Rendered

# The grammar of resource.Quantity in the Kubernetes API, without its exponents, which have no use for a mail server.
_QUANTITY = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<suffix>m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?")
_DECIMAL, _BINARY = ("k", "M", "G", "T", "P"), ("Ki", "Mi", "Gi", "Ti", "Pi")
_FACTORS = {
    "m": Decimal("0.001"),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate(_DECIMAL, 1)},
    **{suffix: Decimal(1024) ** power for power, suffix in enumerate(_BINARY, 1)},
}

# Kubernetes API reference, v1.37; the published schemas leave these out.
_WORDS: dict[str, frozenset[str]] = {
    "accessModes": frozenset({"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"}),
    "concurrencyPolicy": frozenset({"Allow", "Forbid", "Replace"}),
    "effect": frozenset({"NoSchedule", "PreferNoSchedule", "NoExecute"}),
    "externalTrafficPolicy": frozenset({"Cluster", "Local"}),
    "imagePullPolicy": frozenset({"Always", "IfNotPresent", "Never"}),
    "medium": frozenset({"", "Memory"}),
    "pathType": frozenset({"Exact", "Prefix", "ImplementationSpecific"}),
    "persistentVolumeReclaimPolicy": frozenset({"Retain", "Delete", "Recycle"}),
    "policyTypes": frozenset({"Ingress", "Egress"}),
    "protocol": frozenset({"TCP", "UDP", "SCTP"}),
    "restartPolicy": frozenset({"Always", "OnFailure", "Never"}),
}
_WORDS_BELOW: dict[str, dict[str, frozenset[str]]] = {
    "Deployment.spec.strategy": {"type": frozenset({"Recreate", "RollingUpdate"})},
    "Service.spec": {"type": frozenset({"ClusterIP", "NodePort", "LoadBalancer", "ExternalName"})},
    "seccompProfile": {"type": frozenset({"RuntimeDefault", "Localhost", "Unconfined"})},
    "tolerations": {"operator": frozenset({"Exists", "Equal", "Lt", "Gt"})},
    "matchExpressions": {"operator": frozenset({"In", "NotIn", "Exists", "DoesNotExist"})},
}
_QUANTITIES = {"requests", "limits", "capacity"}

AREA = Area[Rendered]("values", "Texts in Kubernetes objects that only the API server would check")


def parse_quantity(text: str) -> Decimal | None:
    """The number that a quantity such as `250m` or `1.5Gi` means, or None for anything else."""
    match = _QUANTITY.fullmatch(text)
    return Decimal(match["number"]) * _FACTORS.get(match["suffix"], Decimal(1)) if match else None


@AREA.error("quantity", remedy="write a quantity such as 250m, 512Mi or 5Gi")
def quantity(rendered: Rendered) -> Found:
    """A size, memory or CPU amount that the API server cannot read."""
    for label, path, amounts in _amounts(rendered):
        for name, amount in amounts.items():
            value = parse_quantity(str(amount))
            if value is None:
                yield label, f"{path}.{name}: {amount} is not a quantity"
            elif name in {"memory", "storage", "sizeLimit"} and value % 1:
                yield label, f"{path}.{name}: {amount} is a fraction of a byte"


@AREA.error("request-above-limit", remedy="lower the request or raise the limit")
def request_above_limit(rendered: Rendered) -> Found:
    """A container requests more than its limit; the API server refuses the pod."""
    for label, container in rendered.containers():
        resources = container.get("resources", {})
        for name, limit in resources.get("limits", {}).items():
            request, most = parse_quantity(resources.get("requests", {}).get(name, "0")), parse_quantity(limit)
            if request is not None and most is not None and request > most:
                yield label, f"requests {resources['requests'][name]} of {name} with a limit of {limit}"


@AREA.error("word", remedy="use one of the API's words")
def word(rendered: Rendered) -> Found:
    """A field with a fixed choice of words holds another one."""
    for thing in rendered.declared:
        kind = thing.manifest["kind"]
        if "." in thing.manifest.get("apiVersion", "").partition("/")[0].removesuffix(".k8s.io"):
            continue  # a custom resource, whose schema knows its words
        for path, value in _leaves(thing.manifest.get("spec", {}), (kind, "spec")):
            name = path[-1]
            below = next((words for place, words in _WORDS_BELOW.items() if ".".join(path[:-1]).endswith(place)), {})
            allowed = below.get(name) or _WORDS.get(name)
            if allowed and value not in allowed:
                yield thing.label, f"{'.'.join(path[1:])}: {value} is not one of {', '.join(sorted(allowed - {''}))}"


def _amounts(rendered: Rendered) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Label, path and amounts by name."""
    for thing in rendered.declared:
        for path, value in _leaves(thing.manifest.get("spec", {}), ("spec",)):
            if path[-2] in _QUANTITIES or path[-1] == "sizeLimit":
                yield thing.label, ".".join(path[:-1]), {path[-1]: value}


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every text or number with its path; entries of a list have the list's."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(part, (*path, key))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _leaves(part, path)
    else:
        yield path, value
