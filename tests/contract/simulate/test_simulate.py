"""quern-operator simulate: the JSON that programs read, exit codes, one clear line for a mistake."""

import json
import os
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

PROGRAM = Path(os.environ["QUERN_BIN"]) / "quern-operator"
POLICIES = ["quern", "knative", "hpa-tokens", "hpa-queue", "keda", "mean-active", "fixed", "clairvoyant"]
ALWAYS = {"policy": str, "trace": str, "attainment": float, "replica_hours": float, "start_up_seconds": float, "lower_bound": bool}
OF_RUNS = {"target": float, "requests": int, "refused": int, "preemptions": int, "ttft_p50": float, "ttft_p95": float, "ttft_p99": float,
           "itl_p50": float, "itl_p95": float, "itl_p99": float, "scale_changes": int, "peak_replicas": int, "utilization": float,
           "prompt_tokens": int, "output_tokens": int, "dollars_per_million_tokens": float}


def run(*args):
    return subprocess.run([PROGRAM, "simulate", *map(str, args)], capture_output=True, text=True, timeout=120)


@pytest.fixture(name="traces")
def make_traces(tmp_path):
    rows = [f"2023-11-16 18:17:{i % 60:02d}.5,{200 + 37 * i % 4000},{5 + i % 90}" for i in range(60)]
    (tmp_path / "a.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(rows) + "\n")
    lines = [json.dumps({"timestamp": 500 * i, "input_length": 1500, "output_length": 20, "hash_ids": [i % 3, 10 + i, 100 + i]}) for i in range(40)]
    (tmp_path / "b.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "README.md").write_text("no trace\n")
    return tmp_path


def test_the_json_of_all_policies(traces):
    done = run("--trace", traces / "a.csv", "--policy", "all", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    assert list(answer) == ["policies"]
    assert [entry["policy"] for entry in answer["policies"]] == POLICIES
    for entry in answer["policies"]:
        assert set(entry) == set(ALWAYS) | set(OF_RUNS)
        for name, kind in ALWAYS.items():
            assert isinstance(entry[name], kind), name
        assert 0 <= entry["attainment"] <= 1
        assert entry["lower_bound"] == (entry["policy"] == "clairvoyant")
        for name, kind in OF_RUNS.items():
            assert (entry[name] is None) if entry["lower_bound"] else isinstance(entry[name], (kind, int)), name
    runs = {entry["policy"]: entry for entry in answer["policies"]}
    assert runs["fixed"]["scale_changes"] == 0
    assert runs["quern"]["requests"] == 60
    for name in POLICIES[:-1]:
        if runs[name]["attainment"] >= runs["clairvoyant"]["attainment"]:
            assert runs[name]["replica_hours"] >= runs["clairvoyant"]["replica_hours"]


def test_a_folder_gives_each_trace_and_the_same_seed_the_same_bytes(traces):
    args = ("--trace", traces, "--policy", "quern,fixed", "--json", "--copies", "2", "--seed", "7")
    first = run(*args)
    assert first.returncode == 0, first.stderr
    entries = json.loads(first.stdout)["policies"]
    assert [(e["trace"], e["policy"]) for e in entries] == [(t, p) for t in ("a.csv", "b.jsonl") for p in ("quern", "fixed")]
    assert run(*args, "--threads", "3").stdout == first.stdout


def test_a_table_and_a_plot(traces):
    plot = traces / "plot.svg"
    done = run("--trace", traces / "b.jsonl", "--plot", plot, "--target", "knative=3", "--price", "7.5")
    assert done.returncode == 0, done.stderr
    for name in POLICIES:
        assert f"\n{name} " in done.stdout
    assert ElementTree.parse(plot).getroot().tag.endswith("svg")


def test_coefficients_from_a_file(traces):
    text = (Path(__file__).parents[3] / "operator/simulation/profiles/h100-8b.json").read_text()
    profile = json.loads(text) | {"name": "mine", "kind": "measured"}
    (traces / "mine.json").write_text(json.dumps(profile))
    done = run("--trace", traces / "a.csv", "--policy", "quern", "--coefficients", traces / "mine.json")
    assert done.returncode == 0, done.stderr
    assert "replicas: mine (measured)" in done.stdout
    profile["step_seconds"]["step"] = -1
    (traces / "mine.json").write_text(json.dumps(profile))
    done = run("--trace", traces / "a.csv", "--coefficients", traces / "mine.json")
    assert done.returncode == 2
    assert "step_seconds.step must be a number" in done.stderr


@pytest.mark.parametrize(("args", "words"), [
    ((), "--trace"),
    (("--trace", "nowhere.csv"), "nowhere.csv"),
    (("--trace", "{}/a.csv", "--policy", "guess"), "'guess' must be all, quern"),
    (("--trace", "{}/a.csv", "--target", "knative"), "knative=8"),
    (("--trace", "{}/a.csv", "--target", "clairvoyant=8"), "--target"),
    (("--trace", "{}/a.csv", "--target", "fixed=inf"), "1e-6 to 1e12"),
    (("--trace", "{}/a.csv", "--seed", "-1"), "--seed"),
    (("--trace", "{}/a.csv", "--max-replicas", "0"), "--max-replicas"),
    (("--trace", "{}/a.csv", "--max-replicas", "2", "--min-replicas", "3"), "--min-replicas 3"),
    (("--trace", "{}/a.csv", "--coefficients", "h200"), "h100-8b"),
    (("--trace", "{}/a.csv", "--start-up", "soon"), "--start-up"),
    (("--trace", "{}/a.csv", "--surprise"), "--surprise"),
    (("--trace", "{}/a.csv", "--panic-window", "90"), "--stable-window 60 s"),
    (("--trace", "{}/bad.csv"), "bad.csv: line 3"),
    (("--trace", "{}/empty"), "no .csv or .jsonl"),
    (("--trace", "{}/a.csv", "--repeat", "1000000"), "--repeat"),
])
def test_a_mistake_is_one_line_and_exit_code_2(traces, args, words):
    (traces / "bad.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n0,5,5\n1,-5,5\n")
    (traces / "empty").mkdir()
    done = run(*(arg.format(traces) for arg in args))
    assert done.returncode == 2
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("(")]
    assert len(lines) == 1 and lines[0].startswith("quern-operator simulate: "), done.stderr
    assert words in lines[0]


def test_help():
    done = run("--help")
    assert done.returncode == 0
    for word in ("--trace", "--policy", "--start-up", "clairvoyant", "Exit codes"):
        assert word in done.stdout
    assert "simulate" in subprocess.run([PROGRAM, "--help"], capture_output=True, text=True, timeout=30).stdout


def test_it_is_the_first_word():
    done = subprocess.run([PROGRAM, "--log-level", "info", "simulate"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert done.stderr == "quern-operator: simulate must be the first word\n"
