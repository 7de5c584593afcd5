"""Roundcube's objects: what a new site gets from two settings, what the owner's keeps, and who gets through the Ingress."""

from pathlib import Path

import pytest

from components.checks.registry import Refused
from tests.program.test_graph import admitted, find, resource

CHAIN = ["edge-retry@kubernetescrd", "edge-limit@kubernetescrd"]
LOGIN = "auth-login@kubernetescrd"
MIDDLEWARES = "traefik.ingress.kubernetes.io/router.middlewares"
COMPOSER = {"webmail/composer_plugins": {"dsoares/rcguard": "1.3.2"}}


def pod(recording):
    return find(recording, "Deployment", "roundcubemail")["spec"]["template"]["spec"]


def claims(recording) -> dict[str, str]:
    volumes = pod(recording)["volumes"]
    return {v["name"]: v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v}


def mounts(container) -> dict[str, dict]:
    return {mount["mountPath"]: mount for mount in container["volumeMounts"]}


def test_without_the_setting_there_is_nothing(recording):
    none = recording("dev", {"webmail": None})
    assert not [t for t in none.kubernetes() if "roundcube" in t["metadata"]["name"]]
    assert not [port for port in find(none, "Service", "mailserver")["spec"]["ports"] if port["port"] == 4190]
    assert admitted(none, 4190) == []


def test_two_settings_make_a_webmail(recording):
    dev = recording("dev", {"webmail": {"host": "webmail.example.org", "auth": "app"}})
    assert claims(dev) == {"database": "roundcubemail-database"}
    ingress = find(dev, "Ingress", "webmail")
    assert ingress["spec"]["tls"] == [{"hosts": ["webmail.example.org"], "secretName": "mail-tls"}]
    assert ingress["spec"]["rules"][0]["host"] == "webmail.example.org"


def test_the_owners_webmail_keeps_what_others_rely_on(recording):
    prod = recording("prod")
    deployment = find(prod, "Deployment", "roundcubemail")["spec"]
    assert deployment["selector"] == {"matchLabels": {"app": "roundcubemail"}}
    assert deployment["strategy"] == {"type": "Recreate"}
    assert deployment["replicas"] == 1
    assert claims(prod) == {"plugins": "roundcubemail-html-encrypted", "enigma": "roundcubemail-enigma-encrypted"}
    assert [(p["port"], p["targetPort"]) for p in find(prod, "Service", "roundcubemail")["spec"]["ports"]] == [(80, 80)]
    for claim in claims(prod).values():
        kept = resource(prod, "PersistentVolumeClaim", claim)
        assert kept.options["protect"]
        assert kept.options["retainOnDelete"]
        assert kept.inputs["spec"]["storageClassName"] == "proxmox-lvm-encrypted"
        assert kept.inputs["spec"]["resources"] == {"requests": {"storage": "1Gi"}}


def test_the_live_webmail_is_taken_over_object_by_object(recording):
    names = ["Deployment/roundcubemail", "Service/roundcubemail", "Ingress/mail", "PersistentVolumeClaim/roundcubemail-html-encrypted"]
    adopting = recording("prod", {"adopt": names})
    for entry in names:
        kind, name = entry.split("/")
        assert resource(adopting, kind, name).options["importId"] == f"mailserver/{name}"


def test_the_image_never_finds_an_old_document_root(recording):
    """With one that outlives the container its start runs Composer, from the network."""
    for stack in ("dev", "prod"):
        (container,) = pod(recording(stack))["containers"]
        root = mounts(container)["/var/www/html"]["name"]
        (volume,) = [v for v in pod(recording(stack))["volumes"] if v["name"] == root]
        assert "emptyDir" in volume
        assert container["command"][-1].startswith("find /var/www/html -mindepth 1 -delete && ")
        assert not [v for v in container["env"] if "COMPOSER" in v["name"]]


def test_a_predecessors_document_root_is_neither_mounted_nor_saved(recording):
    """Its config.docker.inc.php holds the database's password."""
    prod = recording("prod")
    job = find(prod, "CronJob", "roundcube-backup")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    restore = find(prod, "CronJob", "webmail-restore")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    seen = [
        m for spec in (pod(prod), job, restore) for c in (*spec.get("initContainers", []), *spec["containers"]) for m in c["volumeMounts"]
    ]
    assert {m.get("subPath") for m in seen if m["name"] == "plugins"} == {"plugin-sets"}


def test_no_container_of_the_webmail_has_a_right_beyond_its_job(recording):
    for stack in ("dev", "prod"):
        spec = pod(recording(stack, COMPOSER))
        (roundcube,) = spec["containers"]
        owner, installer = spec["initContainers"]
        for container in (roundcube, installer):
            context = container["securityContext"]
            assert (context["runAsUser"], context["readOnlyRootFilesystem"], context["capabilities"]) == (33, True, {"drop": ["ALL"]})
        assert owner["command"][0] == "install"
        assert "-R" not in owner["command"]


def test_the_port_is_that_of_the_images_variant(recording):
    for tag, port in (("1.6.18-apache-nonroot", 8000), ("1.6.18-apache", 80)):
        site = recording("dev", {"webmail/image": f"docker.io/roundcube/roundcubemail:{tag}"})
        (container,) = pod(site)["containers"]
        assert container["ports"][0]["containerPort"] == port
        assert container["livenessProbe"]["httpGet"]["port"] == port
        assert {container[probe]["exec"]["command"][3] for probe in ("startupProbe", "readinessProbe")} == {f"http://127.0.0.1:{port}/"}
        assert find(site, "Service", "roundcubemail")["spec"]["ports"][0]["targetPort"] == port


def test_a_secret_with_plugins_keys_is_expected_mounted_and_restarts_the_pod(recording):
    site = recording("dev", {"webmail/extra_secret": {"name": "captcha"}})
    (projected,) = (volume["projected"] for volume in pod(site)["volumes"] if "projected" in volume)
    items = {source["secret"]["name"]: source["secret"]["items"] for source in projected["sources"]}
    assert items["captcha"] == [{"key": "extra.php", "path": "roundcube_extra.php"}]
    assert [text for _, text in site.messages if "captcha (extra.php)" in text]


def test_a_changed_secret_or_configuration_restarts_the_pod(recording):
    prod = find(recording("prod"), "Deployment", "roundcubemail")
    named = prod["metadata"]["annotations"]["secret.reloader.stakater.com/reload"].split(",")
    assert set(named) == {"roundcubemail-session", "roundcubemail-database"}
    other = find(recording("prod", {"webmail/plugins": ["archive"]}), "Deployment", "roundcubemail")
    assert prod["spec"]["template"]["metadata"] != other["spec"]["template"]["metadata"]


def test_filters_are_for_the_webmail_alone(recording):
    dev = recording("dev")
    assert 4190 in [port["port"] for port in find(dev, "Service", "mailserver")["spec"]["ports"]]
    assert admitted(dev, 4190) == [{"podSelector": {"matchLabels": {"app": "roundcubemail"}}}]
    assert 4190 not in [port["port"] for port in find(dev, "Service", "mailserver-proxy")["spec"]["ports"]]


def test_a_narrowed_mail_server_still_admits_the_webmail(recording):
    narrowed = admitted(recording("prod", {"mail/allowed_namespaces": ["ebooks"]}), 993)
    assert {"podSelector": {"matchLabels": {"app": "roundcubemail"}}} in narrowed


def ingress_annotations(recording, auth: str, **ingress) -> dict[str, str]:
    site = recording("dev", {"webmail/auth": auth, "webmail/ingress": {"ingress_class": "traefik", "middlewares": CHAIN, **ingress}})
    return find(site, "Ingress", "webmail")["metadata"]["annotations"]


@pytest.mark.parametrize(
    ("auth", "login", "chain"),
    [("required", LOGIN, [*CHAIN, LOGIN]), ("public", LOGIN, [*CHAIN, LOGIN]), ("app", None, CHAIN), ("none", None, CHAIN)],
)
def test_who_gets_through_the_ingress(recording, auth, login, chain):
    assert ingress_annotations(recording, auth, auth_middleware=login)[MIDDLEWARES] == ",".join(chain)


@pytest.mark.parametrize("auth", ["required", "public"])
def test_a_login_that_nothing_asks_for_is_refused(recording, auth):
    with pytest.raises(Exception, match=r"webmail\.no-login") as refused:
        ingress_annotations(recording, auth)
    assert isinstance(refused.value.__cause__ or refused.value, Refused)


def test_the_default_is_closed(site):
    with pytest.raises(Refused, match=r"webmail\.no-login"):
        site("dev", {"webmail": {"host": "webmail.example.org"}})


def test_without_traefik_the_ingress_is_a_plain_one_that_takes_large_messages(recording):
    nginx = {"nginx.ingress.kubernetes.io/auth-url": "https://login.example.org/check"}
    site = recording(
        "dev",
        {
            "webmail/auth": "required",
            "webmail/ingress": {"ingress_class": "nginx", "annotations": nginx},
            "mail/message_size_limit": "50Mi",
        },
    )
    shown = find(site, "Ingress", "webmail")["metadata"]["annotations"]
    assert MIDDLEWARES not in shown
    assert shown["nginx.ingress.kubernetes.io/proxy-body-size"] == str(50 << 20)
    assert shown.items() >= nginx.items()


def test_the_database_in_use_is_copied_before_it_is_saved(recording):
    backup = {"target": {"claim": "webmail-backup"}}
    prod = recording("prod", {"webmail/database": {}, "jobs/webmail_backup": backup})
    job = find(prod, "CronJob", "roundcube-backup")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    copier = next(c for c in job["initContainers"] if c["name"] == "database")
    assert mounts(copier)["/live"]["readOnly"]
    (saver,) = job["containers"]
    assert mounts(saver)["/source/database"]["name"] == mounts(copier)["/copy"]["name"]
    assert Path(copier["command"][4]).parent.name == mounts(saver)["/source/database"]["subPath"]
    assert copier["command"][-1] == "/copy/outcome" == saver["command"][saver["command"].index("--prepared") + 1]
    restore = find(prod, "CronJob", "webmail-restore")["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    assert mounts(restore)["/source/database"]["name"] == "database"


def test_a_database_server_is_dumped_with_a_password_that_no_command_shows(recording):
    prod = recording("prod")
    job = find(prod, "CronJob", "roundcube-backup")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    dumper = next(c for c in job["initContainers"] if c["name"] == "database")
    assert dumper["command"][:4] == ["sh", "/scripts/dump.sh", "save", "mysql"]
    assert dumper["securityContext"]["runAsNonRoot"]
    assert mounts(dumper)["/password"]["name"] == "password"
    assert {"name": "password", "secret": {"secretName": "roundcubemail-database", "defaultMode": 0o444}} in job["volumes"]
    (saver,) = job["containers"]
    assert "/password" not in mounts(saver)
    assert mounts(saver)["/source/database"]["name"] == mounts(dumper)["/copy"]["name"]


def test_a_restored_dump_goes_into_the_server_after_the_volumes(recording):
    spec = find(recording("prod"), "CronJob", "webmail-restore")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (loader,) = spec["containers"]
    restorer = spec["initContainers"][-1]
    assert restorer["name"] == "restore"
    assert loader["command"][2] == "load"
    assert mounts(restorer)["/source/database"]["name"] == mounts(loader)["/copy"]["name"]


def test_only_the_ingress_controller_and_our_jobs_reach_roundcube(recording):
    prod = recording("prod", {"webmail/ingress/controller_labels": {"app": "traefik"}, "webmail/ingress/proxies": ["10.0.20.0/24"]})
    spec = find(prod, "NetworkPolicy", "roundcubemail")["spec"]
    assert spec["podSelector"] == find(prod, "Deployment", "roundcubemail")["spec"]["selector"]
    (rule,) = spec["ingress"]
    (port,) = rule["ports"]
    assert port["port"] == pod(prod)["containers"][0]["ports"][0]["containerPort"]
    controller, jobs, nodes = rule["from"]
    assert controller["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "traefik"}}
    assert controller["podSelector"] == {"matchLabels": {"app": "traefik"}}
    assert nodes == {"ipBlock": {"cidr": "10.0.20.0/24"}}
    job = find(prod, "CronJob", "webmail-restore")["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    assert job.items() >= jobs["podSelector"]["matchLabels"].items()
