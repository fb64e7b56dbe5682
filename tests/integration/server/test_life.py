"""Start, clients that leave, load, and the end: what an operator relies on."""

import json
import re
import shutil
import signal
import subprocess
import threading
import time

import gguf_layout
import pytest
import quern_serve
import requests
from quern_serve import run_to_end

MODEL = quern_serve.SMOLLM2


def start(*options, model=MODEL, **arguments):
    return quern_serve.Server(quern_serve.model(model), "--threads", "2", "--kv-memory", "256MiB", *options, **arguments)


def stream(server, max_tokens, prompt="Tell me a long story."):
    """An open streamed completion that ends only at max_tokens."""
    body = {"model": server.name, "prompt": prompt, "max_tokens": max_tokens, "stream": True, "ignore_eos": True}
    response = requests.post(server.url + "/v1/completions", json=body, stream=True, timeout=quern_serve.PATIENCE)
    assert response.status_code == 200, response.text
    return response


def events_of(response) -> list[str]:
    return [line[6:] for line in response.iter_lines(decode_unicode=True) if line.startswith("data: ")]


# --- start ---

def bad_models(tmp_path):
    good = open(quern_serve.model(MODEL), "rb")
    head = good.read(2_000_000)
    for name, content in (("empty.gguf", b""), ("magic.gguf", b"GGML" + head[4:]), ("truncated.gguf", head),
                          ("half-header.gguf", head[:10]), ("version.gguf", head[:4] + b"\x09\0\0\0" + head[8:])):
        (tmp_path / name).write_bytes(content)
        yield tmp_path / name
    yield tmp_path / "missing.gguf"
    yield tmp_path


def test_bad_model_is_one_clear_line_and_exit_code_2(tmp_path):
    for path in bad_models(tmp_path):
        result = run_to_end(str(path), "--port", "0", "--admin-port", "0")
        errors = [line for line in result.stderr.splitlines() if " error " in line]
        assert result.returncode == 2, (path, result.stderr)
        assert len(errors) == 1 and str(path) in errors[0], result.stderr


def spoil_architecture(layout):
    return layout.values["general.architecture"], b"mamba"


def spoil_type(layout):
    return layout.tensors[3][1], (99).to_bytes(4, "little")


def spoil_offset(layout):
    return layout.tensors[3][2], (0).to_bytes(8, "little")  # where the first tensor lies


@pytest.mark.parametrize("spoil,says", [
    (spoil_architecture, ["mamba", "llama, gemma3"]),
    (spoil_type, ["99", "at byte"]),
    (spoil_offset, ["overlap", "from byte"]),
], ids=["unsupported architecture", "unknown tensor type", "overlapping tensors"])
def test_model_with_one_wrong_field_is_one_clear_line_and_exit_code_2(tmp_path, spoil, says):
    path = tmp_path / "spoilt.gguf"
    shutil.copyfile(quern_serve.model(MODEL), path)
    layout = gguf_layout.Layout(path)
    where, what = spoil(layout)
    with path.open("r+b") as file:
        file.seek(where)
        file.write(what)
    result = run_to_end(str(path), "--port", "0", "--admin-port", "0")
    errors = [line for line in result.stderr.splitlines() if " error " in line]
    assert result.returncode == 2, result.stderr
    assert len(errors) == 1 and str(path) in errors[0], result.stderr
    assert all(word in errors[0] for word in says), errors[0]


@pytest.mark.parametrize("arguments,says", [
    (["--port", "70000"], "--port: '70000' must be a whole number from 0 to 65535"),
    (["--port", "x"], "--port: 'x' must be a whole number"),
    (["--port"], "--port: its value is missing"),
    (["--port", "1", "--port", "2"], "--port: is given more than once"),
    (["--kv-memory", "lots"], "--kv-memory: 'lots' is not a size; write for example 512MiB"),
    (["--kv-memory", "0"], "--kv-memory: '0' is no useful size; write for example 512MiB, or auto"),
    (["--kv-dtype", "q8"], "use f16, f32, int8 or int4, or auto"),
    (["--drain-timeout", "soon"], "30s"),
    (["--max-sequences", "0"], "--max-sequences: '0' must be a whole number from 1 to 4096"),
    (["--max-batch-tokens", "16"], "--max-sequences (32)"),
    (["--max-decode-slowdown", "1"], "1.1 to 1000"),
    (["--prefix-cache", "yes"], "neither on nor off"),
    (["--threads", "129"], "--threads"),
    (["--metrics-compat", "tgi"], "use none or vllm"),
    (["--no-such-option"], "--no-such-option: there is no such option; see"),
    (["--max-sequence", "8"], "--max-sequence: there is no such option; did you mean --max-sequences?"),
    (["--kv_memory=1GiB"], "--kv_memory: there is no such option; did you mean --kv-memory?"),
    (["--log-level", "loud"], "--log-level: 'loud' must be trace, debug, info, warn or error"),
    (["--log-format", "xml"], "--log-format: 'xml' must be text or json"),
    # What vLLM and llama.cpp call it.
    (["--max-num-seqs", "0"], "--max-num-seqs: there is no such option; use --max-sequences"),
    (["--max-model-len=4096"], "--max-model-len: there is no such option; use --max-context-tokens"),
    (["-c", "4096"], "-c: there is no such option; use --max-context-tokens"),
    (["-c4096"], "-c4096: there is no such option; use --max-context-tokens"),
    (["-cb"], "-cb: there is no such option; see"),
    (["--max_model_len", "4096"], "--max_model_len: there is no such option; use --max-context-tokens"),
    (["-ngl", "99"], "-ngl: there is no such option; use --device cuda"),
    (["-ngl99"], "-ngl99: there is no such option; use --device cuda"),
    (["--n-gpu-layers", "99"], "use --device cuda"),
    (["--device", "gpu"], "--device: 'gpu' is no device: use auto, cpu, cuda, or cuda:1 for a GPU by its number"),
    (["--device", "cuda:x"], "'cuda:x' is no device"),
    (["--activations", "fp8"], "'fp8' is no type of activations: use f16 or bf16"),
    (["--dtype", "half"], "--dtype: there is no such option; use --activations"),
    (["-tp", "2"], "use --tensor-parallel-size"),
    (["-fa", "on"], "-fa: there is no such option; there is one way to compute attention"),
    (["--flash-attn"], "there is one way to compute attention"),
    (["--jinja"], "--jinja: there is no such option; chat templates are always Jinja's: leave it out"),
    (["--chat-template-file", "t.jinja"], "--chat-template-file: there is no such option; use --chat-template, which names a file"),
    (["--trust-remote-code"], "no code comes with a model: leave it out"),
    (["--enable-auto-tool-choice"], "requests may have tools without an option: leave it out"),
    (["--tool_call_parser=hermes"], "requests may have tools without an option: leave it out"),
    (["--reasoning-parser", "qwen3"], "reasoning is part of an answer's text here: leave it out"),
    (["-hf", "foo/bar"], "-hf: there is no such option; models are not downloaded here"),
    (["-hx"], "-hx: there is no such option; see"),
    (["second.gguf"], "'model.gguf' is taken for the model; no word goes before that: quern-serve second.gguf"),
])
def test_bad_option_is_one_clear_line_and_exit_code_2(arguments, says):
    result = run_to_end("model.gguf", *arguments)
    assert result.returncode == 2
    assert says in result.stderr and len(result.stderr.strip().splitlines()) == 1, result.stderr


@pytest.mark.parametrize("arguments,says", [
    (["serve", "model.gguf"], "'serve' is taken for the model; no word goes before that: quern-serve model.gguf"),
    (["serve", "model.gguf", "--port", "8000"], "quern-serve model.gguf"),
    (["-m", "model.gguf"], "-m: there is no such option; name the model without an option: quern-serve MODEL.gguf"),
    (["-hf", "foo/bar"], "-hf: there is no such option; models are not downloaded here: name a file"),
    (["--model", "model.gguf"], "--model: there is no such option; name the model without an option"),
    ([], "MODEL is missing, and so is QUERN_MODEL"),
])
def test_what_another_servers_user_types_gets_the_right_form(arguments, says):
    result = run_to_end(*arguments)
    assert result.returncode == 2
    assert says in result.stderr and len(result.stderr.strip().splitlines()) == 1, result.stderr


def test_a_second_model_is_one_argument_too_many():
    result = run_to_end(quern_serve.model(MODEL), "second.gguf")
    assert result.returncode == 2 and "'second.gguf' is one argument too many" in result.stderr, result.stderr


def test_a_models_name_elsewhere_is_no_file_here():
    result = run_to_end("HuggingFaceTB/SmolLM2-135M-Instruct", "--port", "0", "--admin-port", "0")
    assert result.returncode == 2 and "models are not downloaded here" in result.stderr, result.stderr


def test_kv_memory_for_hardly_any_request_is_refused_with_what_is_enough():
    path, ports = quern_serve.model(MODEL), ("--port", "0", "--admin-port", "0")
    result = run_to_end(path, *ports, "--kv-memory", "1MiB")
    assert result.returncode == 2, result.stderr
    enough = re.search(r"a KV cache of 1MiB holds \d+ tokens, .* give --kv-memory (\w+) or more", result.stderr).group(1)
    with quern_serve.Server(path, "--kv-memory", enough) as server:
        assert server.get("/v1/models").json()["data"][0]["max_model_len"] >= 512
    # So short a context may be what is wanted, and that is said.
    meant = re.search(r"say (--max-context-tokens) (\d+)", result.stderr).groups()
    with quern_serve.Server(path, "--kv-memory", "1MiB", *meant) as server:
        assert server.get("/v1/models").json()["data"][0]["max_model_len"] == int(meant[1])
    result = run_to_end(path, *ports, "--kv-memory", "1MiB", "--max-context-tokens", "2048")
    assert result.returncode == 2 and "or --max-context-tokens" in result.stderr, result.stderr
    result = run_to_end(path, *ports, "--max-context-tokens", "9000")
    assert result.returncode == 2 and "--max-context-tokens is 9000, and the model's context has 8192" in result.stderr


def test_more_sequences_than_the_default_step_has_tokens_is_fine():
    with start("--max-sequences", "600") as server:
        assert requests.get(server.url + "/health/ready", timeout=quern_serve.PATIENCE).status_code == 200


def test_name_of_the_model_is_its_files_without_gguf_and_nothing_else(tmp_path):
    path = tmp_path / "Llama-3.2-1B"
    path.symlink_to(quern_serve.model(MODEL))
    with quern_serve.Server(str(path), "--kv-memory", "64MiB", "--max-context-tokens", "1024") as server:
        assert server.get("/v1/models").json()["data"][0]["id"] == "Llama-3.2-1B"


def test_host_that_is_not_here_is_refused():
    result = run_to_end(quern_serve.model(MODEL), "--host", "256.0.0.1")
    assert result.returncode == 2 and "256.0.0.1" in result.stderr


def test_options_come_from_the_environment_too(monkeypatch):
    result = subprocess.run([quern_serve.binary(), "m.gguf"], env={"QUERN_KV_MEMORY": "lots"}, capture_output=True,
                            text=True, timeout=60)
    assert result.returncode == 2 and "QUERN_KV_MEMORY: 'lots' is not a size" in result.stderr
    result = subprocess.run([quern_serve.binary(), "m.gguf", "--port", "x"], env={"QUERN_PORT": "1"}, capture_output=True,
                            text=True, timeout=60)
    assert result.returncode == 2 and "--port: 'x' must be" in result.stderr


# --- clients that leave ---

def test_client_that_leaves_mid_stream_is_cancelled_within_one_step():
    with start() as server:
        response = stream(server, 2000)
        lines = response.iter_lines()
        while b"text" not in next(lines):
            pass
        response.close()
        # The server hears of the close before it hears of this question, and a step of this batch is one token: however
        # slow the machine, no more than the step that was under way and the one that was about to begin can come after it.
        at_close = server.metric("quern_generation_tokens_total")
        quern_serve.wait_for(lambda: server.metric("quern_requests_finished_total", reason="cancelled") == 1, "the cancellation")
        quern_serve.wait_for(lambda: server.metric("quern_requests_running") == 0, "an empty batch")
        tokens = server.metric("quern_generation_tokens_total")
        assert tokens - at_close <= 2
        assert server.metric("quern_kv_cache_usage_ratio") == 0
        # Idle: no step is made for a client that is not there.
        steps = server.metric("quern_step_duration_seconds_count")
        assert server.post("/tokenize", {"prompt": "a"}).status_code == 200
        assert server.metric("quern_step_duration_seconds_count") == steps
        assert server.metric("quern_generation_tokens_total") == tokens


def test_full_queue_is_429_and_ends_with_the_load():
    with start("--max-sequences", "1", "--max-waiting", "1", "--max-batch-tokens", "64") as server:
        first, second = stream(server, 300), stream(server, 5)
        refused = server.post("/v1/completions", {"model": server.name, "prompt": "a"})
        assert refused.status_code == 429 and refused.headers["Retry-After"] == "1"
        assert refused.json()["error"]["code"] == "queue_full"
        assert server.metric("quern_requests_rejected_total", reason="queue_full") == 1
        assert events_of(first)[-1] == events_of(second)[-1] == "[DONE]"
        assert server.post("/v1/completions", {"model": server.name, "prompt": "a", "max_tokens": 1}).status_code == 200


def test_files_and_memory_stay_flat_over_many_requests():
    with start() as server:
        def burst(count):
            def work(i):
                for n in range(count):
                    if n % 10 == 9:  # a client that leaves
                        stream(server, 200).close()
                    else:
                        body = {"model": server.name, "prompt": f"Say {i} {n}", "max_tokens": 2, "stream": n % 2 == 0}
                        assert server.post("/v1/completions", body).status_code == 200
            threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            quern_serve.wait_for(lambda: server.metric("quern_requests_running") == 0, "an idle engine")

        burst(20)
        files, memory = server.open_files(), server.resident_bytes()
        burst(60)
        # Closed connections leave the table a moment after the clients have gone.
        quern_serve.wait_for(lambda: server.open_files() <= files + 2, "closed file descriptors")
        assert server.resident_bytes() < memory + 16 * 2**20


def test_idle_it_takes_less_than_a_hundredth_of_a_core():
    with start(model=quern_serve.GEMMA) as server, requests.Session() as kept_alive:
        body = {"model": server.name, "prompt": "The sea is", "max_tokens": 16, "ignore_eos": True}
        assert kept_alive.post(server.url + "/v1/completions", json=body, timeout=quern_serve.PATIENCE).status_code == 200
        quern_serve.wait_for(lambda: server.metric("quern_requests_running") == 0, "an idle engine")
        before, begin = server.cpu_seconds(), time.monotonic()
        time.sleep(5)
        used, passed = server.cpu_seconds() - before, time.monotonic() - begin
        print(f"{used:.2f} s of the processors in {passed:.1f} s")
        assert used < 0.01 * passed


# --- the end ---

def test_sigterm_lets_32_streams_finish_and_exits_0():
    with start("--drain-timeout", "120s") as server:
        responses = [stream(server, 40, f"Story {i}:") for i in range(32)]
        server.signal()
        quern_serve.wait_for(lambda: server.get("/health/ready").status_code == 503, "not ready")
        assert server.get("/health/ready", admin=True).json()["status"] == "draining"
        refused = server.post("/v1/completions", {"model": server.name, "prompt": "a"})
        assert refused.status_code == 503 and refused.json()["error"]["code"] == "draining"
        for response in responses:
            events = events_of(response)
            assert events[-1] == "[DONE]"
            assert json.loads(events[-2])["choices"][0]["finish_reason"] == "length"
        assert server.wait() == 0, server.log


def test_sigterm_when_idle_exits_0_with_connections_open():
    with start() as server:
        with requests.Session() as kept_alive:
            assert kept_alive.get(server.url + "/v1/models").status_code == 200
            server.signal()
            assert server.wait(30) == 0, server.log


def test_drain_timeout_cuts_what_takes_longer_and_says_so():
    with start("--drain-timeout", "500ms") as server:
        response = stream(server, 2000)
        server.signal()
        events = events_of(response)
        assert json.loads(events[-2])["error"]["code"] == "draining"
        assert server.wait() == 1
        assert any("drain timeout" in line for line in server.log)


def test_second_signal_exits_at_once():
    with start("--drain-timeout", "120s") as server:
        running = stream(server, 2000)  # held: a client that has gone would leave nothing to drain
        server.signal()
        quern_serve.wait_for(lambda: any("draining" in line for line in server.log), "the first signal's line")
        server.signal(signal.SIGINT)
        assert server.wait(20) == 1
        running.close()


# --- sleep ---

# Of the 92 and 236 MiB of weights, and what was touched of 256 MiB of KV cache.
@pytest.mark.parametrize(("model", "given_back"), [(MODEL, 80 * 2**20), (quern_serve.GEMMA, 210 * 2**20)])
def test_asleep_the_memory_is_given_back_and_the_answer_after_it_is_the_same(model, given_back):
    body = {"prompt": "The sea is", "max_tokens": 12, "temperature": 0}
    with start("--sleep-mode", "on", model=model) as server:
        ask = lambda: server.post("/v1/completions", {"model": server.name, **body})  # noqa: E731
        before = ask().json()["choices"][0]["text"]
        awake = server.resident_bytes()
        slept = server.post("/sleep", {}, admin=True)
        assert slept.status_code == 200 and slept.json() == {"status": "sleeping"}, slept.text
        asleep = server.resident_bytes()
        assert asleep < awake - given_back, (awake, asleep)
        assert ask().json()["error"]["code"] == "model_sleeping"
        assert server.metric("quern_engine_sleeping") == 1
        assert server.post("/wake_up", {}, admin=True).json() == {"status": "awake"}
        assert ask().json()["choices"][0]["text"] == before
        assert server.metric("quern_engine_sleeping") == 0
        assert server.resident_bytes() > asleep + given_back, (awake, asleep, server.resident_bytes())


def test_without_sleep_mode_nobody_can_put_it_to_sleep():
    with start() as server:
        assert server.post("/sleep", {}, admin=True).status_code == 404
        assert server.get("/health/ready", admin=True).status_code == 200
