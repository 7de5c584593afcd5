"""The table: what everything else is derived from."""

from components.listeners import LISTENERS


def test_no_port_of_a_kind_is_listed_twice():
    for kind in ("port", "proxy_port", "health_service_port"):
        ports = [getattr(listener, kind) for listener in LISTENERS]
        assert len(set(ports)) == len(ports), kind
    node_ports = [port for listener in LISTENERS for port in (listener.node_port, listener.health_node_port)]
    assert len(set(node_ports)) == len(node_ports)


def test_the_live_services_keep_their_numbers():
    live = {
        "smtp": (25, 2525, 30125, 30145, 2500),
        "submissions": (465, 4465, 30126, 30146, 4650),
        "submission": (587, 5587, 30127, 30147, 5870),
        "imaps": (993, 10993, 30128, 30148, 9930),
    }
    table = {s.name: (s.port, s.proxy_port, s.node_port, s.health_node_port, s.health_service_port) for s in LISTENERS}
    assert table == live
