"""hack/gpu-check where there is no GPU, and where nvidia-smi is there and finds none."""

import copy
import json
import math
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[3] / "hack" / "gpu-check"
sys.path.insert(0, str(SCRIPT.parent / "lib"))
from quern_dev import gpu_engine, gpu_ranks  # noqa: E402


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


class Ranks(unittest.TestCase):
    ALONE = {"tokens": ["a", "b", "c"], "token_logprobs": [-0.1, -0.7, -0.1], "top_logprobs": [{"a": -0.1, "x": -4.0}, {"b": -0.7, "y": -0.9}, {"c": -0.1, "z": -3.0}]}

    def compare(self, *tokens):
        return gpu_ranks.compare([self.ALONE], [self.ALONE | {"tokens": list(tokens)}])

    def test_texts_may_part_after_two_tokens_that_are_about_as_likely(self):
        self.assertEqual(self.compare("a", "b", "c")[0], True)
        ok, note = self.compare("a", "y", "q")
        self.assertTrue(ok, note)
        self.assertIn("1 of 3 greedy tokens", note)

    def test_a_clear_token_must_be_the_same(self):
        ok, note = self.compare("x", "b", "c")
        self.assertFalse(ok)
        self.assertIn("token 0 is 'x' rather than 'a'", note)

    def test_a_token_must_be_about_as_likely(self):
        ok, note = gpu_ranks.compare([self.ALONE], [self.ALONE | {"token_logprobs": [-0.1, -0.7, -2.0]}])
        self.assertFalse(ok)
        self.assertIn("token 2, 'c', has the log-probability -2.0 rather than -0.1", note)

    def test_texts_that_have_next_to_nothing_in_common_say_nothing(self):
        uncertain = self.ALONE | {"top_logprobs": [{"a": -0.7, "x": -0.8}, *self.ALONE["top_logprobs"][1:]]}
        ok, note = gpu_ranks.compare([uncertain], [self.ALONE | {"tokens": ["x", "b", "c"]}])
        self.assertFalse(ok)
        self.assertIn("0 of 3 greedy tokens", note)

    def test_gpus_are_counted_as_programs_are_shown_them(self):
        for variable, count in ((None, 4), ("", 0), ("0", 1), ("2,3", 2), ("1, 0", 2), ("0,-1,1", 1), ("0,4,1", 1), ("GPU-8932f937,GPU-1", 2)):
            self.assertEqual(gpu_ranks.visible_gpus(4, variable), count, variable)

    def test_a_library_that_is_not_there_is_named_with_what_to_do(self):
        with tempfile.TemporaryDirectory(prefix="quern-gpu-check-") as folder:
            (Path(folder) / "libnccl.so.2").write_text("no library")
            self.assertIn("libnccl2", gpu_ranks.why_no_nccl(Path(folder)))


class Engine(unittest.TestCase):
    def setUp(self):
        self.reference = {"positions": [{"position": 0, "token": 13, "logsumexp": math.log(10 + 5 + 1),
                                         "top": [[7, math.log(10)], [8, math.log(5)]]}]}

    def compare(self, change):
        other = copy.deepcopy(self.reference)
        change(other["positions"][0])
        return gpu_engine.compare("a line of the log\n" + json.dumps(self.reference), json.dumps(other))

    def test_small_differences_are_those_of_16_bits(self):
        def change(position):
            position["top"][0][1] += 0.02
        ok, note = self.compare(change)
        self.assertTrue(ok, note)
        self.assertIn("1 clear next tokens, all the same", note)

    def test_another_distribution_another_token_and_other_tokens_are_not(self):
        def flatter(position):
            position["top"] = [[7, math.log(6.5)], [8, math.log(6)]]
        def swapped(position):
            position["top"] = [[8, math.log(10)], [7, math.log(5)]]
        def elsewhere(position):
            position["token"] = 14
        for change, why in ((flatter, "0.02 is the most"), (swapped, "another one at position 0"), (elsewhere, "other tokens")):
            ok, note = self.compare(change)
            self.assertFalse(ok, note)
            self.assertIn(why, note)


if __name__ == "__main__":
    unittest.main()
