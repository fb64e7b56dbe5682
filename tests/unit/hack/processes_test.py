"""Recorded processes: only what we started is ours, and all of it ends."""

import json
import os
import signal
import sys
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "hack" / "lib"))
from quern_dev import console, processes  # noqa: E402
from quern_dev.processes import Registry, wait_until  # noqa: E402


class Processes(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        path = Path(self.directory.name)
        self.registry = Registry(path / "run", path / "logs")
        self.addCleanup(lambda: self.registry.stop(self.registry.names(), 0))

    def test_a_started_process_is_known_until_it_is_stopped(self):
        pid = self.registry.start("sleeper", ["sleep", "1000"])
        self.assertEqual(self.registry.pid("sleeper"), pid)
        self.registry.stop(["sleeper"], 5)
        self.assertIsNone(self.registry.pid("sleeper"))
        self.assertEqual(self.registry.names(), [])
        self.assertIsNone(processes.start_time(pid))

    def test_a_pid_that_belongs_to_somebody_else_by_now_is_never_signalled(self):
        self.registry.start("sleeper", ["sleep", "1000"])
        self.registry.stop(["sleeper"], 5)
        bystander = Registry(self.registry.run / "other", self.registry.logs)
        pid = bystander.start("bystander", ["sleep", "1000"])
        self.addCleanup(lambda: bystander.stop(["bystander"], 0))
        record = {**bystander.read("bystander"), "boot": "another boot"}
        (self.registry.run / "sleeper.json").write_text(json.dumps(record))
        self.assertIsNone(self.registry.pid("sleeper"))
        record = {**bystander.read("bystander"), "start_time": processes.start_time(pid) - 1}
        (self.registry.run / "sleeper.json").write_text(json.dumps(record))
        self.assertIsNone(self.registry.pid("sleeper"))
        self.registry.stop(["sleeper"], 1)
        self.assertEqual(bystander.pid("bystander"), pid)

    def test_a_process_that_ignores_sigterm_is_killed_after_the_grace(self):
        ready = self.registry.run.parent / "ready"
        pid = self.registry.start("stubborn", ["sh", "-c", f"trap '' TERM; touch {ready}; while :; do sleep 1; done"])
        self.assertTrue(wait_until(ready.exists, 20))
        self.registry.stop(["stubborn"], 0.2)
        self.assertIsNone(processes.start_time(pid))

    def test_changed_arguments_or_settings_make_it_out_of_date(self):
        settings = self.registry.run.parent / "settings"
        settings.write_text("a")
        before = processes.fingerprint(["program", "--flag"], [settings])
        self.registry.start("program", ["sleep", "1000"], fingerprint=before)
        self.assertTrue(self.registry.is_current("program", before))
        settings.write_text("b")
        self.assertFalse(self.registry.is_current("program", processes.fingerprint(["program", "--flag"], [settings])))
        self.assertNotEqual(before, processes.fingerprint(["program", "--other"], [settings]))

    def test_a_crashed_process_is_not_taken_for_a_living_one(self):
        pid = self.registry.start("sleeper", ["sleep", "1000"], fingerprint="x")
        os.kill(pid, signal.SIGKILL)
        self.assertTrue(wait_until(lambda: self.registry.pid("sleeper") is None, 20))
        self.assertFalse(self.registry.is_current("sleeper", "x"))

    def test_a_process_lives_until_its_last_thread_has_ended(self):
        """Until then its ports and locks are taken: what is started in its place would find them so, and end."""
        program = ("import ctypes, threading, time; threading.Thread(target=time.sleep, args=(1000,)).start(); "
                   "ctypes.CDLL(None).pthread_exit(None)")
        pid = self.registry.start("headless", [sys.executable, "-c", program])
        stat = Path(f"/proc/{pid}/stat")
        self.assertTrue(wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z", 20))
        self.assertEqual(self.registry.pid("headless"), pid)
        self.assertFalse(self.registry.is_current("headless", ""), "who starts what is missing must not count on it")
        self.registry.stop(["headless"], 5)
        self.assertIsNone(processes.start_time(pid))

    def test_a_listening_socket_is_handed_over_as_descriptor_three(self):
        with (self.registry.run.parent / "file").open("w") as file:
            self.registry.start("writer", ["sh", "-c", "echo here >&3"], pass_fd=file.fileno())
        self.assertTrue(wait_until(lambda: (self.registry.run.parent / "file").read_text() == "here\n", 20))

    def test_a_namespace_that_is_gone_is_an_error_that_names_the_process(self):
        pid = self.registry.start("short", ["true"])
        self.assertTrue(wait_until(lambda: processes.start_time(pid) is None, 20))
        with self.assertRaisesRegex(console.Failure, "late could not be started"):
            self.registry.start("late", ["true"], namespaces=processes.Namespaces(2**22 - 1))


if __name__ == "__main__":
    unittest.main()
