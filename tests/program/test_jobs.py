"""The rendered CronJobs: what holds for all of them, and what each of them may touch."""

import ast
import functools
import importlib
import re
import shutil
import subprocess
import sys

import pytest

from components.errors import UserError
from components.jobs.backup import MAIL_FOLDERS
from components.mail.storage import MOUNTS
from components.settings.schedule import period
from tests.conftest import settings
from tools.commands.job import manifest
from tools.offline.stackfile import ROOT

LIVE_NAMES = {"email-roundtrip-monitor", "mailserver-backup", "roundcube-backup", "spam-retention"}
BY_HAND = {"mail-restore", "webmail-restore"}


def cron_jobs(recording) -> dict[str, dict]:
    return {thing["metadata"]["name"]: thing for thing in recording.kubernetes() if thing["kind"] == "CronJob"}


def pod_of(cron_job: dict) -> dict:
    return cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def containers(cron_job: dict) -> list[dict]:
    return [*pod_of(cron_job).get("initContainers", []), *pod_of(cron_job)["containers"]]


@pytest.fixture
def prod(recording):
    return cron_jobs(recording("prod", {"jobs/probe/outbound": {"recipient": "loop@example.com"}}))


def test_the_names_and_schedules_that_live_alerts_know_are_kept(prod):
    assert {name: thing["spec"]["schedule"] for name, thing in prod.items() if name in LIVE_NAMES} == {
        "email-roundtrip-monitor": "*/20 * * * *",
        "mailserver-backup": "0 3 * * *",
        "roundcube-backup": "10 3 * * *",
        "spam-retention": "17 */4 * * *",
    }


def test_only_restores_wait_for_a_person(prod):
    assert {name for name, thing in prod.items() if thing["spec"]["suspend"]} == BY_HAND | {"mail-doctor"}


def test_every_job_runs_once_at_a_time_ends_in_time_and_is_remembered_for_a_day(prod):
    for name, thing in prod.items():
        spec, job = thing["spec"], thing["spec"]["jobTemplate"]["spec"]
        assert spec["concurrencyPolicy"] == "Forbid", name
        assert spec["startingDeadlineSeconds"] >= 600, name
        assert spec["timeZone"] == "Etc/UTC", name
        assert job["ttlSecondsAfterFinished"] >= 86400, name
        a_day = 86400 // int(period(spec["schedule"]).total_seconds())
        assert min(spec["successfulJobsHistoryLimit"], spec["failedJobsHistoryLimit"]) >= a_day, name
        assert 0 < job["activeDeadlineSeconds"] <= period(spec["schedule"]).total_seconds(), name
        assert pod_of(thing)["restartPolicy"] == "Never", name


def test_no_service_and_no_policy_of_the_mail_server_takes_a_job_for_the_mail_server(recording, prod):
    selectors = [thing["spec"]["selector"] for thing in recording("prod").kubernetes() if thing["kind"] == "Service"]
    assert {"app": "mailserver"} in selectors
    for name, thing in prod.items():
        labels = thing["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
        assert not any(selector.items() <= labels.items() for selector in selectors), name
        assert "app" not in labels, name


def test_every_container_is_pinned_read_only_and_without_rights_that_it_has_no_reason_for(prod):
    for name, thing in prod.items():
        reasons = thing["spec"]["jobTemplate"]["spec"]["template"]["metadata"].get("annotations", {})
        for container in containers(thing):
            rights = container["securityContext"]
            assert rights["readOnlyRootFilesystem"] is True, name
            assert rights["allowPrivilegeEscalation"] is False, name
            assert re.search(r":\d+\.\d+\.\d+", container["image"]), name
            if rights["runAsUser"] == 0:
                assert reasons[f"mail-jobs/root-{container['name']}"], name
            else:
                assert rights["runAsNonRoot"] is True and not rights["capabilities"].get("add"), name
        assert pod_of(thing)["automountServiceAccountToken"] is False, name


def test_root_is_the_exception_of_those_that_handle_other_users_files(prod):
    roots = {name: sorted(c["name"] for c in containers(thing) if c["securityContext"]["runAsUser"] == 0) for name, thing in prod.items()}
    assert {name: names for name, names in roots.items() if names} == {
        "mailserver-backup": ["backup"],
        "roundcube-backup": ["backup"],
        "mail-restore-drill": ["drill"],
        "mail-doctor": ["inside"],
        "mail-restore": ["restore"],
        "webmail-restore": ["restore"],
    }


def test_nothing_is_installed_at_run_time_and_no_command_contains_a_program(prod):
    for name, thing in prod.items():
        for container in containers(thing):
            command = container["command"]
            assert command[0] in {"cp", "python3", "sh"}, name
            if command[0] == "sh":
                assert command[1] == "/scripts/dump.sh", name
            if command[0] == "python3":
                assert command[1] == "-Bu" and re.fullmatch(r"/scripts/\w+\.py", command[2]), name


@pytest.mark.skipif(shutil.which("busybox") is None, reason="needs Debian's busybox")
def test_what_runs_in_an_alpine_image_without_python_is_in_busybox(prod):
    applets = set(subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True).stdout.split())
    for name, thing in prod.items():
        for container in containers(thing):
            if "/restic:" in container["image"]:
                program, *arguments = container["command"]
                assert program in applets, name
                assert not [argument for argument in arguments if argument.startswith("-")], name


def test_every_program_gets_arguments_that_it_knows(prod):
    @functools.cache
    def help_of(script):
        code = f"import sys; sys.path.insert(0, {str(ROOT / 'scripts' / 'pod')!r}); sys.argv = [{script!r}, *sys.argv[1:], '--help']; "
        code += f"import runpy; runpy.run_path({str(ROOT / 'scripts' / 'pod' / script)!r}, run_name='__main__')"
        return subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, check=True).stdout

    commands = [(name, c["command"]) for name, thing in prod.items() for c in containers(thing) if c["command"][0] == "python3"]
    for name, command in commands:
        known = help_of(command[2].rpartition("/")[2])
        for argument in command[3:]:
            if argument.startswith("--"):
                assert argument in known, f"{name}: {argument}"


def test_a_pod_has_every_program_that_a_job_runs_and_every_module_that_it_imports(recording, prod):
    (config,) = [t for t in recording("prod").kubernetes() if (t["kind"], t["metadata"]["name"]) == ("ConfigMap", "mail-jobs")]
    programs = config["data"]
    run = {c["command"][2].rpartition("/")[2] for thing in prod.values() for c in containers(thing) if c["command"][0] == "python3"}
    assert {"backup.py", "drill.py", "probe.py", "restore.py", "retention.py"} <= run <= programs.keys()
    assert "dump.sh" in programs
    for script, text in programs.items():
        if not script.endswith(".py"):
            continue
        for node in ast.walk(ast.parse(text)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            ours = {f"{name}.py" for name in names if name.partition(".")[0] not in {*sys.stdlib_module_names, "dns", "parsedmarc"}}
            assert ours <= programs.keys(), f"{script}: {ours}"


def test_programs_and_pods_agree_on_the_folders_of_a_backup(prod, monkeypatch):
    """The programs cannot import the components, so what they know of the pod is compared."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "pod"))
    repository = importlib.import_module("repository")
    mounts = {mount["mountPath"]: mount for mount in containers(prod["mailserver-backup"])[-1]["volumeMounts"]}
    assert not mounts[str(repository.SOURCE_ROOT / repository.MANIFEST.parent)].get("readOnly")
    assert mounts[str(repository.SOURCE_ROOT / repository.QUEUE.parent)]["subPath"] == "state"


def test_credentials_come_from_secrets_and_from_nowhere_else(recording, prod):
    made = {t["metadata"]["name"] for t in recording("prod").kubernetes() if t["kind"] == "ExternalSecret"}
    for name, thing in prod.items():
        for container in containers(thing):
            for variable in container.get("env", []):
                assert variable["valueFrom"]["secretKeyRef"]["name"] in made, name
        mounted = {volume["secret"]["secretName"] for volume in pod_of(thing)["volumes"] if "secret" in volume}
        assert mounted <= made, name


def test_the_probe_secret_holds_exactly_its_two_keys(recording):
    (secret,) = [t for t in recording("prod").kubernetes() if t["metadata"]["name"] == "mailserver-probe-secrets"]
    assert sorted(secret["spec"]["target"]["template"]["data"]) == ["BREVO_API_KEY", "EMAIL_MONITOR_IMAP_PASSWORD"]


def test_the_backup_reads_the_mail_volume_on_its_node_and_can_write_nothing_in_it(prod):
    for name, app in (("mailserver-backup", "mailserver"), ("roundcube-backup", "roundcubemail")):
        pod = pod_of(prod[name])
        (term,) = pod["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert (term["labelSelector"]["matchLabels"], term["topologyKey"]) == ({"app": app}, "kubernetes.io/hostname")
        claims = {v["name"]: v["persistentVolumeClaim"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
        repository = claims.pop("repository")
        assert repository["readOnly"] is False
        assert claims and all(claim["readOnly"] for claim in claims.values())
        for container in containers(prod[name]):
            assert all(mount["readOnly"] for mount in container["volumeMounts"] if mount["name"] in claims)


def test_each_source_has_a_place_of_its_own_and_logs_have_none(prod):
    mounts = {m["mountPath"]: m.get("subPath") for m in containers(prod["mailserver-backup"])[-1]["volumeMounts"] if m["name"] == "data"}
    assert mounts == {"/source/mail": "data", "/source/state": "state"}
    assert set(MAIL_FOLDERS.values()) <= MOUNTS.keys()
    webmail = {m["mountPath"] for m in containers(prod["roundcube-backup"])[-1]["volumeMounts"] if m["mountPath"].startswith("/source/")}
    assert webmail == {"/source/plugins", "/source/enigma", "/source/database", "/source/manifest"}


def test_the_drill_touches_no_mail_and_fills_no_nodes_disk(prod):
    pod = pod_of(prod["mail-restore-drill"])
    claims = {v["persistentVolumeClaim"]["claimName"]: v["persistentVolumeClaim"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
    assert {name: claim["readOnly"] for name, claim in claims.items()} == {"mailserver-backup-host": True}
    (scratch,) = [v["ephemeral"] for v in pod["volumes"] if v["name"] == "scratch"]
    assert scratch["volumeClaimTemplate"]["spec"]["storageClassName"] == "proxmox-lvm-encrypted"
    assert "affinity" not in pod
    assert containers(prod["mail-restore-drill"])[-1]["image"] == settings("prod")["mail"]["image"]


def test_a_whole_restore_may_write_the_folder_that_the_sources_are_mounted_in(prod):
    """`restic restore` sets the times of that folder last, and fails after everything is back where it may not."""
    for name in BY_HAND:
        (restorer,) = [container for container in containers(prod[name]) if container["name"] == "restore"]
        mounts = {mount["mountPath"]: mount for mount in restorer["volumeMounts"]}
        assert len([path for path in mounts if path.startswith("/source/")]) >= 2, name
        assert mounts["/source"]["readOnly"] is False, name


def test_a_jobs_locks_in_the_repository_are_known_by_its_host_name(prod):
    assert {name: pod_of(thing)["hostname"] for name, thing in prod.items()} == {name: name for name in prod}


def test_backups_lie_on_volumes_that_outlive_the_stack(recording):
    found = {
        (r.inputs["kind"], r.inputs["metadata"]["name"]): r for r in recording("prod").resources if r.type.startswith("kubernetes:core")
    }
    for name in ("mailserver-backup-host", "roundcube-backup-host"):
        for kind in ("PersistentVolume", "PersistentVolumeClaim"):
            assert found[kind, name].options["protect"] and found[kind, name].options["retainOnDelete"]
        assert found["PersistentVolume", name].inputs["spec"]["persistentVolumeReclaimPolicy"] == "Retain"


def test_an_existing_claim_or_an_nfs_without_a_driver_is_used_as_it_is(recording):
    there = recording("prod", {"jobs/backup/target": {"claim": "backups"}, "jobs/webmail_backup": None})
    assert not [t for t in there.kubernetes() if t["kind"] == "PersistentVolume"]
    plain = recording("prod", {"jobs/backup/target/nfs/csi_driver": None, "jobs/webmail_backup": None})
    (volume,) = [t for t in plain.kubernetes() if t["kind"] == "PersistentVolume"]
    assert volume["spec"]["nfs"] == {"server": "192.168.1.127", "path": "/srv/nfs/mailserver-backup"}


def test_what_is_off_leaves_nothing_behind(recording):
    assert cron_jobs(recording("dev")) == {}
    off = recording(
        "prod",
        {
            "jobs/probe": None,
            "jobs/retention": None,
            "jobs/reports": None,
            "jobs/reputation": None,
            "jobs/backup/drill": None,
            "jobs/pushgateway": None,
        },
    )
    jobs = cron_jobs(off)
    assert set(jobs) == {"mailserver-backup", "roundcube-backup", "mail-restore", "webmail-restore", "mail-doctor"}
    assert not any("--pushgateway" in container["command"] for thing in jobs.values() for container in containers(thing))
    assert (
        "--heartbeats" not in containers(cron_jobs(recording("prod", {"jobs/heartbeats": None}))["email-roundtrip-monitor"])[-1]["command"]
    )


def test_jobs_may_reach_the_stock_ports_when_clients_are_narrowed_down(recording):
    policies = [t for t in recording("prod", {"mail/allowed_namespaces": ["ebooks"]}).kubernetes() if t["kind"] == "NetworkPolicy"]
    (policy,) = [policy for policy in policies if policy["metadata"]["name"] == "mailserver"]
    stock = next(rule for rule in policy["spec"]["ingress"] if any(port["port"] == 993 for port in rule["ports"]))
    ours, _webmail = [source["podSelector"]["matchLabels"] for source in stock["from"] if "podSelector" in source]
    for name, thing in cron_jobs(recording("prod", {"mail/allowed_namespaces": ["ebooks"]})).items():
        assert ours.items() <= thing["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"].items(), name


def test_a_job_started_by_hand_is_the_declared_one_with_more_arguments(recording):
    objects = recording("prod").kubernetes()
    job = manifest(objects, "mail-restore", ["--what", "list"], "x")
    declared = cron_jobs(recording("prod"))["mail-restore"]["spec"]["jobTemplate"]["spec"]
    started = job["spec"]["template"]["spec"]["containers"][0]["command"]
    assert started == [*declared["template"]["spec"]["containers"][0]["command"], "--what", "list"]
    assert job["metadata"]["namespace"] == "mailserver"
    # Else either would remove the other's lock while both are at work on the repository.
    assert job["spec"]["template"]["spec"]["hostname"] != declared["template"]["spec"]["hostname"]
    with pytest.raises(UserError, match="it has email-roundtrip-monitor"):
        manifest(objects, "mail-restor", [], "x")
