"""Where the doctor (`make doctor`) looks from."""

from ipaddress import ip_address

from pydantic import Field

from components.settings.types import Address, Model


class Doctor(Model):
    """The doctor's sources."""

    resolvers: tuple[Address, ...] = Field(
        default=(ip_address("1.1.1.1"), ip_address("9.9.9.9")),
        min_length=1,
        description="DNS servers that speak for the Internet",
        examples=[["1.1.1.1"]],
    )
    internal_resolver: Address | None = Field(
        default=None, description="DNS server that clients inside use; null: it is not asked", examples=["192.168.1.53"]
    )
