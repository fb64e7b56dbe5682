"""The process itself: killed, stopped, competing for the lead, started wrongly."""

import os
import re
import subprocess
import urllib.error
import urllib.request

import pytest
from conftest import wait
from test_operator import made, metrics


def health(operator, page):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{operator.health_port}/health/{page}", timeout=5).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def essence(world, name):
    """An endpoint's objects without what differs between two runs."""
    out = {}
    for key, item in world.children(name).items():
        text = re.sub(re.escape(name), "NAME", str({k: item.get(k) for k in ("spec",)}))
        text = re.sub(r"'(clusterIP|clusterIPs)': [^,\]}]+[\]]?", "", text)
        out[key.replace(name, "NAME")] = text
    return out


def kill_midway(world, start, names):
    """Has the operator make these endpoints' objects, and kills it again and again. Returns how many there were each time."""
    before, killed_at = world.count_children(), []
    for name in names:
        world.create(name)
    for step in (1, 9, 23, 41):
        operator = start("--namespace", world.namespace, "--workers", "1")
        wait(lambda step=step: world.count_children() - before >= step, f"{step} objects")
        operator.kill()
        killed_at.append(world.count_children() - before)
    print("killed when there were", killed_at, "of", 5 * len(names), "objects")
    return killed_at


def test_killed_at_any_moment_the_end_is_the_same(world, start):
    start("--namespace", world.namespace, "--workers", "1").kill()  # at once
    names = []
    for batch in range(4):  # on a machine that stood still meanwhile, a kill comes when all is done: once more
        names += [f"e{batch}-{i}" for i in range(12)]
        if any(count < 5 * 12 for count in kill_midway(world, start, names[-12:])):
            break
    else:
        pytest.fail("no kill came before all was done")
    start("--namespace", world.namespace)
    wait(lambda: all(len(world.children(n)) == 5 for n in names), "all objects", 60)
    wait(lambda: all(world.condition(n, "Ready") for n in names), "all statuses")
    first = essence(world, names[0])
    for name in names[1:]:
        assert essence(world, name) == first
    for name in names:
        assert world.endpoint(name)["metadata"]["finalizers"] == ["serving.quern.dev/cleanup"]


def test_killed_during_deletion_it_finishes_it(world, start):
    operator = start("--namespace", world.namespace)
    names = [f"e{i}" for i in range(8)]
    for name in names:
        world.create(name)
    wait(lambda: all(len(world.children(n)) == 5 for n in names), "all objects")
    for name in names:
        world.delete("inferenceendpoints", name)
    operator.kill()
    start("--namespace", world.namespace)
    wait(lambda: not world.list("inferenceendpoints"), "the endpoints to go")
    assert all(world.children(n) == {} for n in names)


def lease(world):
    return world.api.get(f"/apis/coordination.k8s.io/v1/namespaces/default/leases/{world.namespace}")["spec"]


def test_one_of_two_leads_and_the_other_takes_over(world, start):
    first = start("--namespace", world.namespace, "--leader-elect", "--lease-name", world.namespace)
    wait(lambda: "\nquern_operator_leader 1" in metrics(first), "the first to lead")
    second = start("--namespace", world.namespace, "--leader-elect", "--lease-name", world.namespace)
    wait(lambda: health(second, "ready") == 200, "the second to be ready")
    wait(lambda: "\nquern_operator_leader 0" in metrics(second), "the second to say that it does not lead")
    world.create("a")
    made(world)
    holder = lease(world)["holderIdentity"]
    assert first.stop() == 0
    # SIGTERM gives the lease up, so the other need not wait for it to run out.
    assert lease(world)["holderIdentity"] != holder
    wait(lambda: "\nquern_operator_leader 1" in metrics(second), "the second to lead")
    world.create("b")
    made(world, "b")
    assert second.stop() == 0


def test_a_connection_that_falls_silent_does_not_cost_the_lead(world, start, relay):
    operator = start("--namespace", world.namespace, "--leader-elect", "--lease-name", world.namespace,
                     "--lease-duration", "45s", kubeconfig=relay.kubeconfig)  # room for three attempts
    wait(lambda: "\nquern_operator_leader 1" in metrics(operator), "the lead")

    relay.fall_silent()
    renewals = set()  # the first may have been under way

    def renewed():
        lease = world.api.get(f"/apis/coordination.k8s.io/v1/namespaces/default/leases/{world.namespace}")
        renewals.add(lease["spec"]["renewTime"])
        return len(renewals) >= 4
    wait(lambda: renewed() or operator.process.poll() is not None, lambda: f"renewals: {renewals}", 90)
    assert operator.process.poll() is None, operator.text()[-2000:]
    assert "\nquern_operator_leader 1" in metrics(operator)
    assert operator.stop() == 0


def test_health_and_metrics(world, operator):
    wait(lambda: health(operator, "ready") == 200, "ready")
    assert health(operator, "live") == 200
    assert health(operator, "nonsense") == 404
    world.create("a")
    made(world)
    page = wait(lambda: (lambda t: t if re.search(r'endpoint_desired_replicas\{.*endpoint="a".*\} 1', t) else None)(
        metrics(operator)), "the endpoint's series")
    assert re.search(r'quern_operator_reconcile_total\{result="success"\} [1-9]', page)
    assert 'quern_operator_build_info{version="' in page
    assert re.search(r'quern_operator_applies_total\{kind="Deployment",reason="created"\} 1', page)
    world.delete("inferenceendpoints", "a")
    wait(lambda: 'endpoint="a"' not in metrics(operator), "its series to go")


def run(program, *arguments, **environment):
    clean = {k: v for k, v in os.environ.items() if k not in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST")}
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=30, env={**clean, **environment})


def test_without_a_cluster_it_says_what_to_give(program):
    done = run(program, "--serve-image", "x")
    assert done.returncode == 2
    assert "--kubeconfig" in done.stderr


def test_mistakes_end_with_2_and_name_the_option(program):
    for arguments, words in ((["--nonsense"], "nonsense"), (["--serve-image", ""], "--serve-image"),
                             (["--serve-image", "x", "--allowed-model-volume", "/models"], "--allowed-model-volume"),
                             (["--serve-image", "x", "--allowed-image", ""], "--allowed-image"),
                             (["--serve-image", "x", "--allowed-image", "r/a", "--allowed-image", "r/b c"], "'r/b c'"),
                             (["--serve-image", "x", "--scrape-interval", "5"], "--scrape-interval"),
                             (["--serve-image", "x", "--lease-duration", "1s"], "--lease-duration: '1s' must be 5s to 300s"),
                             (["--serve-image", "x", "--kubeconfig", "/nowhere"], "/nowhere"),
                             (["--serve-image", "x", "--log-level", "loud"], "loud")):
        done = run(program, *arguments)
        assert done.returncode == 2, (arguments, done)
        assert words in done.stderr + done.stdout, (arguments, done)


def test_version_and_help(program):
    assert re.fullmatch(r"quern-operator \d+\.\d+\.\d+\n", run(program, "version").stdout)
    text = run(program, "--help")
    assert text.returncode == 0
    for words in ("--kubeconfig", "QUERN_SERVE_IMAGE", "Exit codes", "Examples"):
        assert words in text.stdout


def test_every_option_can_come_from_the_environment(program):
    done = run(program, QUERN_SERVE_IMAGE="x", QUERN_KUBECONFIG="/nowhere/env")
    assert done.returncode == 2
    assert "/nowhere/env" in done.stderr
    done = run(program, QUERN_SERVE_IMAGE="x", QUERN_ALLOWED_IMAGE="registry.example/a,registry.example/b c")
    assert done.returncode == 2
    assert "--allowed-image: 'registry.example/b c'" in done.stderr
