"""The mail server's Deployment: one pod, its init container, probes, volumes and rights."""

from collections.abc import Iterator, Mapping, Sequence

import pulumi
import pulumi_kubernetes as k8s

from components.base import Component
from components.listeners import IMAPS, LISTENERS, MANAGESIEVE_PORT, SMTP
from components.live import rolled_out
from components.mail.files import ALIVE_ARGUMENTS, SCRIPTS_DIR, SECRETS_DIR, SOURCE_DIR, SRS_PORT, config_files, config_map_key
from components.mail.image import CONFIG_DIR, TLS_DIR, environment
from components.mail.rspamd import MILTER_PORT
from components.mail.secrets import mounted_secrets
from components.mail.storage import MOUNTS
from components.names import CONTAINER, MAIL_SERVER, SELECTOR
from components.pods import BESIDE, affinity, checksum, pod_spec, rights
from components.settings.site import Site

CONFIG_MAP = "mailserver-config"
SCRIPTS_MAP = "mailserver-scripts"
STATE_DIR = "/state"
PATCHED = "/run/user-patches.ended"  # made by user-patches.sh at its end
ALIVE = f"python3 -B {SCRIPTS_DIR}/alive.py @{CONFIG_DIR}/{ALIVE_ARGUMENTS}"

# Supervisor stops one program after the other, each within 55 seconds (the image's stopwaitsecs). Seen: 15 to 31 seconds in all,
# most of them Rspamd's. Postfix must not be killed in the middle of a delivery.
GRACE_SECONDS = 75
# Supervisor's own order is reverse alphabetical: rsyslog first, so that Postfix's last 20 seconds would leave no log line.
STOP_FIRST = ["supervisorctl", "stop", "postfix", "dovecot"]

# The image runs as root and starts daemons under their own users. Nothing that Docker grants beyond these is needed;
# NET_ADMIN was for Fail2ban, which is off.
CAPABILITIES = {
    "AUDIT_WRITE": "cron opens a PAM session for logrotate",
    "CHOWN": "set-up hands files to postfix, dovecot, _rspamd, redis",
    "DAC_OVERRIDE": "root reads and links what those users own",
    "FOWNER": "and sets modes on it",
    "KILL": "supervisord and Postfix's master signal processes of other users",
    "NET_BIND_SERVICE": "ports below 1024",
    "SETGID": "daemons drop to their groups",
    "SETUID": "daemons drop to their users",
    "SYS_CHROOT": "Dovecot's login processes",
}
INIT_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER")  # keys go to _rspamd, and a second run replaces them


def deployment(component: Component, scripts: Mapping[str, str], depends_on: Sequence[pulumi.Resource]) -> k8s.apps.v1.Deployment:
    """One replica, stopped before its successor starts: the volume is for one node, the mail store for one writer."""
    site = component.site
    annotations = rolled_out(1)
    if site.cluster.reloader:
        # TLS is not in the list: it is mounted as a folder, and the image's change detector serves a renewal.
        annotations["secret.reloader.stakater.com/reload"] = ",".join(mounted_secrets(site).values())
    return k8s.apps.v1.Deployment(
        component.named("deployment"),
        metadata=component.workload_metadata(MAIL_SERVER, SELECTOR, annotations),
        spec=k8s.apps.v1.DeploymentSpecArgs(
            replicas=1,
            strategy=k8s.apps.v1.DeploymentStrategyArgs(type="Recreate"),
            selector=k8s.meta.v1.LabelSelectorArgs(match_labels=SELECTOR),
            template=k8s.core.v1.PodTemplateSpecArgs(
                metadata=k8s.meta.v1.ObjectMetaArgs(
                    labels=SELECTOR | {"role": "mail"},
                    annotations=site.mail.pod.annotations | checksum({**config_files(site), **scripts}),
                ),
                spec=_pod(component),
            ),
        ),
        opts=component.child(
            "Deployment", MAIL_SERVER, depends_on=depends_on, custom_timeouts=pulumi.CustomTimeouts(create="15m", update="15m")
        ),
    )


def _pod(component: Component) -> k8s.core.v1.PodSpecArgs:
    site = component.site
    return pod_spec(
        site.mail.pod,
        priority_class_name=site.mail.priority_class.class_name if site.mail.priority_class else None,
        dns_config=_dns_config(site),
        termination_grace_period_seconds=GRACE_SECONDS,
        tolerations=[
            k8s.core.v1.TolerationArgs(
                key=f"node.kubernetes.io/{state}",
                operator="Exists",
                effect="NoExecute",
                toleration_seconds=site.mail.unreachable_toleration_seconds,
            )
            for state in ("not-ready", "unreachable")
        ],
        affinity=affinity({BESIDE: MAIL_SERVER}),  # a running backup ties the volume to its node
        init_containers=[_assemble(component)],
        containers=[_mail_server(component)],
        volumes=_volumes(component),
    )


def _dns_config(site: Site) -> k8s.core.v1.PodDNSConfigArgs | None:
    if site.mail.dns_ndots is None:
        return None
    return k8s.core.v1.PodDNSConfigArgs(options=[k8s.core.v1.PodDNSConfigOptionArgs(name="ndots", value=str(site.mail.dns_ndots))])


def _assemble(component: Component) -> k8s.core.v1.ContainerArgs:
    site = component.site
    flags = [*(["--quotas"] if site.mail.quotas else []), *(["--relay", site.mail.relay.next_hop] if site.mail.relay else [])]
    return k8s.core.v1.ContainerArgs(
        name="assemble",
        image=site.mail.image,
        command=[
            *("python3", f"{SCRIPTS_DIR}/assemble.py", "--config", SOURCE_DIR, "--secrets", SECRETS_DIR, "--target", CONFIG_DIR),
            *("--state", STATE_DIR, *flags),
        ],
        resources=k8s.core.v1.ResourceRequirementsArgs(requests={"cpu": "25m", "memory": "64Mi"}, limits={"memory": "128Mi"}),
        security_context=rights(0, capabilities=INIT_CAPABILITIES),
        volume_mounts=[
            k8s.core.v1.VolumeMountArgs(name="assembled", mount_path=CONFIG_DIR),
            k8s.core.v1.VolumeMountArgs(name="config", mount_path=SOURCE_DIR, read_only=True),
            k8s.core.v1.VolumeMountArgs(name="scripts", mount_path=SCRIPTS_DIR, read_only=True),
            k8s.core.v1.VolumeMountArgs(name="data", mount_path=STATE_DIR, sub_path="state"),  # keeps the last good set
            *(
                k8s.core.v1.VolumeMountArgs(name=f"secret-{folder}", mount_path=f"{SECRETS_DIR}/{folder}", read_only=True)
                for folder in mounted_secrets(site)
            ),
        ],
    )


def _mail_server(component: Component) -> k8s.core.v1.ContainerArgs:
    site = component.site
    resources = site.mail.resources
    managesieve = [MANAGESIEVE_PORT] if site.managesieve else []
    deferring = [MILTER_PORT, *([SRS_PORT] if site.srs else [])]
    return k8s.core.v1.ContainerArgs(
        name=CONTAINER,
        image=site.mail.image,
        image_pull_policy="IfNotPresent",
        env=[k8s.core.v1.EnvVarArgs(name=name, value=value) for name, value in environment(site).items()],
        ports=[
            *(k8s.core.v1.ContainerPortArgs(name=s.port_name, container_port=s.port, protocol="TCP") for s in LISTENERS),
            *(k8s.core.v1.ContainerPortArgs(name=s.proxy_port_name, container_port=s.proxy_port, protocol="TCP") for s in LISTENERS),
            *(k8s.core.v1.ContainerPortArgs(name="sieve", container_port=port, protocol="TCP") for port in managesieve),
        ],
        resources=k8s.core.v1.ResourceRequirementsArgs(
            requests={"cpu": resources.cpu_request, "memory": resources.memory_request}, limits={"memory": resources.memory_limit}
        ),
        lifecycle=k8s.core.v1.LifecycleArgs(
            pre_stop=k8s.core.v1.LifecycleHandlerArgs(exec_=k8s.core.v1.ExecActionArgs(command=STOP_FIRST))
        ),
        # The image ignores how user-patches.sh ends: all eight sockets and the file that is its last word prove that it did.
        # Without the filter all mail is deferred (76 s seen at a first start), and so it is without postsrsd where SRS is on.
        # First start: key files, DH parameters, filter set-up; ten minutes before the kubelet gives up.
        startup_probe=_probe(
            *_listening(*deferring, *(port for s in LISTENERS for port in (s.port, s.proxy_port)), *managesieve),
            f"test -e {PATCHED}",
            f"{ALIVE} --tls",
            period=5,
            failures=120,
        ),
        readiness_probe=_probe(*_listening(*deferring, SMTP.port, IMAPS.port), f"{ALIVE} --tls", period=10, failures=3),
        # A restart helps a daemon that hangs, but no certificate.
        liveness_probe=_probe(ALIVE, period=60, failures=3),
        # Escalation stays allowed: postdrop is set-group-id, and Sieve's redirect and vacation hand their mail to it.
        security_context=rights(0, capabilities=tuple(CAPABILITIES), escalation=True, read_only=False),
        volume_mounts=[
            k8s.core.v1.VolumeMountArgs(name="assembled", mount_path=CONFIG_DIR),
            k8s.core.v1.VolumeMountArgs(name="tls", mount_path=TLS_DIR, read_only=True),
            k8s.core.v1.VolumeMountArgs(name="scripts", mount_path=SCRIPTS_DIR, read_only=True),  # the pulse and the probes run in place
            *(k8s.core.v1.VolumeMountArgs(name="data", mount_path=path, sub_path=folder) for folder, path in MOUNTS.items()),
        ],
    )


def _listening(*ports: int) -> Iterator[str]:
    """Commands that end with 0 when something listens on every port. They open no connection that Postfix would log."""
    return (f"ss -Hltn 'sport = :{port}' | grep -q ." for port in ports)


def _probe(*commands: str, period: int, failures: int) -> k8s.core.v1.ProbeArgs:
    """`timeout_seconds` is above the bound of alive.py, which names the daemon that does not answer."""
    return k8s.core.v1.ProbeArgs(
        exec_=k8s.core.v1.ExecActionArgs(command=["sh", "-c", " && ".join(commands)]),
        period_seconds=period,
        timeout_seconds=15,
        failure_threshold=failures,
    )


def _volumes(component: Component) -> list[k8s.core.v1.VolumeArgs]:
    site = component.site
    return [
        k8s.core.v1.VolumeArgs(
            name="data", persistent_volume_claim=k8s.core.v1.PersistentVolumeClaimVolumeSourceArgs(claim_name=site.mail.storage.claim)
        ),
        # In memory, because password hashes and keys end up here.
        k8s.core.v1.VolumeArgs(name="assembled", empty_dir=k8s.core.v1.EmptyDirVolumeSourceArgs(medium="Memory", size_limit="16Mi")),
        k8s.core.v1.VolumeArgs(
            name="config",
            config_map=k8s.core.v1.ConfigMapVolumeSourceArgs(
                name=CONFIG_MAP, items=[k8s.core.v1.KeyToPathArgs(key=config_map_key(path), path=path) for path in config_files(site)]
            ),
        ),
        k8s.core.v1.VolumeArgs(name="scripts", config_map=k8s.core.v1.ConfigMapVolumeSourceArgs(name=SCRIPTS_MAP)),
        # A folder, never a subPath: those keep the old certificate until the pod restarts.
        k8s.core.v1.VolumeArgs(name="tls", secret=k8s.core.v1.SecretVolumeSourceArgs(secret_name=site.tls.secret)),
        *(
            k8s.core.v1.VolumeArgs(name=f"secret-{folder}", secret=k8s.core.v1.SecretVolumeSourceArgs(secret_name=name, default_mode=0o400))
            for folder, name in mounted_secrets(site).items()
        ),
    ]
