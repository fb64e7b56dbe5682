"""How hack/test goes on, counts and ends when its stages pass, fail, crash or hang."""

import contextlib
import importlib.machinery
import importlib.util
import io
import os
import shutil
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

sys.dont_write_bytecode = True
REPO = Path(__file__).resolve().parents[3]


def _load():
    loader = importlib.machinery.SourceFileLoader("hack_test", str(REPO / "hack" / "test"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("hack_test", loader))
    sys.modules["hack_test"] = module
    loader.exec_module(module)
    return module


hack_test = _load()  # which puts hack/lib on the path
from quern_dev.processes import start_time  # noqa: E402
Counts, Outcome = hack_test.Counts, hack_test.Outcome
_STAGES = (("setup", (), 10, 10), ("release", ("setup",), 10, 10), ("unit", ("setup",), 10, 10), ("e2e", ("release",), 10, 10))


def lives(pid: int) -> bool:
    return start_time(pid) is not None


class HackTest(unittest.TestCase):
    def setUp(self):
        self.root = Path(tempfile.mkdtemp(prefix="quern-stages-test-"))
        self.addCleanup(shutil.rmtree, self.root)

    def run_with(self, *arguments, **stages):
        """Runs main() with these functions for stages. Returns (exit code, its lines)."""
        body = {"setup": lambda runner: Outcome(True), "release": lambda runner: Outcome(True),
                "unit": lambda runner: Outcome(True, Counts(passed=3)), "e2e": lambda runner: Outcome(True, Counts(passed=2)),
                **stages}

        class Fake:
            def __init__(self, _args):
                for name, function in body.items():
                    setattr(self, name, function)

        out = io.StringIO()
        with mock.patch.object(hack_test, "Stages", Fake), mock.patch.object(hack_test, "_STAGES", _STAGES), \
                mock.patch.object(hack_test, "REPO", self.root), mock.patch.object(sys, "argv", ["hack/test", *arguments]), \
                contextlib.redirect_stdout(out):
            code = hack_test.main()
        return code, out.getvalue().strip().splitlines()

    def test_all_passing_ends_with_one_line_of_counts_and_exit_code_0(self):
        code, lines = self.run_with()
        self.assertEqual((code, lines[-1]), (0, "5 passed, 0 failed"))

    def test_a_failing_test_is_counted_and_its_log_shown_and_later_stages_still_run(self):
        def unit(runner):
            runner.must(["sh", "-c", "echo what broke"])
            return Outcome(False, Counts(passed=2, failed=1, failures=["Pool.Leaks"]))
        code, lines = self.run_with(unit=unit)
        self.assertEqual((code, lines[-1]), (1, "4 passed, 1 failed"))
        self.assertTrue(any("what broke" in line for line in lines))
        self.assertTrue(any("Pool.Leaks" in line for line in lines))

    def test_a_stage_that_crashes_counts_as_a_failure(self):
        def unit(_runner):
            raise RuntimeError("boom")
        code, lines = self.run_with(unit=unit)
        self.assertEqual((code, lines[-1]), (1, "2 passed, 1 failed"))
        self.assertTrue(any("RuntimeError: boom" in line for line in lines))

    def test_what_needs_a_broken_stage_is_not_run_and_counted_as_failed(self):
        code, lines = self.run_with(release=lambda runner: runner.must(["false"]))
        self.assertEqual((code, lines[-1]), (1, "3 passed, 2 failed"))
        self.assertTrue(any("e2e: not run, because release failed" in line for line in lines))

    def test_fail_fast_stops_at_the_first_failure(self):
        code, lines = self.run_with("--fail-fast", unit=lambda runner: runner.must(["false"]))
        self.assertEqual((code, lines[-1]), (1, "0 passed, 1 failed"))

    def test_one_stage_brings_what_it_needs_and_nothing_else(self):
        code, lines = self.run_with("--stage", "e2e", unit=lambda runner: runner.must(["false"]))
        self.assertEqual((code, lines[-1]), (0, "2 passed, 0 failed"))

    def test_no_test_at_all_is_not_a_success(self):
        code, lines = self.run_with("--stage", "release")
        self.assertEqual((code, lines[-1]), (1, "0 passed, 0 failed"))

    def test_an_interrupt_still_ends_with_counts(self):
        def e2e(_runner):
            raise KeyboardInterrupt
        code, lines = self.run_with(e2e=e2e)
        self.assertEqual((code, lines[-1]), (130, "3 passed, 1 failed"))

    def test_a_hanging_command_is_stopped_with_its_children(self):
        pid_file = self.root / "pid"

        def unit(runner):
            runner.deadline = 0
            runner.must(["sh", "-c", f"sleep 300 & echo $! > {pid_file}; wait"])
        code, lines = self.run_with("--stage", "unit", unit=unit)
        self.assertEqual((code, lines[-1]), (1, "0 passed, 1 failed"))
        self.assertTrue(any("the stage's limit" in line for line in lines))
        pid, deadline = int(pid_file.read_text()), time.monotonic() + 10
        while lives(pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertFalse(lives(pid))

    def test_commands_get_no_standard_input(self):
        def unit(runner):
            runner.must(["sh", "-c", "! read line"])
            return Outcome(True, Counts(passed=1))
        self.assertEqual(self.run_with("--stage", "unit", unit=unit)[0], 0)


if __name__ == "__main__":
    os.environ.setdefault("QUERN_CACHE", tempfile.gettempdir())
    unittest.main()
