"""Kubernetes quantities, by kind: a number of bytes, or an amount of CPU time."""

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity
_NUMBER = r"([0-9]+\.?[0-9]*|\.[0-9]+)"
_QUANTITY = re.compile(rf"{_NUMBER}([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{{1,2}})?")
_FACTORS = {suffix: Decimal(1000) ** power for power, suffix in enumerate("num kMGTPE", start=-3)} | {
    f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", start=1)
}
_MOST = 2**63 - 1  # Kubernetes cuts larger values off without a word


def _amount(quantity: str) -> Decimal | None:
    found = _QUANTITY.fullmatch(quantity)
    if found is None:
        return None
    number, suffix = found[1], found[2] or " "
    return Decimal(number) * _FACTORS[suffix] if suffix in _FACTORS else Decimal(number + suffix)


def _bytes(value: str) -> str:
    amount = _amount(value)
    if amount is None or not 0 < amount <= _MOST or amount % 1 or value[-1] in "num":
        raise ValueError("write a size such as 512Mi, 1.5Gi or 2G")
    return value


def _cpu(value: str) -> str:
    amount = _amount(value)
    if amount is None or not 0 < amount <= _MOST or amount * 1000 % 1 or value.endswith("i"):
        raise ValueError("write CPU time such as 250m (a quarter of a core), 0.5 or 2")
    return value


def _number_as_text(value: Any) -> Any:
    """YAML reads `2` and `0.5` as numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return format(value, ".15g") if isinstance(value, float) else str(value)


Bytes = Annotated[
    str,
    BeforeValidator(_number_as_text),
    AfterValidator(_bytes),
    WithJsonSchema({"title": "size", "type": ["string", "number"], "pattern": rf"^{_NUMBER}([KMGTPE]i|[kMGTPE]|[eE][+]?[0-9]{{1,2}})?$"}),
]
Cpu = Annotated[
    str,
    BeforeValidator(_number_as_text),
    AfterValidator(_cpu),
    WithJsonSchema({"title": "CPU time", "type": ["string", "number"], "pattern": rf"^{_NUMBER}([numk]|[eE][+-]?[0-9]{{1,2}})?$"}),
]


def in_bytes(size: Bytes) -> int:
    amount = _amount(size)
    assert amount is not None  # noqa: S101 - the type has parsed it
    return int(amount)
