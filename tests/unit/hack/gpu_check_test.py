"""hack/gpu-check where there is no GPU, and where nvidia-smi is there and finds none."""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[3] / "hack" / "gpu-check"


class GpuCheck(unittest.TestCase):
    def run_with(self, nvidia_smi: str | None):
        with tempfile.TemporaryDirectory(prefix="quern-gpu-check-") as folder:
            if nvidia_smi is not None:
                program = Path(folder) / "nvidia-smi"
                program.write_text(nvidia_smi)
                program.chmod(0o755)
            out = Path(folder) / "out"
            done = subprocess.run([sys.executable, "-B", SCRIPT, "--out", out], capture_output=True, text=True, check=False,
                                  env={**os.environ, "PATH": folder})
            return done, out.exists()

    def test_without_a_gpu_it_says_so_in_one_line_and_does_nothing(self):
        for nvidia_smi, why in ((None, "not on PATH"), ("#!/bin/sh\necho 'No devices were found'\nexit 6\n", "No devices were found")):
            done, wrote = self.run_with(nvidia_smi)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
            self.assertIn("no NVIDIA GPU", done.stderr)
            self.assertIn(why, done.stderr)
            self.assertFalse(wrote)


if __name__ == "__main__":
    unittest.main()
