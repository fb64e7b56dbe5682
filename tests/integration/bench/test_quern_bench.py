"""quern-bench: against the real quern-serve, and against a server whose every answer is decided here."""

import json
import os
import re
import signal
import ssl
import subprocess
import threading
import time
import xml.etree.ElementTree
from pathlib import Path

import pytest
import quern_serve
from scripted_api import ScriptedApi

PROGRAM = str(Path(quern_serve.binary()).with_name("quern-bench"))


def start(*arguments, **environment):
    kept = {k: v for k, v in os.environ.items() if k != "OPENAI_API_KEY"}
    return subprocess.Popen([PROGRAM, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=kept | environment)


def bench(*arguments, code=0, **environment):
    process = start(*arguments, **environment)
    out, err = process.communicate(timeout=quern_serve.PATIENCE)
    assert process.returncode == code, (process.returncode, out, err)
    return subprocess.CompletedProcess(process.args, code, out, err)


def report(url, *arguments, code=0, **environment):
    return json.loads(bench(url, *arguments, "--json", "-", code=code, **environment).stdout)


# ---- the real server ----

def test_a_closed_loop_counts_what_the_server_counts(smollm2, tmp_path):
    generated = smollm2.metric("quern_generation_tokens_total")
    prompted = smollm2.metric("quern_prompt_tokens_total")
    path, plot = tmp_path / "run.json", tmp_path / "run.svg"
    done = bench(smollm2.url + "/v1", "--concurrency", 3, "--requests", 7, "--prompt-tokens", 40, "--output-tokens", 12,
                 "--warmup", 0, "--slo", "ttft=1h", "--precision", "Q4_1", "--json", path, "--plot", plot)
    run = json.loads(path.read_text())
    summary = run["summary"]
    assert (summary["done"], summary["failed"], summary["output_tokens"]) == (7, 0, 7 * 12)
    assert smollm2.metric("quern_generation_tokens_total") - generated == summary["output_tokens"]
    # Words were learnt by /tokenize, so that the prompts were the only ones, of exactly the length asked for.
    assert run["server"]["prompts_measured_by"] == "/tokenize" and run["load"]["exact_prompts"]
    assert summary["prompt_tokens"] == 7 * 40
    computed = smollm2.metric("quern_prompt_tokens_total") - prompted
    assert computed in (summary["prompt_tokens"], summary["prompt_tokens"] - summary["cached_tokens"])
    assert run["model"] == smollm2.name and run["server"]["system_fingerprint"].startswith("quern-")
    assert run["precision"] == "Q4_1" and run["client"]["cpu"] and run["client"]["processors"] >= 1
    assert len(run["requests"]) == 7
    for request in run["requests"]:
        assert 0 <= request["scheduled"] <= request["first_text"] <= request["last_text"] <= request["end"]
        assert sum(request["gaps"]) == pytest.approx(request["last_text"] - request["first_text"], abs=1e-3)
    # Never more than three at once.
    for request in run["requests"]:
        assert sum(other["sent"] <= request["sent"] < other["end"] for other in run["requests"]) <= 3
    assert summary["goodput"]["met"] == 7
    assert summary["output_tokens_per_second"] == pytest.approx(7 * 12 / summary["seconds"])
    assert "7 requests done" in done.stdout and "precision Q4_1" in done.stdout
    assert xml.etree.ElementTree.parse(plot).getroot().tag.endswith("svg")


def test_chats_have_the_length_asked_for_and_a_shared_prefix_is_found_by_the_server(smollm2):
    run = report(smollm2.url + "/v1", "--endpoint", "chat", "--requests", 3, "--prompt-tokens", 120, "--output-tokens", 2,
                 "--shared-prefix", 100)
    assert run["summary"]["prompt_tokens"] == 3 * 120
    # Full blocks of 16; of the 100 tokens some are what the template puts behind a message.
    assert run["summary"]["cached_tokens"] >= 2 * 80


def test_another_run_does_not_find_its_prompts_in_the_prefix_cache(smollm2):
    same = ["--requests", 2, "--prompt-tokens", 64, "--output-tokens", 1, "--warmup", 0]
    runs = [report(smollm2.url + "/v1", *same)["summary"] for _ in range(2)]
    assert [run["cached_tokens"] for run in runs] == [0, 0]
    seeded = [report(smollm2.url + "/v1", *same, "--prompt-seed", 77)["summary"] for _ in range(2)]
    assert seeded[1]["cached_tokens"] > 0


def refused(url, *options):
    """The one line that a run ends with at once, when the server refuses its requests."""
    done = bench(url, "--requests", 1000, *options, code=2)
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize("options", [[], ["--warmup", 0], ["--max-error-rate", 1], ["--endpoint", "chat"]])
def test_a_wrong_model_ends_the_run_at_once_with_the_servers_message(smollm2, options):
    said = refused(smollm2.url + "/v1", "--model", "nope", "--concurrency", 4, *options)
    assert "status 404: the model 'nope' does not exist here; this server has '" + smollm2.name in said


@pytest.mark.parametrize("options", [["--prompt-tokens", 9000], ["--warmup", 0, "--output-tokens", "2-9000"]])
def test_prompts_beyond_the_context_end_the_run_at_once_with_the_servers_message(smollm2, options):
    refusals = lambda: smollm2.metric("quern_requests_rejected_total", reason="context_length")  # noqa: E731
    before = refusals()
    said = refused(smollm2.url + "/v1", "--concurrency", 4, *options)
    limit = smollm2.get("/v1/models").json()["data"][0]["max_model_len"]
    assert "refuses these requests with status 400: the" in said and str(limit) in said
    assert refusals() == before + 1


def test_the_server_says_its_precision_its_hardware_and_what_processor_time_it_took(smollm2):
    took = smollm2.metric("quern_process_cpu_seconds_total")
    card = smollm2.get("/v1/models").json()["data"][0]["meta"]
    done = bench(smollm2.url + "/v1", "--requests", 4, "--prompt-tokens", 40, "--output-tokens", 8, "--metrics-url", smollm2.admin)
    took = smollm2.metric("quern_process_cpu_seconds_total") - took
    assert "precision Q4_1 (with Q8_0, F32), KV f16\n" in done.stdout
    assert re.search(r"^server: 134\.5 M parameters, context \d+, hardware .+; .+, 2 threads$", done.stdout, re.M), done.stdout
    seconds = re.search(r"^server: ([\d.]+) s of processor time \(quern_process_cpu_seconds_total\)$", done.stdout, re.M)
    assert 0 < float(seconds.group(1)) <= took + 0.01
    run = report(smollm2.url + "/v1", "--requests", 1, "--precision", "mine", "--hardware", "a box")
    assert (run["precision"], run["precision_told_by"], run["hardware"], run["hardware_told_by"]) == ("mine", "user", "a box", "user")
    told = run["server"]
    assert (told["quantization"], told["kv_cache_dtype"], told["size_by_type"], told["parameters"]) == \
        (card["quantization"], card["kv_cache_dtype"], card["size_by_type"], card["n_params"])
    assert run["summary"]["server_cpu_seconds"] is None, "where the metrics are is not known"


# ---- a server that is decided here ----

def test_processor_time_is_told_only_where_it_is_known(api):
    ask = [api.url, "--requests", 2, "--warmup", 0, "--metrics-url", api.url.replace("/v1", "/metrics")]
    samples = [f"# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total {value}\n" for value in (1, 3, 7.5, 2)]
    api.metrics = samples[:3]
    summary = report(*ask, OPENAI_API_KEY="sk-secret")["summary"]
    assert (summary["server_cpu_seconds"], summary["server_cpu_metric"]) == (4.5, "process_cpu_seconds_total")
    assert api.metrics_asked_with == [None] * 3, "the key is the API's"
    api.metrics = samples[1:]
    done = bench(*ask)
    assert "began anew" in done.stderr and "server: processor time not told" in done.stdout
    api.metrics = ["up 1\n"] * 3
    assert "tells no processor time" in bench(*ask).stderr
    api.metrics = samples[:2]
    assert "/metrics answered with status 404: the server's processor time is not known" in bench(*ask).stderr
    assert "/metrics answered with status 404" in bench(*ask, code=2).stderr  # before anything is sent
    assert "cannot reach http://127.0.0.1:1/metrics" in bench(api.url, "--metrics-url", "http://127.0.0.1:1", code=2).stderr



def test_an_unreachable_server_is_one_clear_line_and_exit_code_2():
    done = bench("http://127.0.0.1:1/v1", "--requests", 1, code=2)
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert "cannot reach http://127.0.0.1:1/v1" in done.stderr and "refused" in done.stderr


@pytest.mark.parametrize(("options", "says"), [
    ([], "URL is missing: Base URL"),
    (["http://127.0.0.1:1", "--concurrency", "0"], "--concurrency: '0' must be a whole number from 1 to 4096"),
    (["http://127.0.0.1:1", "--request", "5"], "--request: there is no such option; did you mean --requests?"),
    (["http://127.0.0.1:1", "--endpoint", "x"], "--endpoint: 'x' must be completions or chat"),
    (["127.0.0.1:8000"], "write for example http://127.0.0.1:8000/v1"),
    (["http://127.0.0.1:1", "--rate", "4"], "--requests or --duration"),
    (["http://127.0.0.1:1", "--rate", "4", "--concurrency", "2", "--requests", "1"], "not both"),
    (["http://127.0.0.1:1", "--slo", "ttft=fast"], "is not a duration"),
    (["http://127.0.0.1:1", "--slo", "speed=1s"], "ttft=500ms"),
    (["http://127.0.0.1:1", "--prompt-tokens", "9-3"], "is no length"),
    (["http://127.0.0.1:1", "--speedup", "2"], "it needs --trace"),
    (["http://127.0.0.1:1", "--trace", "none.csv"], "cannot read the trace none.csv"),
    (["http://127.0.0.1:1", "--api-key-file", "none"], "cannot read none"),
    (["http://127.0.0.1:1", "--json", "none/run.json"], "cannot write none/run.json"),
])
def test_a_wrong_option_is_one_clear_line_and_exit_code_2(options, says):
    done = bench(*options, code=2)
    assert says in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_requests_ask_for_what_the_options_say(api):
    report(api.url, "--requests", 4, "--prompt-tokens", "30-50", "--output-tokens", 3, "--warmup", 1)
    bodies = api.streamed()
    assert len(bodies) == 5  # with the warm-up
    assert len({body["prompt"] for body in bodies}) == 5
    for body in bodies:
        assert (body["model"], body["max_tokens"], body["ignore_eos"]) == ("scripted", 3, True)
        assert body["stream_options"] == {"include_usage": True}
        assert 30 <= len(body["prompt"].split()) + 1 <= 50  # as its usage counted words
    report(api.url, "--requests", 1, "--warmup", 0, "--no-ignore-eos", "--endpoint", "chat", "--model", "other")
    last = api.streamed()[-1]
    assert "ignore_eos" not in last and last["model"] == "other" and last["messages"][0]["role"] == "user"


def test_events_with_several_tokens_count_by_usage(api):
    api.answer = lambda handler, body: handler.send_answer(
        ["two tokens"] * 4, {"prompt_tokens": 9, "completion_tokens": 8, "prompt_tokens_details": {"cached_tokens": 4}})
    summary = report(api.url, "--requests", 3, "--prompt-tokens", 9, "--output-tokens", 8)["summary"]
    assert (summary["output_tokens"], summary["cached_tokens"]) == (24, 12)
    assert summary["tokens_per_event"] == 2 and summary["itl_seconds"]["count"] == 3 * 7
    assert summary["ended_early"] == 0


def test_errors_are_counted_by_their_kind(api):
    def answer(handler, body):
        number = len(api.streamed())
        if number == 1:
            handler.send_json(429, {"error": {"message": "too many", "code": 429}})
        elif number == 2:
            handler.begin_stream()
            handler.send_event({"choices": [{"text": "x"}]})
            handler.cut()
        elif number == 3:
            handler.begin_stream()
            handler.send_event({"choices": [{"text": "x"}]})
            handler.end_stream()
        elif number == 4:
            handler.begin_stream()
            handler.send_event({"error": {"message": "it broke"}})
            handler.end_stream()
        elif number == 5:
            handler.send_json(200, {"choices": [{"text": "not streamed"}]})
        elif number == 6:
            handler.wfile.write(b"SMTP hello\r\n\r\n")
            handler.close_connection = True
        else:
            handler.send_answer(["x"])
    api.answer = answer
    done = bench(api.url, "--requests", 7, "--output-tokens", 2, "--warmup", 0, "--json", "-", code=1)
    summary = json.loads(done.stdout)["summary"]
    kinds = dict(summary["errors"])
    assert kinds.pop("status 429") == 1 and kinds.pop("stream without an end") == 1
    assert kinds.pop("an error in the stream") == 1 and kinds.pop("no event stream") == 1
    assert sum(kinds.values()) == 2 and any(kind.startswith("no HTTP answer") for kind in kinds)
    assert any(kind.startswith("connection") for kind in kinds)
    assert (summary["done"], summary["failed"], summary["ended_early"], summary["usage_missing"]) == (1, 6, 1, 1)
    assert "status 429: too many" in done.stderr and "it broke" in done.stderr


def refuse_unless(api, may_answer, status):
    """The server answers the request of each number for which that holds, and refuses the others."""
    def answer(handler, body):
        if may_answer(len(api.streamed())):
            handler.send_answer(["x"])
        else:
            handler.send_json(status, {"error": {"message": "not this one"}})
    api.answer = answer


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 422])
def test_a_refusal_before_any_answer_ends_the_run_at_once(api, status):
    refuse_unless(api, lambda number: number > 1, status)
    said = refused(api.url, "--concurrency", 1, "--output-tokens", 1, "--quiet", "--warmup", 0)
    assert f"refuses these requests with status {status}: not this one" in said and len(api.streamed()) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 422])
def test_a_refusal_after_an_answer_is_counted_and_the_report_written(api, status, tmp_path):
    refuse_unless(api, lambda number: number % 5 != 0, status)
    path = tmp_path / "run.json"
    done = bench(api.url, "--requests", 20, "--concurrency", 1, "--output-tokens", 1, "--warmup", 0, "--json", path, code=1)
    summary = json.loads(path.read_text())["summary"]
    assert (summary["done"], summary["failed"], summary["errors"]) == (16, 4, {f"status {status}": 4})
    assert f"4 requests failed with: status {status}: not this one" in done.stderr and "16 requests done" in done.stdout


def test_wrong_requests_are_counted_from_the_first_where_some_may_fail(api):
    refuse_unless(api, lambda number: number % 5 != 1, 400)
    run = report(api.url, "--requests", 50, "--concurrency", 1, "--output-tokens", 1, "--warmup", 0, "--max-error-rate", 0.5)
    assert run["summary"]["errors"] == {"status 400": 10} and run["summary"]["done"] == 40


def test_where_the_context_is_told_to_be_shorter_the_longest_request_is_tried_first(api, tmp_path):
    def answer(handler, body):
        if len(body["prompt"].split()) + body["max_tokens"] > 100:
            handler.send_json(400, {"error": {"message": "beyond 100"}})
        else:
            handler.send_answer(["x"])
    api.answer, api.told = answer, {"max_model_len": 100}
    trace = tmp_path / "trace.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
        f"2023-11-16 18:17:0{i}.0,{300 if i == 3 else 30},{5 + i}\n" for i in range(5)))
    for options in (["--prompt-tokens", "10-300"], ["--trace", trace, "--concurrency", 1]):
        before = len(api.streamed())
        done = bench(api.url, *options, code=2)
        assert "status 400: beyond 100" in done.stderr
        assert [body["max_tokens"] for body in api.streamed()[before:]] == [128 if options[1] != trace else 8]
    assert report(api.url, "--trace", trace, "--concurrency", 1, "--max-prompt-tokens", 60)["summary"]["done"] == 5


def test_a_request_goes_over_a_new_connection_where_the_kept_one_was_closed(api):
    def answer(handler, body):
        handler.send_answer(["x"])
        handler.close_connection = True  # without having said so
    api.answer = answer
    summary = report(api.url, "--requests", 20, "--concurrency", 2)["summary"]
    assert (summary["done"], summary["failed"]) == (20, 0)


def test_a_request_that_takes_too_long_is_a_timeout(api):
    release = threading.Event()

    def answer(handler, body):
        handler.begin_stream()
        release.wait(quern_serve.PATIENCE)
    api.answer = answer
    try:
        run = report(api.url, "--requests", 2, "--warmup", 0, "--concurrency", 2, "--timeout", "2s",
                     code=1)
    finally:
        release.set()
    assert run["summary"]["errors"] == {"timeout": 2}
    assert all(request["end"] - request["sent"] >= 2 for request in run["requests"])


def test_open_loop_latencies_count_from_the_time_that_was_due(api):
    hold = 0.05

    def answer(handler, body):
        time.sleep(hold)  # what a server takes; requests due meanwhile must wait, and that must show
        handler.send_answer(["x"])
    api.answer = answer
    run = report(api.url, "--rate", 1000, "--arrivals", "constant", "--requests", 8, "--max-in-flight", 1,
                 "--output-tokens", 1)
    for i, request in enumerate(run["requests"]):
        assert request["scheduled"] == pytest.approx(i / 1000)
        assert request["sent"] >= i * hold
    assert run["summary"]["ttft_seconds"]["max"] >= 8 * hold - 0.007
    assert run["summary"]["lateness_seconds"]["max"] >= 7 * hold - 0.007


def test_a_traces_requests_are_sent_in_its_order_with_its_lengths(api, tmp_path):
    trace = tmp_path / "trace.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:04.0,40,7\n2023-11-16 18:17:03.9,30,5\n"
                     "2023-11-16 18:17:04.5,999,9\n2023-11-16 18:18:00,50,3\n")
    run = report(api.url, "--trace", trace, "--limit", 3, "--speedup", 10, "--max-prompt-tokens", 60, "--warmup", 0)
    assert [request["wanted_prompt_tokens"] for request in run["requests"]] == [30, 40, 60]
    assert [request["wanted_output_tokens"] for request in run["requests"]] == [5, 7, 9]
    assert [request["scheduled"] for request in run["requests"]] == pytest.approx([0, 0.01, 0.06])
    assert run["load"]["cut_requests"] == 1 and run["load"]["trace"] == "trace.csv"
    closed = report(api.url, "--trace", trace, "--concurrency", 2, "--warmup", 0)
    assert closed["summary"]["done"] == 4 and closed["load"]["arrivals"] == "closed"


def test_an_interrupt_prints_what_there_is(api):
    release = threading.Event()

    def answer(handler, body):
        if len(api.streamed()) == 1:
            return handler.send_answer(["x"])
        handler.begin_stream()
        handler.send_event({"choices": [{"text": "x"}]})
        return release.wait(quern_serve.PATIENCE)
    api.answer = answer
    process = start(api.url, "--requests", 9, "--concurrency", 2, "--warmup", 0, "--json", "-")
    try:
        quern_serve.wait_for(lambda: len(api.streamed()) >= 3, "two requests under way")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=quern_serve.PATIENCE)
    finally:
        release.set()
        process.kill()
    assert process.returncode == 130, err
    run = json.loads(out)
    assert run["interrupted"]
    assert [run["summary"][key] for key in ("done", "failed", "cancelled")] == [1, 0, 2]


def test_the_key_is_sent_and_never_shown(api, tmp_path):
    seen = []

    def answer(handler, body):
        seen.append(handler.headers["Authorization"])
        handler.send_answer(["x"])
    api.answer = answer
    bench(api.url, "--requests", 1, "--warmup", 0, OPENAI_API_KEY="sk-of-the-environment")
    file = tmp_path / "key"
    file.write_text("sk-of-the-file\n")
    done = bench(api.url, "--requests", 1, "--warmup", 0, "--api-key-file", file, "--json", "-")
    bench(api.url, "--requests", 1, "--warmup", 0)
    assert seen == ["Bearer sk-of-the-environment", "Bearer sk-of-the-file", None]
    assert "sk-of" not in done.stdout + done.stderr


def test_https_needs_a_certificate_that_is_trusted(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
                   check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ScriptedApi(tls=context) as api:
        done = bench(api.url, "--requests", 1, code=2)
        assert "no TLS connection" in done.stderr and "certificate verify failed" in done.stderr
        assert report(api.url, "--requests", 5, "--concurrency", 2, "--ca-file", certificate)["summary"]["done"] == 5
        assert report(api.url, "--requests", 1, "--insecure")["summary"]["done"] == 1
        other = bench(api.url.replace("localhost", "127.0.0.1"), "--requests", 1, "--ca-file", certificate, code=2)
        assert "certificate verify failed" in other.stderr
