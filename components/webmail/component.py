"""The webmail: everything that runs Roundcube in the cluster; nothing at all where the settings have none."""

import pulumi
import pulumi_kubernetes as k8s

from components.base import NO_WAIT, Component, Context
from components.mail.component import POD_SCRIPTS, MailServer
from components.mail.storage import claim
from components.names import WEBMAIL, WEBMAIL_SELECTOR
from components.settings.webmail import Webmail as Settings
from components.webmail import image
from components.webmail.config import custom_php, php_ini
from components.webmail.deployment import CONFIG_MAP, CUSTOM, PHP_INI, SCRIPTS_MAP, deployment, secrets
from components.webmail.ingress import annotations, certificate_secret
from components.webmail.network_policy import ingress_policy


class Webmail(Component):
    """Claims, configuration, Deployment, Service and Ingress of Roundcube."""

    TYPE = "mailserver:webmail:Webmail"

    def __init__(
        self, name: str, context: Context, settings: Settings, mail: MailServer, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(name, context, opts, namespace=mail.namespace)
        storage = settings.storage
        claims = [claim(self, name, storage.size, storage_class=storage.storage_class) for name in settings.claims.values()]
        texts = {CUSTOM: custom_php(self.site, settings), PHP_INI: php_ini(self.site)}
        config = [self.config_map(CONFIG_MAP, texts, WEBMAIL_SELECTOR)]
        if settings.composer_plugins:
            programs = {script: (POD_SCRIPTS / script).read_text("utf-8") for script in (image.INSTALLER, image.TABLES)}
            config.append(self.config_map(SCRIPTS_MAP, programs, WEBMAIL_SELECTOR))
            texts = texts | programs
        made = [mail.external_secrets[name] for name in secrets(settings) if name in mail.external_secrets]
        # Not the mail server itself: people read "the mail server is away" in a webmail that is there.
        self.deployment = deployment(self, settings, texts, [*claims, *config, *made])
        self.service = k8s.core.v1.Service(
            self.named("service"),
            metadata=self.metadata(WEBMAIL, labels=WEBMAIL_SELECTOR, annotations=NO_WAIT),
            spec=k8s.core.v1.ServiceSpecArgs(
                selector=WEBMAIL_SELECTOR,
                ports=[k8s.core.v1.ServicePortArgs(name="http", protocol="TCP", port=80, target_port=image.port(settings))],
            ),
            opts=self.child("Service", WEBMAIL),
        )
        self.policy = ingress_policy(self, settings)
        self.ingress = self._ingress(settings)
        self.register_outputs({"url": f"https://{settings.host}/"})

    def _ingress(self, settings: Settings) -> k8s.networking.v1.Ingress:
        port = k8s.networking.v1.ServiceBackendPortArgs(name="http")
        backend = k8s.networking.v1.IngressBackendArgs(service=k8s.networking.v1.IngressServiceBackendArgs(name=WEBMAIL, port=port))
        path = k8s.networking.v1.HTTPIngressPathArgs(path="/", path_type="Prefix", backend=backend)
        rule = k8s.networking.v1.IngressRuleArgs(host=settings.host, http=k8s.networking.v1.HTTPIngressRuleValueArgs(paths=[path]))
        name = settings.ingress.name
        return k8s.networking.v1.Ingress(
            self.named("ingress"),
            metadata=self.metadata(name, labels=WEBMAIL_SELECTOR, annotations=NO_WAIT | annotations(self.site, settings)),
            spec=k8s.networking.v1.IngressSpecArgs(
                ingress_class_name=settings.ingress.ingress_class,
                tls=[k8s.networking.v1.IngressTLSArgs(hosts=[settings.host], secret_name=certificate_secret(self.site, settings))],
                rules=[rule],
            ),
            opts=self.child("Ingress", name),
        )
