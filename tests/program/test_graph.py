"""Why the resources of both stacks are as they are (test_golden.py has how they are), and what settings change in them."""

import re

import pytest

from tests.conftest import settings


def find(recording, kind: str, name: str):
    (thing,) = [thing for thing in recording.kubernetes() if (thing["kind"], thing["metadata"]["name"]) == (kind, name)]
    return thing


def resource(recording, kind: str, name: str):
    (found,) = [r for r in recording.resources if r.inputs.get("kind") == kind and r.inputs["metadata"]["name"] == name]
    return found


def pod_of(recording):
    return find(recording, "Deployment", "mailserver")["spec"]["template"]["spec"]


def container(recording):
    (found,) = pod_of(recording)["containers"]
    return found


def test_live_objects_keep_what_others_rely_on(recording):
    prod = recording("prod")
    deployment = find(prod, "Deployment", "mailserver")
    assert deployment["spec"]["selector"] == {"matchLabels": {"app": "mailserver"}}
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert container(prod)["name"] == "docker-mailserver"
    mounts = {(m["name"], m.get("subPath"), m["mountPath"]) for m in container(prod)["volumeMounts"] if m["name"] == "data"}
    assert mounts == {("data", "data", "/var/mail"), ("data", "state", "/var/mail-state"), ("data", "log", "/var/log/mail")}
    claim = find(prod, "PersistentVolumeClaim", "mailserver-data-encrypted")
    assert claim["spec"]["storageClassName"] == "proxmox-lvm-encrypted"
    assert claim["metadata"]["annotations"]["resize.topolvm.io/threshold"] == "10%"


def admitted(recording, port: int) -> list:
    """The sources that the policy lets in at a port of the pod; no rule, no sources."""
    policy = find(recording, "NetworkPolicy", "mailserver")["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    assert policy["podSelector"] == {"matchLabels": {"app": "mailserver"}}
    return [source for rule in policy["ingress"] if any(p["port"] == port for p in rule["ports"]) for source in rule["from"]]


def test_proxy_ports_admit_the_edge_and_no_pod_by_selector(recording):
    sources = admitted(recording("dev"), 2525)
    assert [s["ipBlock"]["cidr"] for s in sources] == ["192.0.2.1/32", "192.0.2.11/32", "192.0.2.12/32", "10.244.1.0/32", "10.244.2.0/32"]
    local = admitted(recording("dev", {"cluster/traffic_policy": "Local"}), 10993)
    assert local == [{"ipBlock": {"cidr": "192.0.2.1/32"}}]


def test_stock_ports_admit_every_namespace_or_the_listed_ones(recording):
    assert {"namespaceSelector": {}} in admitted(recording("prod"), 587)
    narrowed = admitted(recording("prod", {"mail/allowed_namespaces": ["ebooks"]}), 587)
    assert {"namespaceSelector": {}} not in narrowed
    assert any(s.get("namespaceSelector", {}).get("matchExpressions", [{}])[0].get("values") == ["ebooks"] for s in narrowed)


def test_no_source_is_admitted_to_rspamds_controller_or_to_plain_imap(recording):
    assert admitted(recording("prod"), 11334) == []
    assert admitted(recording("prod"), 143) == []


def test_local_traffic_policy_reaches_the_service(recording):
    local = recording("prod", {"cluster/traffic_policy": "Local"})
    assert find(local, "Service", "mailserver-proxy")["spec"]["externalTrafficPolicy"] == "Local"


def test_the_legacy_service_exists_only_on_demand(recording):
    assert not [t for t in recording("prod").kubernetes() if t["metadata"]["name"] == "mailserver-legacy"]
    back = recording("prod", {"edge/legacy": {"address": "10.0.20.202"}})
    service = find(back, "Service", "mailserver-legacy")
    assert service["spec"]["externalTrafficPolicy"] == "Local"
    assert service["metadata"]["annotations"]["metallb.io/loadBalancerIPs"] == "10.0.20.202"
    assert {"ipBlock": {"cidr": "0.0.0.0/0"}} in admitted(back, 25)
    assert {"ipBlock": {"cidr": "0.0.0.0/0"}} not in admitted(back, 2525)


def checksum(recording) -> str:
    return find(recording, "Deployment", "mailserver")["spec"]["template"]["metadata"]["annotations"]["checksum/config"]


def test_a_changed_text_rolls_the_pod_and_an_unchanged_one_does_not(recording):
    aliased = {"mail/aliases/x@viktorbarzin.me": ["me@viktorbarzin.me"]}
    assert checksum(recording("prod")) != checksum(recording("prod", aliased))
    assert checksum(recording("prod")) == checksum(recording("prod", {"cluster/context": "another"}))


def test_every_config_file_reaches_the_pod_under_its_own_path(recording):
    dev = recording("dev")
    (volume,) = [v for v in pod_of(dev)["volumes"] if v["name"] == "config"]
    data = find(dev, "ConfigMap", "mailserver-config")["data"]
    assert sorted(item["key"] for item in volume["configMap"]["items"]) == sorted(data)
    paths = [item["path"] for item in volume["configMap"]["items"]]
    assert {"postfix-main.cf", "rspamd/override.d/dkim_signing.conf", "sieve/bob@example.org.sieve"} <= set(paths)


def test_a_changed_credential_restarts_the_pod_and_a_renewed_certificate_does_not(recording):
    annotation = find(recording("prod"), "Deployment", "mailserver")["metadata"]["annotations"]["secret.reloader.stakater.com/reload"]
    assert annotation.split(",") == ["mailserver-accounts", "mailserver-aliases", "mailserver-relay", "mailserver-dkim"]


def test_the_pod_counts_as_started_and_ready_only_while_the_filter_listens(recording):
    def ports(probe: str) -> list[int]:
        return [int(port) for port in re.findall(r"sport = :(\d+)'", container(recording("prod"))[probe]["exec"]["command"][-1])]

    milter, srs = 11332, 10001
    assert sorted(ports("startupProbe")) == sorted([25, 465, 587, 993, 4190, 2525, 4465, 5587, 10993, milter, srs])
    assert sorted(ports("readinessProbe")) == [25, 993, srs, milter]


def test_an_adopted_object_is_imported_under_its_live_name(recording):
    adopting = recording("prod", {"adopt": ["Deployment/mailserver", "Namespace/mailserver"]})
    assert resource(adopting, "Deployment", "mailserver").options["importId"] == "mailserver/mailserver"
    assert resource(adopting, "Namespace", "mailserver").options["importId"] == "mailserver"
    assert "importId" not in resource(adopting, "Service", "mailserver").options


def test_an_adopted_object_is_imported_from_the_namespace_that_it_lives_in(recording):
    operator = {"monitoring/prometheus": {"form": "prometheus-rule", "namespace": "watching"}}
    adopting = recording("prod", {"adopt": ["PrometheusRule/mail-alerts"], **operator})
    assert resource(adopting, "PrometheusRule", "mail-alerts").options["importId"] == "watching/mail-alerts"


def test_without_external_secrets_existing_secrets_are_mounted_by_name(recording):
    dev = recording("dev")
    assert not [t for t in dev.kubernetes() if t["kind"] == "ExternalSecret"]
    names = {v["secret"]["secretName"] for v in pod_of(dev)["volumes"] if "secret" in v}
    assert names == {"mailserver-accounts", "mailserver-dkim", "mail-tls"}


def test_every_object_follows_the_namespace_setting(recording):
    moved = recording("prod", {"namespace": "post"})
    ours = [
        t["metadata"]
        for t in moved.kubernetes()
        if not t["metadata"]["name"].startswith(("mail-alerts", "mail-log-alerts", "mail-dashboard"))
    ]
    assert {metadata.get("namespace", "post") for metadata in ours} == {"post"}
    assert settings("prod").get("namespace") is None


def test_one_writer_at_a_time_and_time_to_stop(recording):
    """Two pods on one mail store corrupt it; supervisor gives each program of the image 55 seconds to end."""
    deployment = find(recording("prod"), "Deployment", "mailserver")["spec"]
    assert deployment["replicas"] == 1
    assert pod_of(recording("prod"))["terminationGracePeriodSeconds"] > 55


def test_the_pod_leaves_a_silent_node_soon_and_ordinary_pods_first(recording):
    pod = pod_of(recording("prod"))
    waits = {t["key"]: t["tolerationSeconds"] for t in pod["tolerations"] if t["effect"] == "NoExecute"}
    assert waits == {"node.kubernetes.io/not-ready": 60, "node.kubernetes.io/unreachable": 60}
    made = recording("prod", {"mail/priority_class": {}})
    assert pod_of(made)["priorityClassName"] == find(made, "PriorityClass", "mailserver-100000")["metadata"]["name"]
    assert pod["priorityClassName"] == "tier-3-edge", "the cluster's own, which is not declared here"
    assert "PriorityClass" not in {thing["kind"] for thing in recording("prod").kubernetes()}
    assert "priorityClassName" not in pod_of(recording("prod", {"mail/priority_class": None}))


def test_credentials_stay_in_memory_and_out_of_other_users_sight(recording):
    volumes = {volume["name"]: volume for volume in pod_of(recording("prod"))["volumes"]}
    assert volumes["assembled"]["emptyDir"]["medium"] == "Memory"
    secrets = [volume["secret"] for name, volume in volumes.items() if name.startswith("secret-")]
    assert len(secrets) == 4
    assert all(secret["defaultMode"] == 0o400 for secret in secrets)


def test_a_failing_secret_store_stops_the_up_before_the_pod(recording):
    for thing in recording("prod").kubernetes():
        if thing["kind"] == "ExternalSecret":
            assert thing["metadata"]["annotations"]["pulumi.com/waitFor"] == "condition=Ready"


def test_config_maps_change_in_place_and_never_on_a_cluster_by_chance(recording):
    (provider,) = [r for r in recording("prod").resources if r.type == "pulumi:providers:kubernetes"]
    assert provider.inputs["enableConfigMapMutable"] == "true"
    assert provider.inputs["context"] == settings("prod")["cluster"]["context"]


def test_the_cluster_is_the_same_one_whatever_its_context_is_called_and_wherever_the_kubeconfig_is(recording, monkeypatch):
    uid = "8c2f7d1e-0000-4000-8000-000000000001"
    seen = []
    for context, path in (("one", "/tmp/one"), ("two", "/tmp/two")):
        monkeypatch.setenv("KUBECONFIG", path)
        site = recording("prod", {"cluster/context": context, "cluster/uid": uid})
        seen += [r.inputs for r in site.resources if r.type == "pulumi:providers:kubernetes"]
    assert [inputs["clusterIdentifier"] for inputs in seen] == [uid, uid]
    assert seen[0] | {"context": "two"} == seen[1]


MAIL_HOLDERS = {"Namespace", "PersistentVolume", "PersistentVolumeClaim"}


@pytest.mark.parametrize("production", [True, False])
def test_whether_a_site_counts_as_production_changes_nothing_about_its_protection(recording, production):
    holders = [r for r in recording("prod", {"production": production}).resources if r.inputs.get("kind") in MAIL_HOLDERS]
    assert {r.inputs["kind"] for r in holders} == MAIL_HOLDERS
    assert all(r.options["protect"] and r.options["retainOnDelete"] for r in holders)


def test_protection_is_dropped_by_name_and_nothing_that_holds_mail_is_ever_deleted(recording):
    site = recording("prod", {"unprotected": ["PersistentVolumeClaim/mailserver-data-encrypted", "RuleSet/edge-rules"]})
    unprotected = {r.name for r in site.resources if not r.options.get("protect")}
    assert {"mail-claim-mailserver-data-encrypted", "edge-rules"} <= unprotected
    assert not {"mail-namespace", "jobs-claim-mailserver-backup-host", "edge-haproxy"} & unprotected
    assert resource(site, "PersistentVolumeClaim", "mailserver-data-encrypted").options["retainOnDelete"]


# What forces a replacement when an import has read it and the program does not say it (the provider's list of such fields).
FORCE_NEW = {
    "PersistentVolumeClaim": {"spec.volumeName"},
    "PersistentVolume": {"spec.claimRef", "spec.csi.volumeHandle"},
    "Service": {"spec.clusterIP", "spec.clusterIPs", "spec.healthCheckNodePort"},
}


@pytest.mark.parametrize("stack", ["prod", "dev"])
def test_what_the_cluster_decides_never_replaces_a_live_object(recording, stack):
    found = [r for r in recording(stack).resources if r.inputs.get("kind") in FORCE_NEW]
    assert {"PersistentVolumeClaim", "Service"} <= {r.inputs["kind"] for r in found}
    for r in found:
        assert FORCE_NEW[r.inputs["kind"]] <= set(r.options["ignoreChanges"]), r.name


def test_another_priority_is_another_class(recording):
    names = [
        thing["metadata"]["name"]
        for value in (100_000, 200_000)
        for thing in recording("prod", {"mail/priority_class": {"value": value}}).kubernetes()
        if thing["kind"] == "PriorityClass"
    ]
    assert len(set(names)) == 2
    assert pod_of(recording("prod", {"mail/priority_class": {"value": 200_000}}))["priorityClassName"] == names[1]


def test_the_pod_prefers_the_node_of_a_job_that_holds_its_volume(recording):
    prod = recording("prod")
    (preferred,) = pod_of(prod)["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    (wanted,) = preferred["podAffinityTerm"]["labelSelector"]["matchLabels"].items()
    jobs = {t["metadata"]["name"]: t["spec"]["jobTemplate"]["spec"]["template"] for t in prod.kubernetes() if t["kind"] == "CronJob"}
    claim = settings("prod")["mail"]["storage"]["claim"]
    holding = {
        n for n, job in jobs.items() if claim in [v.get("persistentVolumeClaim", {}).get("claimName") for v in job["spec"]["volumes"]]
    }
    assert holding
    assert {name for name, job in jobs.items() if wanted in job["metadata"]["labels"].items()} == holding


def test_every_workload_carries_the_sites_annotations(recording):
    workloads = [thing for thing in recording("prod").kubernetes() if thing["kind"] in {"Deployment", "CronJob"}]
    assert len(workloads) > 5
    for thing in workloads:
        assert thing["metadata"]["annotations"]["keel.sh/policy"] == "never", thing["metadata"]["name"]


def test_the_resolver_is_left_to_the_cluster_where_the_settings_say_so(recording):
    assert "dnsConfig" not in pod_of(recording("prod"))
    assert pod_of(recording("prod", {"mail/dns_ndots": 2}))["dnsConfig"] == {"options": [{"name": "ndots", "value": "2"}]}
