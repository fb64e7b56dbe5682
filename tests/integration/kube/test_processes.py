"""The informer, the lease and the client's credentials, as processes that things happen to."""

import base64
import json
import os
import queue
import signal
import subprocess
import threading
import time

import pytest

WAIT = 60


class Tool:
    """A running kube-tool and the lines that it says."""

    def __init__(self, programs, kubeconfig, *arguments):
        self.process = subprocess.Popen([programs / "kube-tool", "--kubeconfig", kubeconfig, *arguments], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))

    def line(self, seconds=WAIT):
        return self._lines.get(timeout=seconds)

    def until(self, wanted, seconds=WAIT):
        """The lines up to and with `wanted`."""
        lines, deadline = [], time.monotonic() + seconds
        while wanted not in lines:
            lines.append(self.line(max(0.1, deadline - time.monotonic())))
        return lines

    def ask(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.line()

    def signal(self, number):
        self.process.send_signal(number)

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        return self.process.wait(WAIT)


@pytest.fixture
def tool(programs):
    started = []

    def start(kubeconfig, *arguments):
        started.append(Tool(programs, kubeconfig, *arguments))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait(WAIT)


def make_namespace(plane, name):
    plane.client.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    return f"/api/v1/namespaces/{name}/configmaps"


def make(plane, path, name):
    plane.client.request("POST", path, {"metadata": {"name": name}})


def child(plane, name):
    """The index of a part of the control plane, and its process."""
    return next((i, process) for i, (part, process) in enumerate(plane._children) if part == name)


def restart_api_server(plane):
    """Kills the API server with its connections and watch cache; etcd keeps the objects."""
    index, process = child(plane, "kube-apiserver")
    command = process.args
    process.kill()
    process.wait()
    del plane._children[index]
    plane._spawn("kube-apiserver", command)
    assert plane.client.wait_ready(WAIT)


def test_an_informer_finds_what_was_deleted_while_it_could_not_look(own_plane, tool):
    path = make_namespace(own_plane, "missed")
    make(own_plane, path, "stays")
    make(own_plane, path, "goes")
    informer = tool(own_plane.kubeconfig, "inform", "missed")
    assert informer.until("synced") == ["+goes", "+stays", "synced"]
    make(own_plane, path, "watched")
    assert informer.line() == "+watched"
    informer.signal(signal.SIGSTOP)
    # Later than the last event that the informer saw, so that the new server's watch cache begins after it.
    make_namespace(own_plane, "elsewhere")
    restart_api_server(own_plane)
    own_plane.client.request("DELETE", f"{path}/goes")
    make(own_plane, path, "new")
    informer.signal(signal.SIGCONT)
    lines = informer.until("+new")
    assert "! expired" in lines  # a real 410: what is told next comes from comparing lists
    assert "-goes" in lines
    assert "+stays" not in lines  # it is known: told once
    # And it goes on watching.
    own_plane.client.request("DELETE", f"{path}/stays")
    assert "-stays" in informer.until("-stays")
    assert informer.end() == 0


def test_an_informer_outlasts_an_api_server_that_is_gone_for_a_while(own_plane, tool):
    path = make_namespace(own_plane, "outage")
    informer = tool(own_plane.kubeconfig, "inform", "outage")
    informer.until("synced")
    index, process = child(own_plane, "kube-apiserver")
    command = process.args
    process.kill()
    process.wait()
    del own_plane._children[index]
    informer.until("! unavailable")
    own_plane._spawn("kube-apiserver", command)
    assert own_plane.client.wait_ready(WAIT)
    make(own_plane, path, "after")
    assert "+after" in informer.until("+after")
    assert informer.end() == 0


def test_another_candidate_leads_when_the_leader_is_killed_or_leaves(plane, tool):
    make_namespace(plane, "lease")
    first = tool(plane.kubeconfig, "lead", "lease", "first")
    assert first.line() == "leading"
    second = tool(plane.kubeconfig, "lead", "lease", "second")
    with pytest.raises(queue.Empty):
        second.line(1.5)  # several retry periods
    first.process.kill()
    assert second.line() == "leading"
    third = tool(plane.kubeconfig, "lead", "lease", "third")
    assert second.end() == 0  # releases, so that the third need not wait for the lease to run out
    assert second.line() == "released"
    assert third.line() == "leading"
    lease = plane.client.get("/apis/coordination.k8s.io/v1/namespaces/lease/leases/lock")
    assert lease["spec"]["holderIdentity"] == "third"
    assert lease["spec"]["leaseTransitions"] >= 2


def test_a_leader_that_was_paused_past_its_lease_stops_leading(plane, tool):
    make_namespace(plane, "paused")
    first = tool(plane.kubeconfig, "lead", "paused", "first")
    assert first.line() == "leading"
    second = tool(plane.kubeconfig, "lead", "paused", "second")
    first.signal(signal.SIGSTOP)
    assert second.line() == "leading"
    first.signal(signal.SIGCONT)
    assert first.line() == "lost"
    assert first.process.wait(WAIT) == 1


def test_a_service_accounts_token_is_read_again_when_it_is_rotated(plane, tool, tmp_path):
    path = make_namespace(plane, "tokens")
    make(plane, path, "a")
    client = plane.client
    client.request("POST", "/api/v1/namespaces/tokens/serviceaccounts", {"metadata": {"name": "reader"}})
    rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/tokens"
    client.request("POST", f"{rbac}/roles", {"metadata": {"name": "reader"}, "rules": [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]})
    token = client.request("POST", "/api/v1/namespaces/tokens/serviceaccounts/reader/token",
                           {"spec": {"expirationSeconds": 3600}})["status"]["token"]
    config = json.loads(plane.kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    (tmp_path / "ca.crt").write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    (tmp_path / "config").write_text(json.dumps({
        "current-context": "sa",
        "clusters": [{"name": "c", "cluster": {"server": cluster["server"], "certificate-authority": "ca.crt"}}],
        "users": [{"name": "u", "user": {"tokenFile": "token"}}],
        "contexts": [{"name": "sa", "context": {"cluster": "c", "user": "u"}}]}))
    (tmp_path / "token").write_text("not-yet-a-token")
    getter = tool(tmp_path / "config", "get", "tokens", "a")
    assert getter.ask().startswith("permission_denied")
    # As the kubelet rotates: another file is moved into the place.
    (tmp_path / "token.new").write_text(token)
    os.replace(tmp_path / "token.new", tmp_path / "token")
    refused = getter.ask()
    assert refused.startswith("permission_denied") and "reader" in refused  # known now, but without rights
    client.request("POST", f"{rbac}/rolebindings", {
        "metadata": {"name": "reader"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "tokens"}]})
    deadline = time.monotonic() + WAIT
    while getter.ask() != "ok":
        assert time.monotonic() < deadline
