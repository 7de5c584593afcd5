"""Roundcube's Deployment: one pod without rights, its volumes, probes, and the installer of third-party plugins."""

from collections.abc import Mapping, Sequence
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from components.base import Component
from components.live import rolled_out
from components.names import WEBMAIL, WEBMAIL_SELECTOR
from components.pods import BESIDE, affinity, checksum, pod_spec, rights
from components.settings.webmail import Webmail
from components.webmail import image

CONFIG_MAP = f"{WEBMAIL}.config"
SCRIPTS_MAP = f"{WEBMAIL}-scripts"
CUSTOM, PHP_INI = "custom.php", "webmail.ini"  # keys of the ConfigMap, and file names in the pod

PLACES = {"database": image.DATABASE_DIR, "plugins": image.PLUGINS_DIR, "enigma": image.ENIGMA_DIR}  # of the claims
OWNER_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER")


def deployment(
    component: Component, webmail: Webmail, texts: Mapping[str, str], depends_on: Sequence[pulumi.Resource]
) -> k8s.apps.v1.Deployment:
    """One replica, stopped before its successor starts: its volumes are for one node."""
    site = component.site
    annotations = rolled_out(1)
    if site.cluster.reloader:
        annotations["secret.reloader.stakater.com/reload"] = ",".join(secrets(webmail))
    return k8s.apps.v1.Deployment(
        component.named("deployment"),
        metadata=component.workload_metadata(WEBMAIL, WEBMAIL_SELECTOR, annotations),
        spec=k8s.apps.v1.DeploymentSpecArgs(
            replicas=1,
            strategy=k8s.apps.v1.DeploymentStrategyArgs(type="Recreate"),
            selector=k8s.meta.v1.LabelSelectorArgs(match_labels=WEBMAIL_SELECTOR),
            template=k8s.core.v1.PodTemplateSpecArgs(
                metadata=k8s.meta.v1.ObjectMetaArgs(labels=WEBMAIL_SELECTOR, annotations=webmail.pod.annotations | checksum(texts)),
                spec=_pod(component, webmail),
            ),
        ),
        opts=component.child(
            "Deployment", WEBMAIL, depends_on=depends_on, custom_timeouts=pulumi.CustomTimeouts(create="15m", update="15m")
        ),
    )


def secrets(webmail: Webmail) -> dict[str, tuple[str, str]]:
    """The Secrets that the pod reads: name to key and file."""
    files = {webmail.session_key.name: ("des_key", image.SESSION_KEY_FILE)}
    if webmail.database.type != "sqlite":
        files[webmail.database.password.name] = ("password", image.PASSWORD_FILE)
    if webmail.extra_secret:
        files[webmail.extra_secret.name] = ("extra.php", image.EXTRA_FILE)
    return files


def _pod(component: Component, webmail: Webmail) -> k8s.core.v1.PodSpecArgs:
    priority = component.site.mail.priority_class
    # Apache's port is 80 in the image with root, and no one here is root.
    unprivileged = {} if webmail.nonroot_image else {"net.ipv4.ip_unprivileged_port_start": "0"}
    return pod_spec(
        webmail.pod,
        sysctls=unprivileged,
        priority_class_name=priority.class_name if priority else None,
        affinity=affinity({BESIDE: WEBMAIL}) if webmail.claims else None,  # a running backup ties the volumes to its node
        init_containers=[
            *([_owner(webmail)] if webmail.claims else []),
            *([_installer(webmail)] if webmail.composer_plugins else []),
        ]
        or None,
        containers=[_roundcube(webmail)],
        volumes=_volumes(webmail),
    )


def _owner(webmail: Webmail) -> k8s.core.v1.ContainerArgs:
    """Gives the volumes' own folders to Roundcube's user; what is in them keeps its owner. An fsGroup would open PGP keys to a group."""
    mounts = [_claim_mount(use) for use in webmail.claims]
    user = str(image.USER)
    return k8s.core.v1.ContainerArgs(
        name="owner",
        image=webmail.image,
        command=["install", "-d", "-o", user, "-g", user, "-m", "0750", *(str(mount.mount_path) for mount in mounts)],
        resources=_resources("5m", "16Mi", "32Mi"),
        security_context=rights(0, capabilities=OWNER_CAPABILITIES),
        volume_mounts=mounts,
    )


def _installer(webmail: Webmail) -> k8s.core.v1.ContainerArgs:
    return k8s.core.v1.ContainerArgs(
        name="plugins",
        image=webmail.image,
        command=[
            *("sh", f"{image.SCRIPTS_DIR}/{image.INSTALLER}"),
            *(f"{package}:{version}" for package, version in sorted(webmail.composer_plugins.items())),
        ],
        env=[k8s.core.v1.EnvVarArgs(name="HOME", value="/tmp")],  # noqa: S108 - Composer's cache, in an emptyDir of the pod's own
        resources=_resources("10m", "64Mi", "1Gi"),  # Composer solves in memory; it runs only for a new set
        security_context=rights(image.USER),
        volume_mounts=[
            k8s.core.v1.VolumeMountArgs(name="scripts", mount_path=image.SCRIPTS_DIR, read_only=True),
            k8s.core.v1.VolumeMountArgs(name="release", mount_path=image.TARGET_DIR),
            k8s.core.v1.VolumeMountArgs(name="tmp", mount_path="/tmp"),  # noqa: S108 - as above
            _claim_mount("plugins"),
        ],
    )


def _roundcube(webmail: Webmail) -> k8s.core.v1.ContainerArgs:
    plugins = [
        k8s.core.v1.VolumeMountArgs(name="release", mount_path=image.RELEASE_DIR, read_only=True),
        k8s.core.v1.VolumeMountArgs(name="after-set-up", mount_path=image.AFTER_SET_UP_DIR, read_only=True),
    ]
    resources = webmail.resources
    return k8s.core.v1.ContainerArgs(
        name="roundcubemail",
        image=webmail.image,
        image_pull_policy="IfNotPresent",
        command=list(image.START),
        env=[k8s.core.v1.EnvVarArgs(name=name, value=value) for name, value in image.environment(webmail).items()],
        ports=[k8s.core.v1.ContainerPortArgs(name="http", container_port=image.port(webmail), protocol="TCP")],
        resources=_resources(resources.cpu_request, resources.memory_request, resources.memory_limit),
        # The login page needs PHP, the configuration and the database; ten minutes for the first start's tables.
        startup_probe=_probe(period=5, failures=120, exec_=_logs_in(webmail)),
        readiness_probe=_probe(period=30, failures=3, exec_=_logs_in(webmail)),
        # A file: no restart brings a database back.
        liveness_probe=_probe(period=60, failures=3, http_get=_favicon(webmail)),
        security_context=rights(image.USER),
        volume_mounts=[
            k8s.core.v1.VolumeMountArgs(name="document-root", mount_path=image.DOCUMENT_ROOT),
            k8s.core.v1.VolumeMountArgs(name="config", mount_path=image.CONFIG_DIR, read_only=True),
            k8s.core.v1.VolumeMountArgs(name="php", mount_path=image.PHP_DIR, read_only=True),
            k8s.core.v1.VolumeMountArgs(name="secrets", mount_path=image.SECRETS_DIR, read_only=True),
            k8s.core.v1.VolumeMountArgs(name="tmp", mount_path="/tmp"),  # noqa: S108 - an emptyDir of the pod's own
            *(k8s.core.v1.VolumeMountArgs(name="apache", mount_path=f"/run/{f}", sub_path=f) for f in ("apache2", "lock")),
            *(plugins if webmail.composer_plugins else []),
            *(_claim_mount(use) for use in webmail.claims if use != "plugins"),
        ],
    )


def _claim_mount(use: str) -> k8s.core.v1.VolumeMountArgs:
    return k8s.core.v1.VolumeMountArgs(name=use, mount_path=PLACES[use], sub_path=image.FOLDERS.get(use))


def _logs_in(webmail: Webmail) -> k8s.core.v1.ExecActionArgs:
    """Looks for the login's form: without its database Roundcube answers `Internal Error` with status 200."""
    return k8s.core.v1.ExecActionArgs(command=["php", "-r", image.LOGIN_FORM, f"http://127.0.0.1:{image.port(webmail)}/", webmail.host])


def _favicon(webmail: Webmail) -> k8s.core.v1.HTTPGetActionArgs:
    return k8s.core.v1.HTTPGetActionArgs(path="/skins/elastic/images/favicon.ico", port=image.port(webmail))


def _probe(*, period: int, failures: int, **asked: Any) -> k8s.core.v1.ProbeArgs:
    return k8s.core.v1.ProbeArgs(period_seconds=period, timeout_seconds=10, failure_threshold=failures, **asked)


def _resources(cpu: str, memory: str, limit: str) -> k8s.core.v1.ResourceRequirementsArgs:
    return k8s.core.v1.ResourceRequirementsArgs(requests={"cpu": cpu, "memory": memory}, limits={"memory": limit})


def _volumes(webmail: Webmail) -> list[k8s.core.v1.VolumeArgs]:
    scripts = [
        k8s.core.v1.VolumeArgs(name="scripts", config_map=_files(SCRIPTS_MAP, image.INSTALLER)),
        k8s.core.v1.VolumeArgs(name="after-set-up", config_map=_files(SCRIPTS_MAP, image.TABLES, mode=0o555)),
        _scratch("release", "512Mi"),
    ]
    return [
        _scratch("document-root", "512Mi"),
        _scratch("tmp", "2Gi"),  # uploads on their way
        _scratch("apache", "16Mi"),
        k8s.core.v1.VolumeArgs(name="config", config_map=_files(CONFIG_MAP, CUSTOM)),
        k8s.core.v1.VolumeArgs(name="php", config_map=_files(CONFIG_MAP, PHP_INI)),
        k8s.core.v1.VolumeArgs(
            name="secrets",
            projected=k8s.core.v1.ProjectedVolumeSourceArgs(
                default_mode=0o444,  # for a user that is not root
                sources=[
                    k8s.core.v1.VolumeProjectionArgs(
                        secret=k8s.core.v1.SecretProjectionArgs(
                            name=name, items=[k8s.core.v1.KeyToPathArgs(key=key, path=file.removeprefix(f"{image.SECRETS_DIR}/"))]
                        )
                    )
                    for name, (key, file) in secrets(webmail).items()
                ],
            ),
        ),
        *(scripts if webmail.composer_plugins else []),
        *(
            k8s.core.v1.VolumeArgs(name=use, persistent_volume_claim=k8s.core.v1.PersistentVolumeClaimVolumeSourceArgs(claim_name=claim))
            for use, claim in webmail.claims.items()
        ),
    ]


def _files(config_map: str, key: str, mode: int | None = None) -> k8s.core.v1.ConfigMapVolumeSourceArgs:
    return k8s.core.v1.ConfigMapVolumeSourceArgs(name=config_map, default_mode=mode, items=[k8s.core.v1.KeyToPathArgs(key=key, path=key)])


def _scratch(name: str, size: str) -> k8s.core.v1.VolumeArgs:
    return k8s.core.v1.VolumeArgs(name=name, empty_dir=k8s.core.v1.EmptyDirVolumeSourceArgs(size_limit=size))
