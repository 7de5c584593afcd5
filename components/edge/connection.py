"""How the firewall is reached: public parts only. The private key travels apart from them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Self

from components.settings.edge import Ssh
from components.settings.site import Site


@dataclass(frozen=True)
class Connection:
    """Address and identity of the firewall's SSH server."""

    host: str
    port: int
    user: str
    host_key: str
    key_file: str | None = None

    @classmethod
    def of(cls, site: Site, ssh: Ssh) -> Self:
        return cls(str(ssh.host or site.edge.address), ssh.port, ssh.user, ssh.host_key, ssh.key_file)

    @classmethod
    def from_inputs(cls, inputs: Mapping[str, str]) -> Self:
        """The reverse of `inputs`."""
        return cls(inputs["host"], int(inputs["port"]), inputs["user"], inputs["host_key"], inputs["key_file"] or None)

    @property
    def inputs(self) -> dict[str, str]:
        """As a resource keeps it in Pulumi's state, where every value is text."""
        return {name: "" if value is None else str(value) for name, value in asdict(self).items()}

    @property
    def label(self) -> str:
        return f"{self.user}@{self.host}:{self.port}"
