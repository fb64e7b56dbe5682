"""tests/bench/gateway_cost.py does run, and what it prints are figures. No bar is tested: see docs/gateway.md."""

import re
import subprocess
import sys

import quern_serve


def test_gateway_cost():
    done = subprocess.run([sys.executable, quern_serve.ROOT / "tests" / "bench" / "gateway_cost.py", "--quick"], capture_output=True,
                          text=True, timeout=quern_serve.PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.fullmatch(r"medians: added to models (-?[\d.]+) ms, to a completion (-?[\d.]+) ms; until a request goes on, by its own "
                         r"count ([\d.]+) ms", done.stdout.strip().splitlines()[-1])
    assert found and float(found.group(3)) > 0, done.stdout
