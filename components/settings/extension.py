"""What a site adds to what the program makes, so that ordinary customisation needs no fork."""

from typing import Annotated, Literal

from pydantic import Field

from components.settings.types import Model, ObjectName, text

LabelKey = Annotated[
    str,
    *text("label key", r"([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", "write a key such as topology.kubernetes.io/zone"),
]
Variable = Annotated[str, *text("variable", r"[A-Z][A-Z0-9_]*", "write a variable of the image, such as LOG_LEVEL")]
Parameter = Annotated[str, *text("Postfix parameter", r"[a-z][a-z0-9_]*", "write a parameter of postconf(5)")]
OneLine = Annotated[str, *text("one line", r"[^\r\n]*", "write the value on one line")]
RspamdFile = Annotated[str, *text("file name", r"[a-z0-9_-]+\.(conf|inc)", "write a file of Rspamd's override.d, such as actions.conf")]


class Toleration(Model):
    """A taint that a pod accepts."""

    key: LabelKey = Field(description="key of the taint")
    value: str | None = Field(default=None, description="its value; null: any")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(default=None, description="its effect; null: any")


class PodFields(Model):
    """Fields of a pod that are the cluster's business."""

    node_selector: dict[LabelKey, str] = Field(
        default={}, description="labels that the node must have", examples=[{"topology.kubernetes.io/zone": "home"}]
    )
    tolerations: tuple[Toleration, ...] = Field(default=(), description="taints that the pod accepts, beside its own")
    annotations: dict[LabelKey, str] = Field(default={}, description="annotations of the pod", examples=[{"example.org/team": "mail"}])
    image_pull_secrets: tuple[ObjectName, ...] = Field(
        default=(), description="existing Secrets of type kubernetes.io/dockerconfigjson for a private registry", examples=[["registry"]]
    )


class Extra(Model):
    """Configuration of the mail server that is applied after this program's own, and therefore overrides it."""

    environment: dict[Variable, str] = Field(
        default={}, description="further variables of the image; not for secrets", examples=[{"LOG_LEVEL": "debug"}]
    )
    postfix: dict[Parameter, OneLine] = Field(default={}, description="parameters of main.cf", examples=[{"maximal_queue_lifetime": "2d"}])
    dovecot: str | None = Field(default=None, description="lines behind dovecot.cf", examples=["mail_max_lock_timeout = 30 secs"])
    rspamd: dict[RspamdFile, str] = Field(
        default={}, description="files of Rspamd's override.d, each as a whole", examples=[{"actions.conf": "reject = 20;"}]
    )
