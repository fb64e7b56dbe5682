"""Names that the operator, dashboards and people's scripts rely on: metrics, options, exit codes.

A deliberate change is written down with:  QUERN_UPDATE_GOLDEN=1 <this test>, and read in the diff.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import quern_serve

HERE = Path(__file__).resolve().parent


def check_golden(name: str, actual: str):
    path = HERE / name
    if os.environ.get("QUERN_UPDATE_GOLDEN"):
        path.write_text(actual)
    assert actual == path.read_text(), f"{name} differs: if that is meant, update it with QUERN_UPDATE_GOLDEN=1"


@pytest.fixture(scope="module")
def exposition(tmp_path_factory):
    tenants = tmp_path_factory.mktemp("tenants") / "tenants.json"
    tenants.write_text('{"tenants": [{"name": "a", "keys": ["sk-aaaaaaaaaaaaaaaa"]}]}')
    with quern_serve.Server(quern_serve.model(quern_serve.SMOLLM2), "--served-name", "smollm2", "--kv-memory", "64MiB",
                            "--max-context-tokens", "1024", "--tenants", str(tenants)) as server:
        body = {"model": "smollm2", "prompt": "One, two,", "max_tokens": 3}
        key = {"Authorization": "Bearer sk-aaaaaaaaaaaaaaaa"}
        assert server.post("/v1/completions", body, headers=key).status_code == 200
        yield server.get("/metrics", admin=True).text


def shape(exposition: str) -> str:
    """Every metric as 'name type {labels}', and the values of labels from a fixed set."""
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", exposition, re.M))
    lines = set()
    for sample, labels in re.findall(r"^([\w:]+)(\{[^}]*\})? ", exposition, re.M):
        name = sample if sample in types else re.sub(r"_(bucket|sum|count)$", "", sample)
        names = sorted(set(re.findall(r'(\w+)="', labels)) - {"le"})
        reason = re.search(r'reason="(\w+)"', labels)
        lines.add(f"{name} {types[name]} {{{','.join(names)}}}" + (f" reason={reason.group(1)}" if reason else ""))
    return "\n".join(sorted(lines)) + "\n"


def test_metric_names_types_and_labels(exposition):
    check_golden("metrics.golden", shape(exposition))


def test_every_metric_carries_the_served_name(exposition):
    for line in exposition.splitlines():
        assert line.startswith("#") or 'model="smollm2"' in line, line


def test_the_guide_names_every_metric():
    guide = (quern_serve.ROOT / "docs" / "monitoring.md").read_text()
    told = set(re.findall(r"(?:quern_|vllm:)\w+", guide))
    for golden in ("metrics.golden", "metrics_vllm.golden"):
        names = {line.split()[0] for line in (HERE / golden).read_text().splitlines()}
        assert names <= told, f"of {golden}, docs/monitoring.md does not say: {sorted(names - told)}"


def promtool_check(exposition) -> tuple[int, str]:
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing: it comes with Debian's package prometheus (hack/setup --cluster)"
    result = subprocess.run([promtool, "check", "metrics"], input=exposition, capture_output=True, text=True, timeout=30)
    return result.returncode, result.stdout + result.stderr


def test_promtool_finds_nothing_to_mend(exposition):
    assert promtool_check(exposition) == (0, "")


def test_vllms_names_are_added_where_they_are_wanted():
    with quern_serve.Server(quern_serve.model(quern_serve.SMOLLM2), "--served-name", "smollm2", "--kv-memory", "64MiB",
                            "--max-context-tokens", "1024", "--metrics-compat", "vllm") as server:
        body = {"model": "smollm2", "prompt": "One, two,", "max_tokens": 3, "ignore_eos": True}
        assert server.post("/v1/completions", body).status_code == 200
        text = server.get("/metrics", admin=True).text
        assert server.metric("vllm:generation_tokens_total", model_name="smollm2") == 3
        assert server.metric("vllm:request_success_total", finished_reason="length") == 1
    vllm = [line for line in shape(text).splitlines() if line.startswith("vllm:")]
    check_golden("metrics_vllm.golden", "\n".join(vllm) + "\n")
    # The format is right; that these names break Prometheus' rules for names is vLLM's doing.
    code, findings = promtool_check(text)
    assert code == 3 and findings, f"promtool has findings with exit code 3, not {code}: {findings}"
    for line in findings.splitlines():
        assert line.startswith("vllm:") and ("should not contain ':'" in line or "suffix" in line), line


def test_help_text():
    result = subprocess.run([quern_serve.binary(), "--help"], capture_output=True, text=True, timeout=30)
    assert result.returncode == 0
    check_golden("help.golden", result.stdout)


def test_help_text_of_quern_bench():
    result = subprocess.run([Path(quern_serve.binary()).with_name("quern-bench"), "--help"], capture_output=True, text=True,
                            timeout=30)
    assert result.returncode == 0
    check_golden("help_bench.golden", result.stdout)


def test_version():
    result = subprocess.run([quern_serve.binary(), "--version"], capture_output=True, text=True, timeout=30)
    assert result.returncode == 0 and re.fullmatch(r"quern-serve \d+\.\d+\.\d+\n", result.stdout)


def test_every_option_has_its_environment_variable():
    text = subprocess.run([quern_serve.binary(), "--help"], capture_output=True, text=True, timeout=30).stdout
    options = [o for o in re.findall(r"^ +(?:-\w,)?(--[a-z-]+)", text, re.M) if o not in ("--help", "--version")]
    assert len(options) > 15
    for option in options:
        assert "QUERN_" + option[2:].upper().replace("-", "_") in text, option
