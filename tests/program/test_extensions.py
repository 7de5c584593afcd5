"""What a site may add without a fork: pod fields, configuration behind ours, a certificate from cert-manager."""

import pytest

from components.checks.registry import judge

FIELDS = {
    "node_selector": {"zone": "home"},
    "tolerations": [{"key": "dedicated", "value": "mail", "effect": "NoSchedule"}],
    "annotations": {"example.org/team": "mail"},
    "image_pull_secrets": ["registry"],
}


def templates(recording):
    for thing in recording.kubernetes():
        if thing["kind"] in {"Deployment", "CronJob"}:
            spec = thing["spec"]["jobTemplate"]["spec"] if thing["kind"] == "CronJob" else thing["spec"]
            yield f"{thing['kind']}/{thing['metadata']['name']}", spec["template"]


@pytest.mark.parametrize(
    ("area", "prefix"), [("mail", "Deployment/mailserver"), ("jobs", "CronJob/"), ("dns/policy_server", "Deployment/mta-sts")]
)
def test_pod_fields_reach_the_pods_of_their_area_and_no_others(recording, area, prefix):
    with_fields = dict(templates(recording("prod", {f"{area}/pod": FIELDS})))
    assert [name for name in with_fields if name.startswith(prefix)]
    for name, template in with_fields.items():
        spec, annotations = template["spec"], template["metadata"].get("annotations", {})
        wanted = {"key": "dedicated", "operator": "Equal", "value": "mail", "effect": "NoSchedule"}
        found = (
            spec.get("nodeSelector") == {"zone": "home"},
            wanted in spec.get("tolerations", []),
            annotations.get("example.org/team") == "mail",
            spec.get("imagePullSecrets") == [{"name": "registry"}],
        )
        assert found == (name.startswith(prefix),) * 4, name


def test_our_own_tolerations_and_checksum_stay(recording):
    template = dict(templates(recording("prod", {"mail/pod": FIELDS | {"annotations": {"checksum/config": "x"}}})))["Deployment/mailserver"]
    assert {"node.kubernetes.io/unreachable", "dedicated"} <= {entry["key"] for entry in template["spec"]["tolerations"]}
    assert template["metadata"]["annotations"]["checksum/config"] != "x"


def test_extra_configuration_comes_behind_ours_and_what_it_replaces_is_said(recording, site):
    extra = {
        "environment": {"LOG_LEVEL": "debug", "ENABLE_SRS": "1"},
        "postfix": {"maximal_queue_lifetime": "2d", "anvil_rate_time_unit": "30s"},
        "dovecot": "mail_max_userip_connections = 7\nmail_max_lock_timeout = 30 secs",
        "rspamd": {"actions.conf": "reject = 20;\n", "phishing.conf": "openphish_enabled = false;\n"},
    }
    run = recording("prod", {"mail/extra": extra})
    (config,) = [t["data"] for t in run.kubernetes() if t["kind"] == "ConfigMap" and "postfix-main.cf" in t["data"]]
    main = config["postfix-main.cf"]
    assert main.endswith("\nmaximal_queue_lifetime = 2d\nanvil_rate_time_unit = 30s\n")
    assert "anvil_rate_time_unit = 60s" in main
    assert config["dovecot.cf"].endswith("mail_max_userip_connections = 7\nmail_max_lock_timeout = 30 secs\n")
    assert {"reject = 20;\n", "openphish_enabled = false;\n"} <= set(config.values())
    pod = dict(templates(run))["Deployment/mailserver"]["spec"]
    environment = {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}
    assert (environment["LOG_LEVEL"], environment["ENABLE_SRS"]) == ("debug", "1")
    said = [finding for finding in judge(site("prod", {"mail/extra": extra})) if finding.code == "mail.own-line-replaced"]
    replaced = ["environment.ENABLE_SRS", "postfix.anvil_rate_time_unit", "dovecot.mail_max_userip_connections", "rspamd.phishing.conf"]
    assert [finding.setting.removeprefix("mail.extra.") for finding in said] == replaced
    assert "replaces 60s" in said[1].text


@pytest.mark.parametrize(
    ("setting", "value", "hint"),
    [
        ("mail/extra", {"postfix": {"Maximal": "1"}}, "mail.extra.postfix.Maximal: .*postconf"),
        ("mail/extra", {"postfix": {"relayhost": "a\nb = c"}}, "mail.extra.postfix.relayhost: write the value on one line"),
        ("mail/extra", {"environment": {"log level": "x"}}, "write a variable of the image"),
        ("mail/extra", {"rspamd": {"../x": ""}}, "write a file of Rspamd's override.d"),
        ("mail/pod", {"nodeSelector": {}}, "mail.pod.nodeSelector: unknown setting; did you mean node_selector"),
    ],
)
def test_a_key_that_nothing_reads_is_refused(site, setting, value, hint):
    with pytest.raises(Exception, match=hint):
        site("prod", {setting: value})


def test_a_secret_in_an_extra_variable_stops_the_program(recording):
    with pytest.raises(Exception, match="RELAY_PASSWORD is set in plain text"):
        recording("prod", {"mail/extra": {"environment": {"RELAY_PASSWORD": "x"}}})


def test_cert_manager_issues_the_certificate_of_the_mail_hosts_before_the_pod_is_begun(recording):
    run = recording("dev", {"tls/cluster_issuer": "letsencrypt"})
    (certificate,) = [r for r in run.resources if r.inputs.get("kind") == "Certificate"]
    assert certificate.inputs["spec"] == {
        "secretName": "mail-tls",
        "dnsNames": ["mail.example.org", "webmail.example.org"],
        "issuerRef": {"group": "cert-manager.io", "kind": "ClusterIssuer", "name": "letsencrypt"},
        "privateKey": {"rotationPolicy": "Always"},
    }
    (server,) = [r for r in run.resources if r.inputs.get("kind") == "Deployment" and r.inputs["metadata"]["name"] == "mailserver"]
    assert certificate.urn in server.options["dependencies"]
    by_hand = [message for _, message in run.messages if "mailserver-accounts (accounts)" in message]
    assert by_hand and "mail-tls" not in by_hand[0]
