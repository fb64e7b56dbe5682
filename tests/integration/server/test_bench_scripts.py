"""The scripts of tests/bench that measure quern-serve do run, and what they print are figures. No bar is tested: see docs/performance.md."""

import re
import subprocess
import sys

import pytest
import quern_serve


def figures(script: str, pattern: str) -> list[float]:
    done = subprocess.run([sys.executable, quern_serve.ROOT / "tests" / "bench" / script, "--quick"], capture_output=True, text=True,
                          timeout=quern_serve.PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.fullmatch(pattern.replace("N", r"(-?[\d.]+)"), done.stdout.strip().splitlines()[-1])
    assert found, done.stdout
    return [float(figure) for figure in found.groups()]


def test_fairness():
    alone, beside, steps, step, preempted = figures(
        "fairness.py", r"p95 TTFT alone N ms, beside the flood N ms: N steps of N ms more; N sequences gave way")
    assert alone > 0 and beside > 0 and step > 0 and preempted >= 0
    assert steps == pytest.approx((beside - alone) / step, abs=0.01 + 0.2 / step * (1 + abs(steps)))


def test_http_cost():
    alone, served, ratio, adjusted, adjusted_ratio, by_cpu, served_by_cpu, cpu_ratio = figures(
        "http_cost.py", r"medians: alone N, served N \(N\), client taken off N \(N\); a second of the processors N and N \(N\)")
    assert alone > 0 and 0 < served <= adjusted and by_cpu > 0 and served_by_cpu > 0
    for part, whole, said in ((served, alone, ratio), (adjusted, alone, adjusted_ratio), (served_by_cpu, by_cpu, cpu_ratio)):
        assert said == pytest.approx(part / whole, rel=0.02, abs=0.001)


def test_long_prompt():
    itl, median, over_before, ttft = figures(
        "long_prompt.py", r"ITL p95 N times, median N times \(p95 N times what it was before the prompt came\); TTFT N times what it is alone")
    assert itl > 0 and median > 0 and over_before > 0 and ttft > 0


def test_sampling_cost():
    (logprobs,) = figures("sampling_cost.py", r"\| 0\.8, top-p 0\.95, 20 log-probabilities \| N% \|")
    assert 0 < logprobs < 100
