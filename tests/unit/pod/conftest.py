"""What the tests of the init container's programs share."""

import pytest

from tools.pod import program

passwords = program("passwords")

HASH = "{SHA512-CRYPT}$6$" + "x" * 40
DOMAINS = ["a.org"]


@pytest.fixture(autouse=True)
def _schemes(monkeypatch):
    """Some of what the image's `doveadm pw -l` lists; there is no Dovecot where unit tests run."""
    monkeypatch.setattr(passwords, "schemes", lambda: {"SHA512-CRYPT", "PLAIN", "BLF-CRYPT"})


def complaint(call, *arguments) -> str:
    with pytest.raises(passwords.ProblemError) as refused:
        call(*arguments)
    return str(refused.value)
