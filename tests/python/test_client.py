"""A client in another language, with nothing but the .proto files: flows, streams, errors, health, reflection."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import threading
import unittest
import uuid

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status
from maxhost.v1 import flow_pb2, flow_pb2_grpc, host_pb2, host_pb2_grpc, network_pb2, network_pb2_grpc

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = ROOT / "target"
BINARY = os.environ.get("MAXHOST_BIN", str(TARGET / "release" / "maxhost"))
BOB = "O=Bob, L=New York, C=US"
# The samples that are used here. All others would be compiled for nobody.
SAMPLES = ["ping-pong", "heartbeat", "hostile"]
TIMEOUT = 60


class Host:
    """A host of its own in a temporary folder."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="maxhost-python-"))
        self.config = self.folder / "net" / "maxhost.toml"
        cordapps = self.folder / "cordapps"
        cordapps.mkdir()
        for sample in SAMPLES:
            shutil.copy(TARGET / "cordapps" / f"{sample}.wasm", cordapps)
        subprocess.run(
            [BINARY, "init", str(self.folder / "net"), "--cordapps", str(cordapps), "--json"],
            check=True, stdout=subprocess.DEVNULL)
        self.start()

    def start(self):
        self.log = open(self.folder / "host.log", "ab")
        self.process = subprocess.Popen(
            [BINARY, "run", "--json", "--config", str(self.config)], stdout=subprocess.PIPE, stderr=self.log)
        ready = json.loads(self.process.stdout.readline())
        assert ready["event"] == "ready", ready
        # Read on, so that the host never writes into a full pipe.
        self.reader = threading.Thread(target=self.process.stdout.read, daemon=True)
        self.reader.start()
        self.channel = grpc.insecure_channel(ready["grpc"])

    def kill(self):
        self.channel.close()
        self.process.kill()
        self.process.wait()
        self.close()

    def close(self):
        self.reader.join()
        self.process.stdout.close()
        self.log.close()

    def stop(self):
        self.channel.close()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=10)
        self.close()
        shutil.rmtree(self.folder)
        return code


class ClientTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.host = Host()

    @classmethod
    def tearDownClass(cls):
        assert cls.host.stop() == 0

    @property
    def flows(self):
        return flow_pb2_grpc.FlowServiceStub(self.host.channel)

    def ping(self, count, **more):
        arguments = json.dumps({"peer": BOB, "count": count})
        return flow_pb2.StartFlowRequest(identity="Alice", flow="ping-pong/ping", json=arguments, **more)

    def problem(self, call, code, reason):
        """The error of a call, decoded as any client can."""
        with self.assertRaises(grpc.RpcError) as raised:
            call()
        error = raised.exception
        self.assertEqual(error.code(), code)
        self.assertIn(("maxhost-code", reason), [(key, value) for key, value in error.trailing_metadata()])
        info, text, found = error_details_pb2.ErrorInfo(), error_details_pb2.LocalizedMessage(), []
        for detail in rpc_status.from_call(error).details:
            if detail.Unpack(info) or detail.Unpack(text):
                found.append(detail.TypeName())
        self.assertEqual((info.reason, info.domain), (reason, "maxhost"))
        self.assertTrue(text.message)
        self.assertEqual(len(found), 2)
        return info

    def test_a_flow_is_started_followed_and_shown(self):
        started = self.flows.StartFlow(self.ping(3), timeout=TIMEOUT).flow
        self.assertTrue(started.new)
        self.assertEqual(started.identity, "O=Alice, L=London, C=GB")
        events = list(self.flows.Attach(flow_pb2.AttachRequest(flow_id=started.flow_id), timeout=TIMEOUT))
        labels = [event.progress for event in events if event.HasField("progress")]
        self.assertEqual(labels, [f"round {n} of 3" for n in (1, 2, 3)][3 - len(labels):])
        self.assertEqual(json.loads(events[-1].ended.result.json), {"rounds": 3})
        shown = self.flows.GetFlow(flow_pb2.GetFlowRequest(flow_id=started.flow_id), timeout=TIMEOUT)
        self.assertEqual(shown.flow.state, flow_pb2.FLOW_STATE_COMPLETED)
        listed = self.flows.ListFlows(flow_pb2.ListFlowsRequest(identity="Alice", page_size=1000), timeout=TIMEOUT)
        self.assertIn(started.flow_id, [flow.flow_id for flow in listed.flows])

    def test_a_start_with_a_client_id_starts_once_and_may_be_forgotten(self):
        client_id = str(uuid.uuid4())
        first = list(self.flows.StartAndAttach(self.ping(2, client_id=client_id), timeout=TIMEOUT))
        self.assertTrue(first[0].started.new)
        again = self.flows.StartFlow(self.ping(2, client_id=client_id), timeout=TIMEOUT).flow
        self.assertEqual((again.flow_id, again.new), (first[0].started.flow_id, False))
        finished = self.flows.FinishedClientIds(flow_pb2.FinishedClientIdsRequest(), timeout=TIMEOUT).finished
        self.assertIn((client_id, True), [(one.client_id, one.succeeded) for one in finished])
        forget = flow_pb2.RemoveClientIdRequest(client_id=client_id)
        self.assertTrue(self.flows.RemoveClientId(forget, timeout=TIMEOUT).removed)
        self.assertFalse(self.flows.RemoveClientId(forget, timeout=TIMEOUT).removed)

    def test_results_come_as_cbor_to_who_wants_it(self):
        events = self.flows.StartAndAttach(self.ping(1, encoding="ENCODING_CBOR"), timeout=TIMEOUT)
        # A map of one pair, the text of six letters, the number 1.
        self.assertEqual(list(events)[-1].ended.result.cbor, b"\xa1\x66rounds\x01")

    def test_errors_can_be_read_without_our_code(self):
        unknown = flow_pb2.StartFlowRequest(identity="Zoe", flow="ping", json="{}")
        self.problem(lambda: self.flows.StartFlow(unknown), grpc.StatusCode.NOT_FOUND, "identity-not-found")
        wrong = flow_pb2.StartFlowRequest(identity="Alice", flow="ping", json='{"peer": "O=Bob, L=New York, C=US", "count": "x"}')
        info = self.problem(lambda: self.flows.StartFlow(wrong), grpc.StatusCode.INVALID_ARGUMENT, "arguments-invalid")
        self.assertEqual(info.metadata["path"], "/count")
        lost = flow_pb2.GetFlowRequest(flow_id="x")
        self.problem(lambda: self.flows.GetFlow(lost), grpc.StatusCode.INVALID_ARGUMENT, "flow-id-invalid")

    def test_a_flow_that_fails_says_why(self):
        request = flow_pb2.StartFlowRequest(identity="Alice", flow="hostile/panic", json="{}")
        ended = list(self.flows.StartAndAttach(request, timeout=TIMEOUT))[-1].ended
        self.assertEqual((ended.state, ended.error.kind), (flow_pb2.FLOW_STATE_FAILED, "unexpected"))

    def test_a_sleeping_flow_is_killed(self):
        request = flow_pb2.StartFlowRequest(identity="Alice", flow="hostile/sleep-forever", json="{}")
        flow_id = self.flows.StartFlow(request, timeout=TIMEOUT).flow.flow_id
        self.assertTrue(self.flows.KillFlow(flow_pb2.KillFlowRequest(flow_id=flow_id), timeout=TIMEOUT).killed)
        ended = list(self.flows.Attach(flow_pb2.AttachRequest(flow_id=flow_id), timeout=TIMEOUT))[-1].ended
        self.assertEqual(ended.state, flow_pb2.FLOW_STATE_KILLED)

    def test_what_can_be_started_comes_with_schemas(self):
        request = flow_pb2.RegisteredFlowsRequest(identity="Alice")
        flows = {flow.name: flow for flow in self.flows.RegisteredFlows(request, timeout=TIMEOUT).flows}
        self.assertEqual(json.loads(flows["ping-pong/ping"].arguments)["type"], "object")

    def test_the_network_and_the_host_are_shown(self):
        network = network_pb2_grpc.NetworkServiceStub(self.host.channel)
        exact = network.Parties(network_pb2.PartiesRequest(query="Bob", exact=True), timeout=TIMEOUT).parties
        self.assertEqual([party.name for party in exact], [BOB])
        self.assertEqual(len(network.Parties(network_pb2.PartiesRequest(), timeout=TIMEOUT).parties), 4)
        parameters = network.NetworkParameters(network_pb2.NetworkParametersRequest(), timeout=TIMEOUT)
        self.assertEqual([notary.name for notary in parameters.notaries], ["O=Notary, L=Zurich, C=CH"])
        info = network.NodeInfo(network_pb2.NodeInfoRequest(party=BOB), timeout=TIMEOUT)
        self.assertEqual(info.identities[0].name, BOB)
        feed = network.NetworkMapFeed(network_pb2.NetworkMapFeedRequest(), timeout=TIMEOUT)
        self.assertEqual(len(next(feed).snapshot.parties), 4)
        self.assertTrue(next(feed).HasField("snapshot_end"))
        feed.cancel()
        status = host_pb2_grpc.HostServiceStub(self.host.channel).Status(host_pb2.StatusRequest(), timeout=TIMEOUT)
        self.assertEqual(sum(status.identities.values()), 4)

    def test_health_and_reflection_are_the_standard_ones(self):
        health = health_pb2_grpc.HealthStub(self.host.channel)
        for service in ("", "maxhost.v1.FlowService"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT)
            self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING)
        reflected = ProtoReflectionDescriptorDatabase(self.host.channel)
        self.assertIn("maxhost.v1.FlowService", reflected.get_services())
        self.assertEqual(reflected.FindFileContainingSymbol("maxhost.v1.FlowService").package, "maxhost.v1")

    def test_a_client_that_lost_the_host_attaches_again_behind_its_cursor(self):
        beat = flow_pb2.StartFlowRequest(identity="Bob", flow="heartbeat/beat", json='{"beats": 8, "interval_ms": 250}')
        flow_id, cursor = None, 0
        with self.assertRaises(grpc.RpcError) as raised:
            for event in self.flows.StartAndAttach(beat, timeout=TIMEOUT):
                cursor = event.cursor
                if event.HasField("started"):
                    flow_id = event.started.flow_id
                if cursor == 2:
                    self.host.process.kill()
        self.assertEqual(raised.exception.code(), grpc.StatusCode.UNAVAILABLE)
        self.host.kill()
        self.host.start()
        attach = flow_pb2.AttachRequest(flow_id=flow_id, cursor=cursor)
        events = list(self.flows.Attach(attach, timeout=TIMEOUT))
        cursors = [event.cursor for event in events if event.HasField("progress")]
        self.assertEqual(cursors, list(range(cursor + 1, 9)))
        self.assertEqual(json.loads(events[-1].ended.result.json), {"beats": 8})


if __name__ == "__main__":
    unittest.main()
