"""The dynamic provider as the engine drives it: over gRPC, in a process of its own, against the stand-in."""

import base64
import json
import subprocess
import sys
from typing import Any

import grpc
import pytest
from google.protobuf import struct_pb2
from google.protobuf.json_format import MessageToDict, ParseDict
from pulumi.dynamic.dynamic import serialize_provider
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from components.edge.agent import agent_digest
from components.edge.connection import Connection
from components.edge.desired import haproxy_set, rule_set
from components.edge.provider import HaproxySetProvider, RuleSetProvider
from components.settings.edge import SSH_KEY
from tests.contract.test_rules import nat
from tools.lab.hosts import slowness
from tools.offline.stackfile import ROOT

pytestmark = pytest.mark.contract

CANARY = "Y2FuYXJ5LWluLXRoZS1jb25maWc"

# Pulumi's own server, on a socket in a folder instead of a TCP port: gRPC's threads in this process serve one test after the other,
# and each test's firewall has a network of its own.
SERVE = """
import runpy, sys, grpc
make = grpc.server
def server(*arguments, **options):
    made = make(*arguments, **options)
    bind = made.add_insecure_port
    made.add_insecure_port = lambda address: bind(sys.argv[2])
    return made
grpc.server = server
runpy.run_module("pulumi.dynamic", run_name="__main__", alter_sys=True)
"""


class Engine:
    """The calls that the engine makes, in its order, and what it would keep in its state."""

    def __init__(self, folder, key: str | None) -> None:
        self.log, address = folder / "log", f"unix://{folder / 'socket'}"
        with self.log.open("wb") as log:
            command = [sys.executable, "-u", "-c", SERVE, "127.0.0.1:1", address]
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log)
        assert self.process.stdout.readline(), self.log.read_text()
        self.stub = provider_pb2_grpc.ResourceProviderStub(grpc.insecure_channel(address))
        values = {"mailserver:other": CANARY} | ({SSH_KEY: key} if key else {})
        self.stub.Configure(
            provider_pb2.ConfigureRequest(args=struct({k.removeprefix("x"): v for k, v in values.items()}), variables=values)
        )
        self.state: list[dict[str, Any]] = []

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10 * slowness())

    def check(self, news):
        return plain(self.stub.Check(provider_pb2.CheckRequest(urn=URN, news=struct(news))).inputs)

    def diff(self, olds, news):
        return self.stub.Diff(provider_pb2.DiffRequest(id="x", urn=URN, olds=struct(olds), news=struct(news)))

    def create(self, news):
        answer = self.stub.Create(provider_pb2.CreateRequest(urn=URN, properties=struct(news)))
        self.state.append(plain(answer.properties))
        return answer.id, self.state[-1]

    def update(self, olds, news):
        answer = self.stub.Update(provider_pb2.UpdateRequest(id="x", urn=URN, olds=struct(olds), news=struct(news)))
        self.state.append(plain(answer.properties))
        return self.state[-1]

    def read(self, id_, props):
        answer = self.stub.Read(provider_pb2.ReadRequest(id=id_, urn=URN, properties=struct(props), inputs=struct(props)))
        self.state.append(plain(answer.properties))
        return answer.id, self.state[-1]

    def delete(self, props):
        self.stub.Delete(provider_pb2.DeleteRequest(id="x", urn=URN, properties=struct(props)))


URN = "urn:pulumi:test::mailserver::pulumi-python:dynamic/mailserver:HaproxySet::haproxy"


def struct(value):
    return ParseDict(value, struct_pb2.Struct())


def plain(message):
    return MessageToDict(message)


def properties(site, provider, wanted):
    return {
        "connection": Connection.of(site, site.edge.ssh).inputs,
        "agent": agent_digest(),
        "wanted": wanted,
        "__provider": serialize_provider(provider),
    }


@pytest.fixture
def engine(firewall, tmp_path):
    engine = Engine(tmp_path, firewall.private_key)
    yield engine
    engine.stop()


@pytest.fixture
def haproxy(edge_site):
    return lambda changes=None: properties(edge_site(changes), HaproxySetProvider(), haproxy_set(edge_site(changes)))


@pytest.fixture
def rules(edge_site):
    return lambda changes=None: properties(edge_site(changes), RuleSetProvider(), rule_set(edge_site(changes)))


@pytest.mark.parametrize(("provider", "name"), [(HaproxySetProvider, "HaproxySetProvider"), (RuleSetProvider, "RuleSetProvider")])
def test_the_state_holds_a_path_and_a_name_and_nothing_else(provider, name):
    """Renaming either makes a later refresh or delete fail: the state of every installation names them."""
    path = b"components.edge.provider"
    frame = b"\x8c" + bytes([len(path)]) + path + b"\x94\x8c" + bytes([len(name)]) + name.encode() + b"\x94\x93\x94)\x81\x94."
    pickled = b"\x80\x04\x95" + len(frame).to_bytes(8, "little") + frame
    assert base64.b64decode(serialize_provider(provider())) == pickled


def test_a_life_in_order(engine, firewall, haproxy, rules):
    wanted, leading = haproxy(), rules()
    assert engine.check(wanted) == wanted
    id_, state = engine.create(wanted)
    assert id_ == f"haproxy@{firewall.address}"
    assert {key: state[key] for key in ("connection", "agent", "wanted")} == {k: v for k, v in wanted.items() if k != "__provider"}
    _, led = engine.create(leading)
    assert nat(firewall)["25"] == firewall.address

    with pytest.raises(grpc.RpcError) as error:
        engine.delete(state)
    assert "points to it" in str(error.value), "in use"
    engine.delete(led)
    engine.delete(state)
    engine.delete(state)
    assert engine.read(id_, state)[0] == "", "read after delete does not fail"


def test_an_unchanged_up_opens_no_connection_and_a_refresh_one(engine, firewall, haproxy):
    id_, state = engine.create(haproxy())
    before = firewall.logins()
    assert engine.diff(state, engine.check(haproxy())).changes == provider_pb2.DiffResponse.DIFF_NONE
    assert firewall.logins() == before
    engine.read(id_, state)
    assert firewall.logins() == before + 1


def test_create_takes_over_what_is_there(engine, firewall, haproxy):
    firewall.client().call("apply", "haproxy", haproxy()["wanted"])
    config = firewall.config_file.read_bytes()
    engine.create(haproxy())
    assert firewall.config_file.read_bytes() == config


def test_drift_shows_in_the_diff_after_a_refresh_and_goes_with_the_update(engine, firewall, haproxy):
    id_, state = engine.create(haproxy())

    def meddle(root):
        for item in root.findall("installedpackages/haproxy/ha_pools/item"):
            if item.findtext("name") == "mailserver_nodes_imaps":
                item.find("server_timeout").text = "30000"

    firewall.edit(meddle)
    _, live = engine.read(id_, state)
    assert live["wanted"]["pools"]["mailserver_nodes_imaps"]["server_timeout"] == "30000"
    assert engine.diff(live, haproxy()).changes == provider_pb2.DiffResponse.DIFF_SOME
    after = engine.update(live, haproxy())
    assert engine.diff(after, haproxy()).changes == provider_pb2.DiffResponse.DIFF_NONE
    assert engine.read(id_, after)[1]["wanted"] == after["wanted"]


def test_a_haproxy_that_stopped_is_drift(engine, firewall, haproxy):
    id_, state = engine.create(haproxy())
    firewall.kill_haproxy()
    _, live = engine.read(id_, state)
    assert engine.diff(live, haproxy()).changes == provider_pb2.DiffResponse.DIFF_SOME
    engine.update(live, haproxy())
    assert firewall.banner(25).startswith("220 ")


def test_moving_the_target_is_an_update_and_moving_the_firewall_a_replacement(engine, firewall, haproxy, rules):
    engine.create(haproxy())
    _, state = engine.create(rules())
    legacy = rules({"edge/legacy": {"address": "10.0.20.210"}, "edge/target": "legacy"})
    answer = engine.diff(state, legacy)
    assert (answer.changes, list(answer.replaces)) == (provider_pb2.DiffResponse.DIFF_SOME, [])
    engine.update(state, legacy)
    assert nat(firewall)["25"].startswith("<mailserver>")
    elsewhere = json.loads(json.dumps(legacy))
    elsewhere["connection"]["host"] = "192.0.2.1"
    assert list(engine.diff(legacy, elsewhere).replaces) == [], "the same machine under another address"
    elsewhere["connection"]["host_key"] = " ".join((firewall.root / "ssh/unknown.pub").read_text().split()[:2])
    assert list(engine.diff(legacy, elsewhere).replaces) == ["connection"]


def test_a_new_agent_is_an_update_that_reloads_nothing(engine, firewall, haproxy):
    _, state = engine.create(haproxy())
    starts = firewall.calls("start")
    older = state | {"agent": "0123456789abcdef"}
    assert engine.diff(older, haproxy()).changes == provider_pb2.DiffResponse.DIFF_SOME
    engine.update(older, haproxy())
    assert firewall.calls("start") == starts


def test_what_a_person_reads_when_it_fails(engine, firewall, haproxy):
    """The engine prints what the provider raises: the reason, no trace of calls into the client, no secret."""
    (firewall.root / "var/run/haproxy.conf.dirty").touch()
    with pytest.raises(grpc.RpcError) as error:
        engine.create(haproxy())
    text = error.value.details()
    assert "unapplied changes" in text
    assert "During handling of the above exception" not in text


def test_no_secret_is_in_state_log_or_error(firewall, haproxy, rules, tmp_path):
    """The key, a canary in a foreign setting and a foreign password, through every call, good and bad."""
    engine = Engine(tmp_path, firewall.private_key)
    texts = []
    try:
        id_, state = engine.create(haproxy())
        engine.update(state, haproxy())
        engine.create(rules())
        engine.read(id_, state)
        for bad in ("host_key", "port"):
            broken = haproxy()
            broken["connection"] |= {
                "host_key": " ".join((firewall.root / "ssh/unknown.pub").read_text().split()[:2]),
                "port": "2223" if bad == "port" else "22",
            }
            with pytest.raises(grpc.RpcError) as error:
                engine.create(broken)
            texts.append(str(error.value))
        (firewall.root / "ssh/authorized_keys").write_text("")
        with pytest.raises(grpc.RpcError) as error:
            engine.read(id_, state)
        texts.append(str(error.value))
    finally:
        engine.stop()
    texts += [json.dumps(engine.state), engine.log.read_text()]
    for secret in (*firewall.private_key.splitlines()[1:-1], CANARY, "foreign-password"):
        assert not [text for text in texts if secret in text]


def test_without_a_key_it_says_how_to_give_one(haproxy, monkeypatch, tmp_path):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    engine = Engine(tmp_path, None)
    try:
        with pytest.raises(grpc.RpcError) as error:
            engine.create(haproxy())
        assert "pulumi config set --secret edgeSshKey" in error.value.details()
    finally:
        engine.stop()


def test_a_broken_configuration_fails_the_up_and_leaves_everything(engine, firewall, haproxy):
    _, state = engine.create(haproxy())
    config = firewall.config_file.read_bytes()
    bad = haproxy()
    bad["wanted"]["pools"]["mailserver_nodes_sub"]["advanced_backend"] = "no such keyword"
    with pytest.raises(grpc.RpcError) as error:
        engine.update(state, bad)
    assert "no such keyword" in error.value.details() or "unknown keyword" in error.value.details()
    assert firewall.config_file.read_bytes() == config
