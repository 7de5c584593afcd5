"""Each rule between rendered objects, with a site's own objects of which one is broken."""

import copy

import pytest

from components.checks import references, values
from components.checks.finding import run
from components.checks.objects import Declared, Rendered

POD = "spec/template/spec"
JOB = "spec/jobTemplate/spec/template"


@pytest.fixture
def broken(recording, site):
    """Codes and places of what is found once the value at a path of an object is another, or gone where it is `...`."""

    def find(stack, label, path, value):
        things = [r for r in recording(stack).resources if r.type.startswith("kubernetes:")]
        declared = {f"{r.inputs['kind']}/{r.inputs['metadata']['name']}": Declared(copy.deepcopy(r.inputs), r.options) for r in things}
        assert not run([references.AREA, values.AREA], Rendered(site(stack), list(declared.values())))
        if path is None:
            del declared[label]
        else:
            *parents, last = [int(part) if part.isdecimal() else part for part in path.split("/")]
            place = declared[label].manifest
            for parent in parents:
                place = place[parent]
            place.__delitem__(last) if value is ... else place.__setitem__(last, value)
        return [(f.code, f.setting, f.text) for f in run([references.AREA, values.AREA], Rendered(site(stack), list(declared.values())))]

    return find


CASES = {
    "a mount of a volume that is not there": (
        *("prod", "CronJob/spam-retention", f"{JOB}/spec/volumes/0/name", "script"),
        {"references.mount-without-volume", "references.volume-without-mount"},
    ),
    "an init container's mount": (
        *("prod", "Deployment/mailserver", f"{POD}/initContainers/0/volumeMounts/1/name", "confg"),
        {"references.mount-without-volume", "references.volume-without-mount"},
    ),
    "a ConfigMap that is not declared": ("prod", "ConfigMap/mail-jobs", None, None, {"references.config-map"}),
    "a key that the ConfigMap has not": (
        *("prod", "ConfigMap/mailserver-config", "data/dovecot.cf", ...),
        {"references.config-map"},
    ),
    "an ExternalSecret that is gone": ("prod", "ExternalSecret/mailserver-accounts", None, None, {"references.secret"}),
    "another key in the Secret": (
        *("prod", "ExternalSecret/mailserver-probe-secrets", "spec/target/template/data", {"BREVO": "x"}),
        {"references.secret"},
    ),
    "a Secret that is not made": (
        *("dev", "Deployment/mailserver", f"{POD}/volumes/4/secret/secretName", "mail-tsl"),
        {"references.secret"},
    ),
    "a claim that is not declared": ("prod", "PersistentVolumeClaim/mailserver-data-encrypted", None, None, {"references.claim"}),
    "a claim that cannot be written": (
        *("prod", "PersistentVolumeClaim/mailserver-data-encrypted", "spec/accessModes", ["ReadOnlyMany"]),
        {"references.claim"},
    ),
    "a claim of another volume": (
        *("prod", "PersistentVolumeClaim/mailserver-backup-host", "spec/volumeName", "backup"),
        {"references.volume-of-claim"},
    ),
    "a volume of another class": (
        *("prod", "PersistentVolume/mailserver-backup-host", "spec/storageClassName", "nfs"),
        {"references.volume-of-claim"},
    ),
    "a volume that is too small": (
        *("prod", "PersistentVolume/mailserver-backup-host", "spec/capacity", {"storage": "1Gi"}),
        {"references.volume-of-claim"},
    ),
    "a Service of other pods": ("prod", "Service/mailserver", "spec/selector", {"app": "mail"}, {"references.selector"}),
    "a policy of other pods": (
        "prod",
        "NetworkPolicy/mailserver",
        "spec/podSelector/matchLabels",
        {"app": "mail"},
        {"references.selector"},
    ),
    "a workload that does not find its own pods": (
        *("prod", "Deployment/mta-sts", "spec/selector/matchLabels", {"app": "mta_sts"}),
        {"references.selector"},
    ),
    "a backup beside nothing": (
        *("prod", "CronJob/mailserver-backup", f"{JOB}/spec/affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution/0"),
        {"labelSelector": {"matchLabels": {"app": "mail"}}, "topologyKey": "kubernetes.io/hostname"},
        {"references.affinity"},
    ),
    "a Service to a closed port": (
        *("prod", "Service/mailserver-proxy", "spec/ports/0/targetPort", 2526),
        {"references.port", "references.not-admitted"},
    ),
    "a policy for a closed port": (
        "prod",
        "NetworkPolicy/mailserver",
        "spec/ingress/0/ports/0/port",
        2526,
        {"references.port", "references.not-admitted"},
    ),
    "a policy without a port": ("prod", "NetworkPolicy/mailserver", "spec/ingress/1/ports/1", ..., {"references.not-admitted"}),
    "a policy without sources": ("prod", "NetworkPolicy/mailserver", "spec/ingress/0/from", [], {"references.not-admitted"}),
    "a probe at a closed port": (
        "prod",
        "Deployment/mailserver",
        f"{POD}/containers/0/livenessProbe",
        {"tcpSocket": {"port": 994}},
        {"references.port"},
    ),
    "an HTTP probe at a closed port": (
        *("prod", "Deployment/mta-sts", f"{POD}/containers/0/readinessProbe/httpGet/port", 80),
        {"references.port"},
    ),
    "an Ingress to another port": (
        *("prod", "Service/mta-sts", "spec/ports/0/name", "web"),
        {"references.backend"},
    ),
    "an Ingress to no Service": ("prod", "Service/mta-sts", None, None, {"references.backend"}),
    "a priority that is not declared": ("dev", "PriorityClass/mailserver-100000", None, None, {"references.priority-class"}),
    "memory that is not a quantity": (
        *("prod", "Deployment/mailserver", f"{POD}/initContainers/0/resources/limits/memory", "128Mix"),
        {"values.quantity"},
    ),
    "a fraction of a byte": (
        *("prod", "Deployment/mailserver", f"{POD}/containers/0/resources/limits/memory", "4500m"),
        {"values.quantity", "values.request-above-limit"},
    ),
    "a size of an emptyDir": ("prod", "Deployment/mta-sts", f"{POD}/volumes/1/emptyDir/sizeLimit", "8Mb", {"values.quantity"}),
    "a request above the limit": (
        *("prod", "Deployment/mta-sts", f"{POD}/containers/0/resources/requests/memory", "65Mi"),
        {"values.request-above-limit"},
    ),
    "an access mode": (
        *("prod", "CronJob/mail-restore", f"{JOB}/spec/volumes/6/ephemeral/volumeClaimTemplate/spec/accessModes", ["ReadWrite"]),
        {"values.word"},
    ),
    "a protocol": ("prod", "Service/mta-sts", "spec/ports/0/protocol", "TCPx", {"values.word"}),
    "a strategy": ("prod", "Deployment/mailserver", "spec/strategy/type", "Recreated", {"values.word"}),
    "a type of Service": ("prod", "Service/mailserver", "spec/type", "Cluster", {"values.word"}),
    "a toleration": ("prod", "Deployment/mailserver", f"{POD}/tolerations/0/operator", "Exist", {"values.word"}),
}


@pytest.mark.parametrize("case", CASES)
def test_one_broken_object_is_found(broken, case):
    *where, codes = CASES[case]
    found = broken(*where)
    assert {code for code, _, _ in found} == codes


@pytest.mark.parametrize(
    ("text", "number"),
    [("250m", "0.25"), ("1.5Gi", 1.5 * 2**30), ("2G", 2_000_000_000), ("0", 0), ("1Kib", None), ("", None), ("-1", None)],
)
def test_a_quantity_is_read_as_kubernetes_reads_it(text, number):
    value = values.parse_quantity(text)
    assert value == number if number is None else float(value) == float(number)
