"""Quantities as Kubernetes reads them (apimachinery, pkg/api/resource); the numbers here are counted by hand."""

import pytest
from pydantic import TypeAdapter, ValidationError

from components.settings.quantity import Bytes, Cpu, in_bytes

SIZES = {
    "512Mi": 536_870_912,
    "1.5Gi": 1_610_612_736,
    ".5Gi": 536_870_912,
    "2G": 2_000_000_000,
    "5k": 5000,
    "1e9": 1_000_000_000,
    "1E3": 1000,
    "1E": 1_000_000_000_000_000_000,
    "7": 7,
    "5.": 5,
}


@pytest.mark.parametrize("text", SIZES)
def test_a_size_is_counted_in_bytes(text: str) -> None:
    assert in_bytes(TypeAdapter(Bytes).validate_python(text)) == SIZES[text]


@pytest.mark.parametrize(("number", "text"), [(209_715_200, "209715200"), (1e9, "1000000000"), (1e21, None), (0.5, None)])
def test_a_size_may_be_a_number_of_bytes(number: float, text: str | None) -> None:
    if text:
        assert TypeAdapter(Bytes).validate_python(number) == text
    else:
        with pytest.raises(ValidationError):
            TypeAdapter(Bytes).validate_python(number)


@pytest.mark.parametrize(
    "text",
    ["1000m", "500m", "1m", "0", "0.5", "-1Gi", "5GB", "5gi", "5K", "1e-3", "8Ei", "9" * 40, "inf", "nan", "", "Gi", "\u0665Gi", "1 Gi"],
)
def test_an_invalid_size_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="write a size such as"):
        TypeAdapter(Bytes).validate_python(text)


@pytest.mark.parametrize("value", ["250m", "0.5", 0.5, 2, "1000u", "1e-1", "2"])
def test_cpu_time(value: str | float) -> None:
    assert TypeAdapter(Cpu).validate_python(value) == str(value)


@pytest.mark.parametrize("text", ["1u", "0.0001", "0", "1Gi", "500Mi", "-1", "two", True])
def test_an_invalid_cpu_time_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Cpu).validate_python(text)
