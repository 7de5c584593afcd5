"""No rule asks the network."""

import socket

import pytest


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch):
    """Opening a socket fails the test."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the verification asked the network")

    for function in ("socket", "create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, function, refuse)
