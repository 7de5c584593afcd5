"""The owner's 28 live objects as his Terraform leaves them: its names, its shapes, its field manager, its password in a ConfigMap."""

from collections.abc import Iterator
from typing import Any

NAMESPACE = "mailserver"
MANAGER = "HashiCorp"  # of hashicorp/kubernetes, which creates and updates (operation Update)
MANIFEST_MANAGER = "Terraform"  # of its kubernetes_manifest, which applies
CLASS = "proxmox-lvm-encrypted"
CLAIMS = {
    "mailserver-data-encrypted": "5Gi",
    "mailserver-letsencrypt-encrypted": "1Gi",
    "roundcubemail-html-encrypted": "1Gi",
    "roundcubemail-enigma-encrypted": "1Gi",
}
EXPORTS = ("mailserver-backup-host", "roundcube-backup-host")
JOBS = {
    "email-roundtrip-monitor": "*/20 * * * *",
    "mailserver-backup": "0 3 * * *",
    "roundcube-backup": "10 3 * * *",
    "spam-retention": "17 */4 * * *",
}
KEEL = {"keel.sh/policy": "patch", "keel.sh/trigger": "poll", "diun.enable": "true"}
LEFT_OVER = {
    "ConfigMap/mailserver.config",
    "ConfigMap/mailserver.env.config",
    "ConfigMap/mailserver-user-patches",
    "Secret/mailserver.opendkim.key",
    "ServiceAccount/spam-retention",
    "Role/spam-retention",
    "RoleBinding/spam-retention",
}

# What the program takes over: everything with its names but what it makes anew.
ADOPT = [
    "Namespace/mailserver",
    *(f"PersistentVolumeClaim/{name}" for name in (*CLAIMS, *EXPORTS)),
    *(f"PersistentVolume/{name}" for name in EXPORTS),
    *(f"Deployment/{name}" for name in ("mailserver", "roundcubemail")),
    *(f"Service/{name}" for name in ("mailserver", "mailserver-proxy", "roundcubemail")),
    "Ingress/mail",
    *(f"CronJob/{name}" for name in JOBS),
]

# What he has to say before `make adopt` writes anything: four aliases are in no store, and other controllers read his labels.
GENERATED = [f"{word}-generated@viktorbarzin.me" for word in ("bank", "forum", "parcel", "school")]
KEPT = {
    "cluster/namespace_labels": {"tier": "3-edge", "keel.sh/enabled": "true", "goldilocks.fairwinds.com/enabled": "true"},
    "cluster/workload_labels": {"tier": "3-edge"},
    "cluster/workload_annotations": {"keel.sh/policy": "never", "diun.enable": "true"},
}
LEFT = "Deployment/mailserver/pod/diun.include_tags Deployment/roundcubemail/pod/diun.include_tags"

_FILES = {
    "postfix-main.cf": "/tmp/docker-mailserver/postfix-main.cf",
    "postfix-virtual.cf": "/tmp/docker-mailserver/postfix-virtual.cf",
    "postfix-accounts.cf": "/tmp/docker-mailserver/postfix-accounts.cf",
    "dovecot.cf": "/tmp/docker-mailserver/dovecot.cf",
    "sasl_passwd": "/etc/postfix/sasl/passwd",
    "SigningTable": "/tmp/docker-mailserver/opendkim/SigningTable",
    "KeyTable": "/tmp/docker-mailserver/opendkim/KeyTable",
    "TrustedHosts": "/tmp/docker-mailserver/opendkim/TrustedHosts",
    "fail2ban.cf": "/tmp/docker-mailserver/fail2ban-jail.cf",
    "dkim_signing.conf": "/tmp/docker-mailserver/rspamd/override.d/dkim_signing.conf",
    "milter_headers.conf": "/tmp/docker-mailserver/rspamd/override.d/milter_headers.conf",
    "actions.conf": "/tmp/docker-mailserver/rspamd/override.d/actions.conf",
    "phishing.conf": "/tmp/docker-mailserver/rspamd/override.d/phishing.conf",
    "ham.sieve": "/tmp/docker-mailserver/before.dovecot.sieve",
}


def objects(password: str) -> Iterator[dict[str, Any]]:
    """All of them, in an order that an API server accepts. `password` is in the ConfigMap, as the relay's does in his."""
    yield _thing(
        "v1", "Namespace", NAMESPACE, labels={"tier": "3-edge", "keel.sh/enabled": "true", "goldilocks.fairwinds.com/enabled": "true"}
    )
    yield _thing("v1", "ServiceAccount", "spam-retention", automountServiceAccountToken=True)  # the provider's default
    yield _thing("rbac.authorization.k8s.io/v1", "Role", "spam-retention", rules=[_EXEC])
    yield _thing(
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        "spam-retention",
        roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "spam-retention"},
        subjects=[{"kind": "ServiceAccount", "name": "spam-retention", "namespace": NAMESPACE}],
    )
    data = {key: f"# {key}\n" for key in _FILES} | {
        "sasl_passwd": f"[smtp-relay.brevo.com]:587 login:{password}\n",
        "postfix-accounts.cf": f"me@viktorbarzin.me|{{SHA512-CRYPT}}{password}\n",
    }
    yield _thing("v1", "ConfigMap", "mailserver.config", data=data, annotations={"reloader.stakater.com/match": "true"})
    environment = {"ENABLE_RSPAMD": "1", "ENABLE_FAIL2BAN": "0", "RELAY_HOST": "smtp-relay.brevo.com", "PFLOGSUMM_TRIGGER": "logrotate"}
    yield _thing("v1", "ConfigMap", "mailserver.env.config", data=environment)
    yield _thing("v1", "ConfigMap", "mailserver-user-patches", data={"user-patches.sh": "#!/bin/bash\n"})
    yield _thing("v1", "Secret", "mailserver.opendkim.key", type="Opaque", stringData={"viktorbarzin.me-mail.key": password})
    yield _thing("v1", "Secret", "tls-secret", type="kubernetes.io/tls", stringData={"tls.crt": "certificate", "tls.key": "key"})
    for name, size in CLAIMS.items():
        spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": CLASS, "resources": {"requests": {"storage": size}}}
        yield _thing("v1", "PersistentVolumeClaim", name, spec=spec, annotations={"resize.topolvm.io/storage_limit": "10Gi"})
    for name in EXPORTS:
        share = {"csi": {"driver": "nfs.csi.k8s.io", "volumeHandle": f"nfs-{name}", "volumeAttributes": _export(name)}}
        shared = {"accessModes": ["ReadWriteMany"], "storageClassName": "nfs-truenas"}
        reclaim = {"persistentVolumeReclaimPolicy": "Retain", "mountOptions": ["soft", "timeo=30", "retrans=3"]}
        yield _thing("v1", "PersistentVolume", name, spec={**shared, **share, **reclaim, "capacity": {"storage": "10Gi"}})
        yield _thing(
            "v1", "PersistentVolumeClaim", name, spec={**shared, "volumeName": name, "resources": {"requests": {"storage": "10Gi"}}}
        )
    yield _thing(
        "apps/v1", "Deployment", "mailserver", labels={"app": "mailserver", "tier": "3-edge"}, annotations=KEEL, spec=_mail_server()
    )
    yield _service("mailserver", type="ClusterIP", ports=[_port(port) for port in (25, 465, 587, 993)])
    proxy = [
        _port(port, "-proxy", target, node)
        for port, target, node in ((25, 2525, 30125), (465, 4465, 30126), (587, 5587, 30127), (993, 10993, 30128))
    ]
    health = [_port(port + 20000, "-check", port, node) for port, node in ((25, 30145), (465, 30146), (587, 30147))]
    yield _service("mailserver-proxy", type="NodePort", externalTrafficPolicy="Cluster", ports=[*proxy, *health])
    for name, schedule in JOBS.items():
        yield _thing("batch/v1", "CronJob", name, spec=_job(name, schedule))
    yield {
        **_thing("external-secrets.io/v1", "ExternalSecret", "mailserver-probe-secrets"),
        "spec": {
            "refreshInterval": "15m",
            "secretStoreRef": {"kind": "ClusterSecretStore", "name": "vault-kv"},
            "target": {"name": "mailserver-probe-secrets", "deletionPolicy": "Retain"},
            "data": [{"secretKey": "BREVO_API_KEY", "remoteRef": {"key": "viktor", "property": "brevo_api_key"}}],
        },
    }
    yield _thing("apps/v1", "Deployment", "roundcubemail", labels={"app": "roundcubemail"}, spec=_webmail())
    yield _service(
        "roundcubemail", app="roundcubemail", type="ClusterIP", ports=[{"name": "http", "port": 80, "targetPort": 80, "protocol": "TCP"}]
    )
    backend = {"service": {"name": "roundcubemail", "port": {"number": 80}}}
    rule = {"host": "mail.viktorbarzin.me", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    yield _thing("networking.k8s.io/v1", "Ingress", "mail", spec={"ingressClassName": "traefik", "rules": [rule]})


_EXEC = {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create"]}


def _export(name: str) -> dict[str, str]:
    return {"server": "192.168.1.127", "share": f"/srv/nfs/{name.removesuffix('-host')}"}


def _thing(
    api: str, kind: str, name: str, labels: dict[str, str] | None = None, annotations: dict[str, str] | None = None, **content: Any
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "labels": labels or {}, "annotations": annotations or {}}
    if kind not in {"Namespace", "PersistentVolume"}:
        metadata["namespace"] = NAMESPACE
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **content}


def _port(port: int, suffix: str = "", target: int | None = None, node: int | None = None) -> dict[str, Any]:
    entry = {"name": f"p{port}{suffix}", "port": port, "targetPort": target or port, "protocol": "TCP"}
    return entry | ({"nodePort": node} if node else {})


def _service(name: str, app: str = "mailserver", **spec: Any) -> dict[str, Any]:
    return _thing("v1", "Service", name, labels={"app": app}, spec={"selector": {"app": app}, **spec})


def _mail_server() -> dict[str, Any]:
    """26 mounts, a readiness probe of another kind than ours, a hook, a whole ConfigMap as environment, Kyverno's dnsConfig."""
    mounts = [{"name": "config", "mountPath": path, "subPath": key, "readOnly": True} for key, path in _FILES.items()]
    data = {"data": "/var/mail", "state": "/var/mail-state", "log": "/var/log/mail"}
    mounts += [{"name": "data", "mountPath": path, "subPath": folder} for folder, path in data.items()]
    mounts += [{"name": "tls", "mountPath": f"/tmp/ssl/{key}", "subPath": key, "readOnly": True} for key in ("tls.crt", "tls.key")]
    mounts += [{"name": "dkim", "mountPath": "/tmp/docker-mailserver/opendkim/keys", "readOnly": True}]
    mounts += [{"name": "user-patches", "mountPath": "/tmp/docker-mailserver/user-patches.sh", "subPath": "user-patches.sh"}]
    mounts += [{"name": f"tmp-{n}", "mountPath": f"/var/scratch/{n}"} for n in range(5)]
    container = {
        "name": "docker-mailserver",
        "image": "docker.io/mailserver/docker-mailserver:15.0.0",
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": "OVERRIDE_HOSTNAME", "value": "mail.viktorbarzin.me"}, {"name": "ENABLE_RSPAMD_REDIS", "value": "0"}],
        "envFrom": [{"configMapRef": {"name": "mailserver.env.config"}}],
        "lifecycle": {"postStart": {"exec": {"command": ["postmap", "/etc/postfix/sasl/passwd"]}}},
        "readinessProbe": {"tcpSocket": {"port": 25}, "periodSeconds": 30},
        "livenessProbe": {"tcpSocket": {"port": 993}, "periodSeconds": 60},
        "ports": [{"name": f"p{port}", "containerPort": port, "protocol": "TCP"} for port in (25, 465, 587, 993)],
        "resources": {"requests": {"cpu": "25m", "memory": "512Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}},
        "volumeMounts": mounts,
    }
    volumes = [
        {"name": "config", "configMap": {"name": "mailserver.config"}},
        {"name": "user-patches", "configMap": {"name": "mailserver-user-patches"}},
        {"name": "data", "persistentVolumeClaim": {"claimName": "mailserver-data-encrypted"}},
        {"name": "tls", "secret": {"secretName": "tls-secret"}},
        {"name": "dkim", "secret": {"secretName": "mailserver.opendkim.key"}},
        *({"name": f"tmp-{n}", "emptyDir": {}} for n in range(5)),
    ]
    pod = {
        "containers": [container],
        "volumes": volumes,
        "priorityClassName": "tier-3-edge",
        "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]},
    }
    return _deployment("mailserver", pod)


def _webmail() -> dict[str, Any]:
    claims = {"html": "roundcubemail-html-encrypted", "enigma": "roundcubemail-enigma-encrypted"}
    container = {
        "name": "roundcube",
        "image": "roundcube/roundcubemail:1.6.13-apache",
        "volumeMounts": [{"name": name, "mountPath": f"/var/{name}"} for name in claims],
    }
    volumes = [{"name": name, "persistentVolumeClaim": {"claimName": claim}} for name, claim in claims.items()]
    return _deployment("roundcubemail", {"containers": [container], "volumes": volumes})


def _deployment(app: str, pod: dict[str, Any]) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": app}, "annotations": {"diun.include_tags": r"^\d+\.\d+\.\d+$"}}, "spec": pod}
    return {"replicas": 1, "strategy": {"type": "Recreate"}, "selector": {"matchLabels": {"app": app}}, "template": template}


def _job(name: str, schedule: str) -> dict[str, Any]:
    pod = {
        "restartPolicy": "OnFailure",
        "serviceAccountName": "spam-retention" if name == "spam-retention" else "default",
        "containers": [
            {
                "name": name,
                "image": "docker.io/library/alpine",
                "command": ["/bin/sh", "-c", "apk add --no-cache rsync && true"],
                "envFrom": [{"configMapRef": {"name": "mailserver.env.config"}}],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }
        ],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "mailserver-data-encrypted"}}],
        "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]},
    }
    spec = {"backoffLimit": 3, "ttlSecondsAfterFinished": 10, "template": {"spec": pod}}
    limits = {"startingDeadlineSeconds": 10, "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 5}
    return {"schedule": schedule, "concurrencyPolicy": "Replace", **limits, "jobTemplate": {"spec": spec}}
