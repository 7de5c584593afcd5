"""Which metrics are pushed, by the source of the programs that push them, and which are read, by rules and dashboard."""

import ast
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from components.monitoring.dashboard import rows
from components.monitoring.rules import PROMETHEUS, groups
from components.settings.site import Site

SCRIPTS = Path(__file__).parents[3] / "scripts/pod"

# Pushed, and read by neither an alert nor a panel, with the reason.
UNREAD = {
    "backup_vanished_files": "ordinary while mail arrives; in the job's log",
    "backup_passes": "ordinary while mail arrives; in the job's log",
    "email_roundtrip_leftovers_deleted": "messages of earlier probes, whose verdicts are shown",
    "email_outbound_leftovers_deleted": "the same",
    "email_outbound_client_public": "the listener that email_roundtrip_client_public tells of",
    "email_outbound_authenticated": "what the other provider's forwarding leaves of SPF and DKIM",
    "mail_restore_snapshot_timestamp": "the drill itself fails on an old snapshot",
}
# Read, and pushed by others: the Pushgateway, kube-state-metrics, the kubelet, and what watches a second MX.
OTHERS = {
    "push_time_seconds",
    "kube_cronjob_created",
    "kube_cronjob_status_last_successful_time",
    "kube_deployment_status_replicas_available",
    "kube_job_failed",
    "kube_job_status_active",
    "kube_job_status_start_time",
    "kubelet_volume_stats_available_bytes",
    "kubelet_volume_stats_capacity_bytes",
    "kubelet_volume_stats_used_bytes",
    "postfix_queue_size",
    "probe_success",
}


def pushed() -> set[str]:
    """First arguments of `.set(…)` in the scripts; a name that cannot be told from the source is an error."""
    return {name for path in sorted(SCRIPTS.glob("*.py")) for name in _Script(path).names()}


def read(site: Site) -> set[str]:
    rules = [rule["expr"] for group in groups(site, PROMETHEUS)["groups"] for rule in group["rules"]]
    panels = [query for row in rows(site).values() for panel in row if panel.kind != "logs" for query in panel.queries]
    return {name for query in (*rules, *panels) for name in metrics_of(query)}


def metrics_of(query: str) -> set[str]:
    """The metrics that a query in PromQL names."""
    bare = re.sub(r'"[^"]*"', "", query)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(by|on|without|ignoring)\s*\([^)]*\)", " ", bare)
    return set(re.findall(r"\b[a-z_]\w*\b(?!\s*\()", bare)) - {"and", "offset", "or", "unless"}


class _Script:
    """Follows names through loops over literals and through constants: no more than the scripts need."""

    def __init__(self, path: Path):
        self.path, self.tree = path, ast.parse(path.read_text("utf-8"))
        self.above = {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}

    def names(self) -> Iterator[str]:
        for call in ast.walk(self.tree):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "set" and len(call.args) > 1:
                yield from self.texts(call.args[0], call)

    def texts(self, node: ast.AST, place: ast.expr | ast.For) -> list[str]:
        """Every text that an expression can be at a place."""
        match node:
            case ast.Constant(str(text)):
                return [text]
            case ast.FormattedValue(value):
                return self.texts(value, place)
            case ast.JoinedStr(parts):
                return ["".join(chosen) for chosen in itertools.product(*(self.texts(part, place) for part in parts))]
            case ast.Name(name):
                return [text for value in self.bound(name, place) for text in self.texts(value, place)]
            case ast.Subscript(ast.Name() as table):
                return [text for value in self.items(table, place) for text in self.texts(_last(value), place)]
        raise AssertionError(f"{self.path.name}:{place.lineno}: cannot tell the metric's name from the source")

    def bound(self, name: str, place: ast.expr | ast.For) -> Sequence[ast.AST]:
        """What a name is bound to: by the innermost loop around the place, else by an assignment in the script."""
        node = place
        while node := self.above.get(node):
            if isinstance(node, ast.For):
                found = [value for item in self.items(node.iter, node) for value in _matched(node.target, item, name)]
                if found:
                    return found
        return [node.value for node in ast.walk(self.tree) if isinstance(node, ast.Assign) for target in node.targets if _is(target, name)]

    def items(self, node: ast.AST, place: ast.expr | ast.For) -> Sequence[ast.AST]:
        """The elements of a literal; those of a dict as pairs."""
        match node:
            case ast.Tuple(elements) | ast.List(elements):
                return elements
            case ast.Dict(keys, values):
                return [ast.Tuple([key, value]) for key, value in zip(keys, values, strict=True) if key]
            case ast.IfExp(_, body, other):
                return [*self.items(body, place), *self.items(other, place)]
            case ast.Call(ast.Attribute(table, "items")):
                return self.items(table, place)
            case ast.Name(name):
                return [item for value in self.bound(name, place) for item in self.items(value, place)]
        return []


def _is(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _last(pair: ast.AST) -> ast.AST:
    return pair.elts[-1] if isinstance(pair, ast.Tuple) else pair


def _matched(target: ast.AST, value: ast.AST, name: str) -> Iterator[ast.AST]:
    if _is(target, name):
        yield value
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for part, other in zip(target.elts, value.elts, strict=True):
            yield from _matched(part, other, name)
