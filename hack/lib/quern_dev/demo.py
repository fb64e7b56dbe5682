"""What hack/demo does once everything is installed."""

import contextlib
import re
import shutil
import signal
import time
from pathlib import Path

import openai
import yaml

from . import console, golang, kubectl, paths, stack
from .cluster.layout import listen_on
from .cluster.lifecycle import Cluster
from .kubectl import Kubectl
from .load import Load

_NAMESPACE = "default"
_READY_SECONDS = 300
_SCALE_SECONDS = 180
_MARK = "hack-demo"  # what the demo installed is known by it
_EXAMPLE = paths.REPO / "examples" / "smollm2.yaml"


def run(args) -> int:
    """The demo. Ctrl-C at any moment leaves what runs running, and says so."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    start = time.monotonic()
    try:
        if args.context:
            _on_their_cluster(args)
        else:
            _on_our_cluster(args)
    except KeyboardInterrupt:
        console.say("\ninterrupted. What was started still runs; hack/demo goes on from here, and to stop it:\n"
                    f"  {_down_command(args)}")
        return 130
    console.say(f"\ndone in {time.monotonic() - start:.0f} s")
    return 0


def _down_command(args) -> str:
    context = f" --context {args.context}" if args.context else ""
    example = f" --example {args.example}" if args.example.resolve() != _EXAMPLE.resolve() else ""
    return f"hack/demo --down{context}{example}"


def down(args) -> int:
    """Deletes the endpoint, uninstalls the chart and stops the local cluster (its data is kept)."""
    cluster = Cluster()
    if not args.context and cluster.namespaces() is None:
        console.say("the cluster is down already")
        return 0
    kube = Kubectl(None, args.context, _their_kubectl()) if args.context else stack.local_kubectl(cluster)
    try:
        _remove(kube, args.example)
    except console.Failure as error:
        if args.context:
            raise  # without the operator nobody would end what is left of the endpoint
        console.say(f"    {error}\n    The cluster is stopped all the same; to have its data removed too: hack/cluster down --wipe")
    if not args.context:
        cluster.down()
    return 0


def _remove(kube: Kubectl, example: Path) -> None:
    """Deletes the endpoint, then uninstalls the chart if the demo installed it."""
    with console.stage("delete the endpoint"):
        kube.run("-n", _NAMESPACE, "delete", "--ignore-not-found", "-f", example, "--timeout=60s", timeout=90)
    if stack.has_release(kube, mark=_MARK):
        left = [f"{one['metadata']['namespace']}/{one['metadata']['name']}" for one in kube.list("inferenceendpoints", None)]
        if left:
            raise console.Failure(f"the operator stays, because it still has these endpoints to look after: {', '.join(left)}. "
                                  "Without it they could not be deleted any more. Delete them first (kubectl delete ie NAME, or "
                                  "hack/demo --down --example FILE)")
        with console.stage("uninstall the chart"):
            stack.uninstall_chart(kube)
    elif stack.has_release(kube):
        console.say(f"  the Helm release {stack.RELEASE} stays: it was not installed by hack/demo")


# ---- where it runs -----------------------------------------------------------------------------


def _on_our_cluster(args) -> None:
    cluster = Cluster()
    programs = stack.build_programs()
    cluster.up()
    images = stack.make_images(cluster, programs)
    kube = stack.local_kubectl(cluster)
    with console.stage("install the Helm chart", detail=lambda: _operator_state(kube)):
        stack.install_chart(kube, {**stack.local_values(), **images}, mark=_MARK)
    name = _apply_and_wait(kube, args.example)
    url = _keep_forward(cluster, name, args.port)
    _ask_and_load(kube, name, url, args)
    prometheus = f"http://127.0.0.1:{cluster.layout.port('prometheus')}"
    console.say(f"""
It is still running:
  API           {url}   (OpenAI's; model "{_served_name(url)}")
  metrics       {prometheus}
  dashboard     charts/quern/dashboards/quern-endpoints.json, for your Grafana

  export KUBECONFIG={cluster.layout.kubeconfig}
  export PATH=$PATH:{paths.cache_dir() / 'bin'}
  kubectl get ie -w

Stop it:
  {_down_command(args)}""")


def _on_their_cluster(args) -> None:
    kube = Kubectl(None, args.context, _their_kubectl())
    values = yaml.safe_load(args.values.read_text()) or {} if args.values else {}
    values["image"] = {**(values.get("image") or {}), **_their_images(kube, args)}
    if stack.has_release(kube) and not stack.has_release(kube, mark=_MARK):
        raise console.Failure(f"{args.context} has a Helm release {stack.RELEASE} in namespace {stack.NAMESPACE} that hack/demo "
                              "did not install; it is left alone. Try Quern there with: kubectl apply -f "
                              f"{args.example}, or uninstall the release first")
    with console.stage(f"install the Helm chart in {args.context}", detail=lambda: _operator_state(kube)):
        stack.install_chart(kube, values, mark=_MARK)
    name = _apply_and_wait(kube, args.example)
    with _port_forward(kube, name, args.port) as url:
        _ask_and_load(kube, name, url, args)
    console.say(f"""
It is still running. To reach it:
  kubectl --context {args.context} port-forward service/{name} {args.port or 18000}:80

Stop it:
  {_down_command(args)}""")


def _their_images(kube: Kubectl, args) -> dict:
    """The chart's values for the two images: those that were named, or else ours, which every node must hold."""
    named = {"operator": args.operator_image, "serve": args.serve_image}
    if any(named.values()):
        return {name: stack.image_values(reference) for name, reference in named.items() if reference}
    built = stack.build_images(stack.build_programs())
    lacking = {}
    for node in kube.list("nodes", None):
        held = {name for image in node["status"].get("images", []) for name in image.get("names", [])}
        for image in built.values():
            if image.reference not in held:
                lacking.setdefault(image.archive, []).append(node["metadata"]["name"])
    if not lacking:
        return {name: stack.image_values(image.reference) for name, image in built.items()}
    archives = " ".join(str(archive) for archive in lacking)
    nodes = ", ".join(sorted({node for names in lacking.values() for node in names}))
    operator, serve = built["operator"].reference, built["serve"].reference
    raise console.Failure(f"""the nodes of {args.context} do not have Quern's images yet ({nodes}). They are built; load them, for example with
  kind:       for f in {archives}; do kind load image-archive $f; done
  minikube:   for f in {archives}; do minikube image load $f; done
  k3s:        for f in {archives}; do k3s ctr images import $f; done
and run this again; or push them to a registry and give --operator-image and --serve-image. A node names no more than 50 of its
images, so where it holds more, say that they are there: --operator-image {operator} --serve-image {serve}""")


def _their_kubectl() -> Path | str:
    """Ours where hack/setup has built it, else the one on PATH."""
    if golang.is_built("kubernetes"):
        return golang.program("kubernetes", "kubectl")
    if not shutil.which("kubectl"):
        raise console.Failure("kubectl was not found: install it, or run hack/setup --part kubernetes")
    return "kubectl"


def _operator_state(kube: Kubectl) -> str:
    with contextlib.suppress(kubectl.CommandError):
        pods = kube.list("pods", stack.NAMESPACE, "app.kubernetes.io/name=quern-operator")
        return ", ".join(f"{pod['metadata']['name']} {_pod_state(pod)}" for pod in pods)
    return ""


def _pod_state(pod: dict) -> str:
    for status in pod["status"].get("containerStatuses", []):
        for state in status.get("state", {}).values():
            if state.get("reason"):
                return state["reason"]
    return pod["status"].get("phase", "")


# ---- the endpoint ------------------------------------------------------------------------------


def _apply_and_wait(kube: Kubectl, example: Path) -> str:
    """Applies the manifest and returns the endpoint's name once it is Ready."""
    name = yaml.safe_load(example.read_text())["metadata"]["name"]
    shown = example.relative_to(paths.REPO) if example.is_relative_to(paths.REPO) else example
    console.say(f"  $ kubectl apply -f {shown}")
    kube.run("-n", _NAMESPACE, "apply", "-f", example)

    def said() -> str:
        ready = kubectl.condition(kube.get("inferenceendpoint", name, _NAMESPACE), "Ready")
        return f"{ready.get('reason', 'not seen yet')}: {ready.get('message', '')}"[:120]

    with console.stage(f"wait until {name} is Ready", detail=said):
        kubectl.wait(lambda: kubectl.is_ready(kube.get("inferenceendpoint", name, _NAMESPACE)), _READY_SECONDS,
                     lambda: f"{name} to become Ready. It says: {said()}\n  More: kubectl describe ie {name}")
    return name


def _keep_forward(cluster: Cluster, name: str, port: int) -> str:
    """A loopback port that leads to the endpoint's Service for as long as the cluster is up."""
    target = f"{name}.{_NAMESPACE}.svc.cluster.local.:80"
    record = f"forward-{port}"
    if cluster.registry.pid(record) and (cluster.registry.read(record) or {}).get("target") == target:
        return f"http://127.0.0.1:{port}/v1"
    cluster.registry.stop([record], 5)
    with contextlib.suppress(OSError):
        listen_on(port).close()
        return f"http://127.0.0.1:{cluster.forward(target, port)[1]}/v1"
    return f"http://127.0.0.1:{cluster.forward(target, 0)[1]}/v1"  # somebody else has the port: take a free one


@contextlib.contextmanager
def _port_forward(kube: Kubectl, name: str, port: int):
    """kubectl port-forward, for a cluster that is reached through its API server only."""
    process = kube.start("-n", _NAMESPACE, "port-forward", f"service/{name}", f"{port}:80")
    try:
        line = process.stdout.readline()
        found = re.search(r"Forwarding from 127\.0\.0\.1:(\d+)", line)
        if not found:
            raise console.Failure(f"kubectl port-forward did not start: {line}{process.stdout.read()}")
        yield f"http://127.0.0.1:{found[1]}/v1"
    finally:
        process.terminate()
        process.wait(timeout=10)


def _ask_and_load(kube: Kubectl, name: str, url: str, args) -> None:
    _ask(name, url, args.question)
    if not args.no_load:
        _load_until_scaled(kube, name, url, args.clients)


def _ask(name: str, url: str, question: str) -> None:
    model = _served_name(url)
    console.say(f"\n  you:   {question}")
    print(f"  {name}: ", end="", flush=True)
    start, first, usage = time.monotonic(), None, None
    try:
        with openai.OpenAI(base_url=url, api_key="none", timeout=120) as client:
            for chunk in _answer(client, model, question):
                choice = chunk.choices[0] if chunk.choices else None
                text = choice and (choice.text if hasattr(choice, "text") else choice.delta.content)
                if text:
                    first = first or time.monotonic() - start
                    print(text.replace("\n", "\n         "), end="", flush=True)
                usage = chunk.usage or usage
    except openai.OpenAIError as error:
        raise console.Failure(f"{name} did not answer at {url}: {error}") from error
    seconds = time.monotonic() - start
    console.say(f"\n         ({usage.completion_tokens} tokens in {seconds:.1f} s, the first after {first or 0:.2f} s)\n")


def _answer(client: openai.OpenAI, model: str, question: str):
    """The answer as a stream; of a base model, which has no chat template, the question's continuation."""
    common = {"model": model, "max_tokens": 96, "temperature": 0.7, "seed": 1, "stream": True,
              "stream_options": {"include_usage": True}}
    try:
        return client.chat.completions.create(messages=[{"role": "user", "content": question}], **common)
    except openai.BadRequestError as error:
        if error.code != "no_chat_template":
            raise
        return client.completions.create(prompt=question, **common)


def _served_name(url: str) -> str:
    try:
        # Ready is what the kubelet says of the pods; the nodes hear a moment later where the Service leads.
        with console.stage(f"ask {url} what it serves", quiet_below=2), \
                openai.OpenAI(base_url=url, api_key="none", timeout=10, max_retries=6) as client:
            return client.models.list().data[0].id
    except openai.OpenAIError as error:
        raise console.Failure(f"{url}/models did not answer: {error}") from error


def _load_until_scaled(kube: Kubectl, name: str, url: str, clients: int) -> None:
    def status() -> dict:
        return (kube.get("inferenceendpoint", name, _NAMESPACE) or {}).get("status") or {}

    before = status().get("replicas", 0)
    scaling = kube.get("inferenceendpoint", name, _NAMESPACE)["spec"].get("scaling", {})
    maximum = scaling.get("maxReplicas", 1)
    if maximum <= 1:
        console.say(f"  {name} may have one replica only (spec.scaling.maxReplicas): no load is put on it")
        return
    at_top = before >= maximum
    with Load(url, _served_name(url), clients=clients, limit_seconds=_SCALE_SECONDS + 60) as load:
        def figures() -> str:
            now = status()
            return (f"{load.totals.requests} answers, {load.totals.output_tokens} tokens; replicas decided "
                    f"{now.get('desiredReplicas', '?')}, ready {now.get('readyReplicas', '?')}")

        if at_top:
            console.say(f"  {name} has its maximum of {maximum} replicas already; it gives them back when it is idle")
        else:
            with console.stage(f"{clients} clients ask at once, until it scales up", detail=figures):
                kubectl.wait(lambda: status().get("replicas", 0) > before, _SCALE_SECONDS, lambda: (
                    f"{name} to scale up under load: {figures()}. Its last decision: {_decision(status())} "
                    f"Errors of the load: {load.totals.errors} {load.totals.last_error}"))
        with console.stage("wait until the new replicas serve", detail=figures):
            kubectl.wait(lambda: status().get("readyReplicas", 0) >= 2 and (at_top or load.totals.requests),
                         _READY_SECONDS, lambda: f"a second replica to serve: {figures()}")
    _show_decision(name, status(), load)


def _decision(status: dict) -> str:
    return (status.get("scaling") or {}).get("lastDecision", {}).get("message", "none yet")


def _show_decision(name: str, status: dict, load: Load) -> None:
    scaling = status.get("scaling") or {}
    console.say(f"\n  Why? kubectl get ie {name} -o jsonpath='{{.status.scaling}}'")
    for step in list(scaling.get("history", []))[:3]:
        console.say(f"    {step['time']}  {step['from']} → {step['to']} replicas  [{step['rule']}]  {step['message']}")
    inputs = scaling.get("lastDecision", {}).get("inputs", {})
    if inputs:
        console.say("    its inputs at the last decision: " + ", ".join(f"{key} {value}" for key, value in inputs.items()))
    if len(load.totals.first_token_seconds) >= 5:  # of fewer, a median says little
        ordered = sorted(load.totals.first_token_seconds)
        console.say(f"    the load: {load.totals.requests} answers, {load.totals.output_tokens} tokens, median time to the "
                    f"first token {ordered[len(ordered) // 2]:.2f} s")
