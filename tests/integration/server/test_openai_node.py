"""The official client for Node, unchanged, against the real program with the real model: openai_node.mjs says what it does."""

import os
import subprocess
from pathlib import Path

import quern_serve
from quern_dev import node


def test_the_official_client_for_node_works(smollm2):
    root = node.root()
    assert (root / ".complete").exists(), f"{root} is missing: run hack/setup --node"
    script = Path(__file__).with_name("openai_node.mjs")
    result = subprocess.run([root / "bin" / "node", "--test", "--test-reporter=spec", script],
                            env={**os.environ, "QUERN_URL": smollm2.url, "QUERN_MODEL": smollm2.name,
                                 "QUERN_NODE_MODULES": str(root / "node_modules")},
                            capture_output=True, text=True, timeout=quern_serve.PATIENCE)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "fail 0" in result.stdout and "skipped 0" in result.stdout, result.stdout
    quern_serve.wait_for(lambda: smollm2.metric("quern_requests_running") == 0, "the aborted stream's end")
