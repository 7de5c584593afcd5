"""The pod that checks the list of banned addresses, and the NodePort where the firewall fetches it."""

import pulumi
import pulumi_kubernetes as k8s

from components.bans.pod import KEY_VARIABLE, MIRROR_CONFIG, NAME, PORT, command, mirror_config
from components.base import NO_WAIT, Component, Context
from components.jobs.job import SCRIPTS_DIR
from components.live import rolled_out
from components.mail.component import POD_SCRIPTS, MailServer
from components.mail.trust import forwarded_networks
from components.pods import checksum, pod_spec, rights
from components.settings.bans import Bans as Settings

LABELS = {"app": NAME}
SCRIPTS = ("bans.py", "common.py")
CONFIG_DIR = "/config"
NOBODY = 65534
HEALTH = "/healthy"


class Bans(Component):
    """A Deployment without rights or volumes: what it forgets, it fetches again, and the firewall keeps its own copy meanwhile."""

    TYPE = "mailserver:bans:Bans"

    def __init__(
        self, name: str, context: Context, settings: Settings, mail: MailServer, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(name, context, opts, namespace=mail.namespace)
        self.settings = settings
        texts = {script: (POD_SCRIPTS / script).read_text("utf-8") for script in SCRIPTS}
        secret = settings.crowdsec and settings.crowdsec.api_key.name
        if settings.crowdsec:
            texts[MIRROR_CONFIG] = mirror_config(settings.crowdsec)
        config = self.config_map(NAME, texts, LABELS)
        annotations = rolled_out(1)
        if secret and self.site.cluster.reloader:
            annotations["secret.reloader.stakater.com/reload"] = secret
        self.deployment = k8s.apps.v1.Deployment(
            self.named("deployment"),
            metadata=self.workload_metadata(NAME, LABELS, annotations),
            spec=k8s.apps.v1.DeploymentSpecArgs(
                replicas=1,
                selector=k8s.meta.v1.LabelSelectorArgs(match_labels=LABELS),
                template=k8s.core.v1.PodTemplateSpecArgs(
                    metadata=k8s.meta.v1.ObjectMetaArgs(labels=LABELS, annotations=settings.pod.annotations | checksum(texts)),
                    spec=self._pod(),
                ),
            ),
            opts=self.child(
                "Deployment",
                NAME,
                depends_on=[config, *([mail.external_secrets[secret]] if secret in mail.external_secrets else [])],
                custom_timeouts=pulumi.CustomTimeouts(create="5m", update="5m"),
            ),
        )
        k8s.core.v1.Service(
            self.named("service"),
            metadata=self.metadata(NAME, labels=LABELS, annotations=NO_WAIT),
            spec=k8s.core.v1.ServiceSpecArgs(
                type="NodePort",
                # Any node answers, whatever the mail Service does: the firewall asks one that it knows, not the pod's.
                external_traffic_policy="Cluster",
                selector=LABELS,
                ports=[k8s.core.v1.ServicePortArgs(name="http", protocol="TCP", port=PORT, target_port=PORT, node_port=settings.node_port)],
            ),
            opts=self.child("Service", NAME),
        )
        k8s.networking.v1.NetworkPolicy(
            self.named("ingress-policy"),
            metadata=self.metadata(NAME),
            spec=k8s.networking.v1.NetworkPolicySpecArgs(
                pod_selector=k8s.meta.v1.LabelSelectorArgs(match_labels=LABELS),
                policy_types=["Ingress"],
                ingress=[
                    k8s.networking.v1.NetworkPolicyIngressRuleArgs(
                        ports=[k8s.networking.v1.NetworkPolicyPortArgs(protocol="TCP", port=PORT)],
                        from_=[
                            k8s.networking.v1.NetworkPolicyPeerArgs(ip_block=k8s.networking.v1.IPBlockArgs(cidr=str(network)))
                            for network in forwarded_networks(self.site)
                        ],
                    )
                ],
            ),
            opts=self.child("NetworkPolicy", NAME),
        )
        self.register_outputs({"nodePort": settings.node_port})

    def _pod(self) -> k8s.core.v1.PodSpecArgs:
        mirror = self.settings.crowdsec
        probe = k8s.core.v1.ProbeArgs(http_get=k8s.core.v1.HTTPGetActionArgs(path=HEALTH, port=PORT), period_seconds=30)
        containers = [
            k8s.core.v1.ContainerArgs(
                name="bans",
                image=self.site.jobs.python_image,
                command=list(command(self.site, self.settings)),
                ports=[k8s.core.v1.ContainerPortArgs(name="http", container_port=PORT, protocol="TCP")],
                resources=k8s.core.v1.ResourceRequirementsArgs(requests={"cpu": "10m", "memory": "64Mi"}, limits={"memory": "256Mi"}),
                readiness_probe=probe,
                liveness_probe=probe,
                security_context=rights(NOBODY),
                volume_mounts=[k8s.core.v1.VolumeMountArgs(name="config", mount_path=SCRIPTS_DIR, read_only=True)],
            )
        ]
        if mirror:
            key = k8s.core.v1.SecretKeySelectorArgs(name=mirror.api_key.name, key="api_key")
            containers.append(
                k8s.core.v1.ContainerArgs(
                    name="mirror",
                    image=mirror.image,
                    command=["/usr/local/bin/crowdsec-blocklist-mirror", "-c", f"{CONFIG_DIR}/{MIRROR_CONFIG}"],
                    env=[k8s.core.v1.EnvVarArgs(name=KEY_VARIABLE, value_from=k8s.core.v1.EnvVarSourceArgs(secret_key_ref=key))],
                    resources=k8s.core.v1.ResourceRequirementsArgs(requests={"cpu": "10m", "memory": "64Mi"}, limits={"memory": "256Mi"}),
                    security_context=rights(NOBODY),
                    volume_mounts=[k8s.core.v1.VolumeMountArgs(name="config", mount_path=CONFIG_DIR, read_only=True)],
                )
            )
        return pod_spec(
            self.settings.pod,
            containers=containers,
            volumes=[k8s.core.v1.VolumeArgs(name="config", config_map=k8s.core.v1.ConfigMapVolumeSourceArgs(name=NAME))],
        )
