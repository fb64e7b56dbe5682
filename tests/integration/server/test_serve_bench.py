"""quern-serve bench: what it prints, that its figures are what its help defines, and its errors."""

import json
import subprocess

import pytest
import quern_serve

PROMPT, GENERATE = 16, 8


def bench(*arguments):
    return subprocess.run([quern_serve.binary(), "bench", *map(str, arguments)], capture_output=True, text=True,
                          timeout=quern_serve.PATIENCE, check=False)


@pytest.fixture(scope="module")
def report():
    done = bench(quern_serve.model(quern_serve.SMOLLM2), "--batch", "1,4", "--prompt", PROMPT, "--generate", GENERATE,
                 "--repeats", 1, "--threads", 2, "--json")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    return json.loads(done.stdout)


def test_the_report_says_what_was_measured(report):
    known = {"model_file": quern_serve.SMOLLM2, "architecture": "llama", "quantization": "Q4_1", "kv_dtype": "f16",
             "threads": 2, "prompt_tokens": PROMPT, "generated_tokens": GENERATE, "repeats": 1}
    assert {key: report[key] for key in known} == known
    assert "2 threads" in report["compute"] and report["cpu"]
    version = subprocess.run([quern_serve.binary(), "--version"], capture_output=True, text=True, timeout=30, check=True)
    assert version.stdout.split()[-1] == report["version"]
    # The engine is made for the largest batch.
    assert report["kv_cache_tokens"] >= 4 * (PROMPT + GENERATE)
    assert report["peak_resident_bytes"] > report["weight_bytes"] > 0


def test_the_figures_are_those_that_the_help_defines(report):
    assert [one["batch"] for one in report["results"]] == [1, 4]
    for one in report["results"]:
        batch, ttft, itl = one["batch"], one["ttft_seconds"], one["itl_seconds"]
        assert 0 < ttft["p50"] <= ttft["p95"] and 0 < itl["p50"] <= itl["p95"]
        last_first = batch * PROMPT / one["prefill_tokens_per_second"]
        whole = batch * (PROMPT + GENERATE) / one["total_tokens_per_second"]
        decoded = one["decode_tokens_per_second"] * (whole - last_first)
        assert ttft["p95"] <= last_first * 1.001 and itl["p50"] < whole
        assert 0 < one["decode_overhead_share"] < 1
        # Of the other requests, some tokens may have come before the last one's first.
        assert GENERATE - 1 - 0.01 <= decoded <= batch * (GENERATE - 1) + 0.01
        assert decoded == pytest.approx(round(decoded), abs=0.01)
        # The request that began last decodes to the end, one token a step.
        assert one["decode_mean_batch"] * (GENERATE - 1) == pytest.approx(decoded, abs=0.01)


def test_the_report_says_how_it_sampled():
    done = bench(quern_serve.model(quern_serve.SMOLLM2), "--batch", 1, "--prompt", 4, "--generate", 4, "--repeats", 1,
                 "--temperature", 0.8, "--top-p", 0.9, "--top-k", 40, "--min-p", 0.05, "--typical-p", 0.7,
                 "--repetition-penalty", 1.1, "--frequency-penalty", 0.2, "--presence-penalty", -0.1,
                 "--biased-tokens", 300, "--logprobs", 5, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    given = {"temperature": 0.8, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "typical_p": 0.7, "repetition_penalty": 1.1,
             "frequency_penalty": 0.2, "presence_penalty": -0.1, "biased_tokens": 300, "top_logprobs": 5}
    assert {key: told[key] for key in given} == pytest.approx(given)


def test_the_table_has_a_row_for_each_batch():
    done = bench(quern_serve.model(quern_serve.SMOLLM2), "--batch", "2,1", "--prompt", 4, "--generate", 2, "--repeats", 1)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows[-2:]] == ["2", "1"] and rows[-3][:3] == ["batch", "prefill", "decode"]
    assert all(float(figure) > 0 for row in rows[-2:] for figure in row[1:] if not figure.endswith("%"))
    assert all(len([figure for figure in row if figure.endswith("%")]) == 1 for row in rows[-2:])


@pytest.mark.parametrize(("options", "says"), [
    (["--batch", "1,x"], "'1,x' is no list of batch sizes"),
    (["--top-p", "0"], "--top-p"),
    (["--top-k", "40"], "--temperature above 0"),
    (["--min-p", "0.1"], "--temperature above 0"),
    (["--typical-p", "0.5"], "--temperature above 0"),
    (["--logprobs", "21"], "--logprobs"),
    (["--batch", "0"], "numbers from 1 to 4096"),
    (["--batch", "1,,2"], "'1,,2' is no list"),
    (["--generate", "1"], "--generate"),
    (["--batch", "600", "--max-batch-tokens", "512"], "less than the largest --batch (600)"),
    (["--prompt", "8192"], "the model's context has 8192"),
    (["--batch", "8", "--kv-memory", "16MiB", "--prompt", "500"], "--kv-memory"),
])
def test_a_wrong_option_is_one_clear_line_and_exit_code_2(options, says):
    done = bench(quern_serve.model(quern_serve.SMOLLM2), *options)
    assert done.returncode == 2 and done.stdout == ""
    assert says in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_a_wrong_model_is_one_clear_line_and_exit_code_2(tmp_path):
    done = bench(tmp_path / "none.gguf", "--batch", 1)
    assert done.returncode == 2
    assert "none.gguf" in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_a_model_file_called_bench_is_reached_with_its_folder(tmp_path):
    (tmp_path / "bench").write_text("no model")
    done = subprocess.run([quern_serve.binary(), "./bench", "--port", "0", "--admin-port", "0"], cwd=tmp_path,
                          capture_output=True, text=True, timeout=quern_serve.PATIENCE, check=False)
    assert done.returncode == 2 and "cannot serve ./bench" in done.stderr, done.stderr
