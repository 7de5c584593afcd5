"""The doctor's checks of cluster, supervisor and jobs on recorded answers; its bounds of time, its order and its exit codes."""

import json
import re
import subprocess
import threading
from datetime import UTC, datetime, timedelta

import pytest

from components.errors import UserError
from components.jobs.bounds import all_jobs
from components.monitoring.rules import LOKI, PROMETHEUS, groups
from tests.doctor import not_well
from tools.__main__ import main
from tools.commands.doctor import table
from tools.doctor import cluster, delivery, dns, edge, jobs, mail, monitoring, prerequisites, results
from tools.doctor.areas import AREAS
from tools.doctor.check import Area, broken, degraded, ok
from tools.doctor.examine import examine, exit_code
from tools.doctor.patient import Patient, of_cluster
from tools.offline.stackfile import ROOT

ELSEWHERE = {"jobs.results", "jobs.second-mx"}  # tests/tools/test_doctor_answers.py
REMEDY = {"expects": "it is well", "remedy": "mend it", "page": "lab.md"}


def ago(hours: float) -> str:
    return (datetime.now(UTC) - timedelta(hours=hours)).isoformat(timespec="seconds").replace("+00:00", "Z")


def thing(name: str, **parts):
    return {"metadata": {"name": name, "creationTimestamp": ago(48)}, **parts}


class Cluster:
    """Answers kubectl as an API server does, out of lists that a test may change."""

    def __init__(self, site) -> None:
        self.site = site
        labels = {"app": "mailserver"}
        status = {"observedGeneration": 3, "readyReplicas": 1, "conditions": [{"type": "Available", "status": "True"}]}
        server = thing("mailserver", status=status, spec={"template": {"spec": {"containers": [{"image": site.mail.image}]}}})
        server["metadata"]["generation"] = 3
        pod = thing("mailserver-1", status={"containerStatuses": [{"name": "docker-mailserver", "restartCount": 0}]})
        pod["metadata"]["labels"] = labels
        self.lists = {
            "persistentvolumeclaims": [thing("mailserver-data", status={"phase": "Bound"})],
            "externalsecrets.external-secrets.io": [thing("accounts", status={"conditions": [{"type": "Ready", "status": "True"}]})],
            "deployments": [server],
            "pods": [pod],
            "events": [],
            "cronjobs": [thing(job.name, spec={}, status={"lastSuccessfulTime": ago(0.01)}) for job in all_jobs(site)],
            "jobs": [],
            "resourcequotas": [
                thing("tier", status={"hard": {"limits.memory": "16Gi", "pods": "30"}, "used": {"limits.memory": "4Gi", "pods": "9"}})
            ],
        }
        pod["metadata"]["namespace"] = site.namespace
        containers = [{"name": "docker-mailserver", "image": site.mail.image}]
        pod["spec"] = {"nodeName": "node1", "priority": 1000, "containers": containers}
        volume = {"claimRef": {"name": "mailserver-data", "namespace": site.namespace}, "persistentVolumeReclaimPolicy": "Retain"}
        foreign = thing("api", spec={"nodeName": "node1", "priority": 2_000_000_000}, status={"phase": "Running"})
        self.everywhere = {
            "persistentvolumes": [thing("pvc-1", spec=volume)],
            "pods": [pod, foreign, thing("web-1", spec={"nodeName": "node1", "priority": 0})],
            "services": [thing("mailserver-legacy", status={"loadBalancer": {"ingress": [{"ip": "10.0.20.210"}]}})],
        }
        self.everywhere["services"][0]["metadata"]["namespace"] = site.namespace
        self.classes = {"proxmox-lvm-encrypted", "tier-3-edge", "traefik"}
        self.versions = "v1beta1 v1"
        self.denied: set[str] = set()

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        match words:
            case ("version", *_):
                return self._said(json.dumps({"serverVersion": {"major": "1", "minor": "34+", "gitVersion": "v1.34.2"}}))
            case ("get", "customresourcedefinition", *_):
                return self._said(self.versions)
            case ("get", "storageclass" | "priorityclass" | "ingressclass", name, *_):
                return self._said(json.dumps(thing(name)) if name in self.classes else "")
            case ("get", kind, *flags) if "--all-namespaces" in flags or kind == "persistentvolumes":
                return self._said(json.dumps({"items": self.everywhere[kind]}))
            case ("auth", "can-i", verb, kind, "--namespace", namespace):
                no = f"{verb} {kind}{'' if namespace == self.site.namespace else f' in {namespace}'}" in self.denied
                return self._said("no\n" if no else "yes\n", code=int(no))
            case ("get", kind, *_):
                return self._said(json.dumps({"items": self.lists[kind]}))
        raise AssertionError(words)

    def _said(self, text: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], code, text, "")


@pytest.fixture
def live(site):
    return Cluster(site("prod", {"edge/legacy": {"address": "10.0.20.210"}}))


def patient(live: Cluster) -> Patient:
    return Patient(live.site, live, live, None, ("192.0.2.53",))


def look(live: Cluster, *areas: Area) -> dict[str, list[str]]:
    """What is not well, by check."""
    checks = [check for area in areas for check in area.checks if check.id not in ELSEWHERE]
    return not_well(examine(patient(live), checks, lambda check: None))


def test_a_sound_cluster_is_well(live):
    assert look(live, cluster.AREA, jobs.AREA) == {}


def _other_image(live):
    live.lists["deployments"][0]["spec"]["template"]["spec"]["containers"][0]["image"] = "mailserver/docker-mailserver:edge"


def _killed(live):
    last = {"terminated": {"reason": "OOMKilled", "finishedAt": ago(0.2)}}
    live.lists["pods"][0]["status"]["containerStatuses"][0] |= {"restartCount": 1, "lastState": last}


def _failed_job(live):
    job = thing("backup-1", status={"conditions": [{"type": "Failed", "status": "True", "message": "BackoffLimitExceeded"}]})
    job["metadata"]["ownerReferences"] = [{"kind": "CronJob", "name": "mailserver-backup"}]
    earlier = thing("backup-0", status={"conditions": [{"type": "Complete", "status": "True"}]})
    earlier["metadata"] |= {"ownerReferences": job["metadata"]["ownerReferences"], "creationTimestamp": ago(72)}
    live.lists["jobs"] = [job, earlier]


BROKEN = {
    "a claim without a volume": (
        lambda live: live.lists["persistentvolumeclaims"][0]["status"].update(phase="Lost"),
        {"broken cluster.claims": ["PersistentVolumeClaim/mailserver-data: Lost"]},
    ),
    "a secret that the store refuses": (
        lambda live: live.lists["externalsecrets.external-secrets.io"][0].update(
            status={"conditions": [{"type": "Ready", "status": "False", "message": "permission denied"}]}
        ),
        {"broken cluster.secrets": ["ExternalSecret/accounts: permission denied"]},
    ),
    "a kind in another version": (
        lambda live: setattr(live, "versions", "v1beta1"),
        {
            "broken cluster.interfaces": [
                "externalsecrets.external-secrets.io: is known as v1beta1, not as v1; install another version of External Secrets"
            ]
        },
    ),
    "a kind that is not installed": (
        lambda live: setattr(live, "versions", ""),
        {"broken cluster.interfaces": ["externalsecrets.external-secrets.io: is not known here; External Secrets brings it"]},
    ),
    "a class that is gone": (
        lambda live: live.classes.remove("tier-3-edge"),
        {"broken cluster.classes": ["priorityclass tier-3-edge: does not exist"]},
    ),
    "a volume that dies with its claim": (
        lambda live: live.everywhere["persistentvolumes"][0]["spec"].update(persistentVolumeReclaimPolicy="Delete"),
        {"degraded cluster.volumes": ["mailserver-data (pvc-1): is deleted with its claim (reclaim policy Delete)"]},
    ),
    "a quota of memory that is used up": (
        lambda live: live.lists["resourcequotas"][0]["status"]["used"].update({"limits.memory": "15872Mi"}),
        {"broken cluster.quota": ["ResourceQuota/tier: not enough left for a job: limits.memory 15872Mi of 16Gi"]},
    ),
    "a quota of pods that is used up": (
        lambda live: live.lists["resourcequotas"][0]["status"]["used"].update(pods="30"),
        {"broken cluster.quota": ["ResourceQuota/tier: not enough left for a job: pods 30 of 30"]},
    ),
    "neighbours of higher priority": (
        lambda live: live.everywhere["pods"][2]["spec"].update(priority=5000),
        {"degraded cluster.priority": ["mailserver-1: priority 1000; 1 of 1 other pods on node1 are above it"]},
    ),
    "a roll-back address of another service": (
        lambda live: live.everywhere["services"][0]["metadata"].update(name="traefik", namespace="traefik"),
        {"broken cluster.legacy-address": ["10.0.20.210: belongs to Service/traefik in traefik"]},
    ),
    "a roll-back address that is not given": (
        lambda live: live.everywhere["services"][0]["status"].clear(),
        {"broken cluster.legacy-address": ["10.0.20.210: Service/mailserver-legacy has no address yet"]},
    ),
    "no deployment": (
        lambda live: live.lists["deployments"].clear(),
        {"broken cluster.mail-server": ["Deployment/mailserver: does not exist"]},
    ),
    "a pod that is not ready": (
        lambda live: live.lists["deployments"][0]["status"].pop("readyReplicas"),
        {"broken cluster.mail-server": ["Deployment/mailserver: no pod is ready"]},
    ),
    "another image": (
        _other_image,
        {"degraded cluster.mail-server": ["Deployment/mailserver: runs mailserver/docker-mailserver:edge, declared is "]},
    ),
    "a pod of before the update that still runs": (
        lambda live: live.lists["pods"][0]["spec"]["containers"][0].update(image="mailserver/docker-mailserver:14.0.0"),
        {"degraded cluster.mail-server": ["mailserver-1: runs mailserver/docker-mailserver:14.0.0, declared is "]},
    ),
    "a container that was killed": (
        _killed,
        {"degraded cluster.restarts": ["mailserver-1 docker-mailserver: started again 1 times; last ended: OOMKilled"]},
    ),
    "a right that is missing": (
        lambda live: live.denied.add("patch services"),
        {"broken cluster.permissions": ["mailserver: may not patch services"]},
    ),
    "an Ingress that may not be made": (
        lambda live: live.denied.add("create ingresses.networking.k8s.io"),
        {"broken cluster.permissions": ["mailserver: may not create ingresses.networking.k8s.io"]},
    ),
    "a namespace of others that is closed to this user": (
        lambda live: live.denied.add("patch configmaps in monitoring"),
        {"broken cluster.permissions": ["monitoring: may not patch configmaps"]},
    ),
    "a warning of Kubernetes": (
        lambda live: live.lists["events"].append(
            thing(
                "e",
                type="Warning",
                reason="FailedMount",
                message="no such\nfile",
                lastTimestamp=ago(0.1),
                involvedObject={"kind": "Pod", "name": "p"},
            )
        ),
        {"degraded cluster.events": ["Pod/p: FailedMount: no such file"]},
    ),
    "an old warning": (
        lambda live: live.lists["events"].append(
            thing("e", type="Warning", reason="x", message="y", lastTimestamp=ago(2), involvedObject={"kind": "Pod", "name": "p"})
        ),
        {},
    ),
    "a job that is gone": (lambda live: live.lists["cronjobs"].pop(0), {"broken jobs.runs": ["does not exist"]}),
    "a job that stopped": (
        lambda live: live.lists["cronjobs"][0]["status"].update(lastSuccessfulTime=ago(24 * 30)),
        {"broken jobs.runs": ["last success 720.0 h ago"]},
    ),
    "a job that was suspended": (
        lambda live: live.lists["cronjobs"][0]["spec"].update(suspend=True),
        {"broken jobs.runs": ["is suspended in the cluster"]},
    ),
    "a run that failed": (_failed_job, {"broken jobs.last-run": ["CronJob/mailserver-backup: Job backup-1: BackoffLimitExceeded"]}),
}


@pytest.mark.parametrize("case", BROKEN)
def test_one_fault_is_named_and_nothing_else(live, case):
    damage, expected = BROKEN[case]
    damage(live)
    found = look(live, cluster.AREA, jobs.AREA)
    assert found.keys() == expected.keys()
    for name, texts in expected.items():
        for text, line in zip(texts, found[name], strict=True):
            assert text in line


PLURALS = {"ingress": "ingresses", "networkpolicy": "networkpolicies", "priorityclass": "priorityclasses"}
OPERATOR = {"monitoring/prometheus": {"form": "prometheus-rule", "namespace": "prometheus"}}


@pytest.mark.parametrize(("stack", "changes"), [("dev", {}), ("prod", {}), ("prod", OPERATOR)])
def test_the_rights_for_every_kind_that_is_declared_are_asked_for_and_no_other(site, recording, stack, changes):
    kinds = set()
    for thing in recording(stack, changes).kubernetes():
        group, plural = thing["apiVersion"].rpartition("/")[0], PLURALS.get(thing["kind"].lower(), f"{thing['kind'].lower()}s")
        kinds.add((thing["metadata"].get("namespace", "mailserver"), f"{plural}.{group}" if group else plural))
    by_hand = {("mailserver", "jobs.batch")} if ("mailserver", "cronjobs.batch") in kinds else set()  # `make job`
    assert set(cluster.written(site(stack, changes))) == kinds | by_hand


def test_programs_that_the_supervisor_gave_up(live):
    status = "dovecot   FATAL   Exited too quickly (process log)\nclamav STOPPED Not started\npostfix RUNNING pid 9, uptime 1:02:03\n"
    one = Patient(live.site, live, lambda *_: subprocess.CompletedProcess([], 3, status, ""), None, ())
    assert [(seen.verdict, seen.about) for seen in mail.programs.look(one)] == [("broken", "dovecot")]


def test_a_pod_that_cannot_be_entered_says_nothing_of_what_is_in_it(live, monkeypatch, tmp_path):
    (tmp_path / "kubectl").write_text("#!/bin/sh\necho 'error: unable to upgrade connection: container not found' >&2\nexit 1\n")
    (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    _, inside = of_cluster(live.site)
    with pytest.raises(UserError, match="container not found"):
        inside("curl", "http://127.0.0.1/")
    (tmp_path / "kubectl").write_text("#!/bin/sh\necho 'command terminated with exit code 7' >&2\nexit 7\n")
    assert inside("curl", "http://127.0.0.1/").returncode == 7


def checks_of(*looks):
    area = Area("test", "for tests")
    for number, look_at in enumerate(looks):
        area.check(f"c{number}", **REMEDY)(look_at)
    return area.checks


def test_the_worst_comes_first_and_decides_the_exit_code(live):
    checks = checks_of(lambda _: iter([ok("a", "")]), lambda _: iter([degraded("b", "")]), lambda _: iter([broken("c", ""), ok("d", "")]))
    results = examine(patient(live), checks, lambda check: None)
    assert [result.seen.about for result in results] == ["c", "b", "a", "d"]
    assert [exit_code(results[start:]) for start in range(4)] == [2, 1, 0, 0]


def test_a_check_that_hangs_or_fails_is_one_line_and_holds_nothing_up(live):
    never = threading.Event()

    def hangs(_):
        never.wait()
        yield ok("", "")

    def fails(_):
        yield ok("seen before", "")
        raise KeyError("status")

    told = []
    results = examine(patient(live), checks_of(hangs, fails, lambda _: iter([ok("well", "")])), told.append, seconds=1)
    never.set()
    assert {(result.check.id, result.seen.verdict) for result in results} == {
        ("test.c0", "could not check"),
        ("test.c1", "could not check"),
        ("test.c1", "ok"),
        ("test.c2", "ok"),
    }
    assert exit_code(results) == 3
    assert len(told) == 2


def test_a_check_that_saw_nothing_wrong_does_not_claim_what_it_did_not_see(live):
    (result,) = examine(patient(live), checks_of(lambda _: iter([])), lambda check: None)
    assert (result.seen.verdict, result.seen.text) == ("ok", "nothing wrong found")


def test_what_the_site_lacks_is_said_to_be_unused(site):
    lean = site("dev")
    asked = Patient(lean, _unasked, _unasked, None, ("192.0.2.53",))
    unused = (edge.drift, edge.servers, dns.inside, prerequisites.legacy_address, delivery.relay, results.second_mx, monitoring.rules)
    texts = {result.check.id: result.seen.text for result in examine(asked, unused, lambda check: None)}
    assert texts == {
        "cluster.legacy-address": "not used: needs edge.legacy",
        "dns.inside": "not used: needs doctor.internal_resolver",
        "edge.drift": "not used: needs edge.access",
        "edge.servers": "not used: needs edge.access",
        "jobs.second-mx": "not used: needs domains.<domain>.dns.mx with another host",
        "mail.relay": "not used: needs mail.relay",
        "monitoring.rules": "not used: needs doctor.prometheus and monitoring.prometheus",
    }


def _unasked(*words: str) -> subprocess.CompletedProcess[str]:
    raise AssertionError(words)


def test_many_lines_of_a_check_share_a_row_and_its_remedy(live):
    results = examine(patient(live), checks_of(lambda _: iter([broken(f"r{n}", "gone") for n in range(9)])), lambda check: None)
    shown = table(results, everything=False)
    assert shown.row_count == 1
    assert "and 3 more" in str(next(iter(shown.columns[2].cells)))


def test_every_check_has_a_meaning_and_a_page_that_exists():
    ids = [check.id for area in AREAS for check in area.checks]
    assert len(set(ids)) == len(ids)
    for area in AREAS:
        for check in area.checks:
            assert check.meaning, check.id
            assert (ROOT / "docs" / check.page.partition("#")[0]).is_file(), check.id


def test_every_alert_and_every_runbook_starts_with_the_doctor(site):
    areas = {area.name for area in AREAS}
    for table_of in (PROMETHEUS, LOKI):
        for group in groups(site("prod"), table_of)["groups"]:
            for rule in group["rules"]:
                start = re.match(r"`make doctor STACK=<stack> ONLY=([a-z,]+)` ", rule["annotations"]["description"])
                assert start, rule["alert"]
                assert set(start[1].split(",")) <= areas
    for page in (ROOT / "docs" / "runbooks").glob("*.md"):
        assert "`make doctor STACK=" in page.read_text("utf-8").split("\n\n")[1], page.name


def test_an_unknown_area_is_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--only", "dns,mails"], prog_name="tools")
    assert ended.value.code == 2
    assert "mails: the areas are cluster, mail, inside, edge, dns, jobs, webmail, monitoring, reputation" in capsys.readouterr().err
