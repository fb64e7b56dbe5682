"""The scripts touch nothing of the machine that is not theirs, and put back what they had to change."""

import os
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "hack" / "lib"))
from quern_dev import console, debian  # noqa: E402
from quern_dev.cluster.layout import Layout  # noqa: E402
from quern_dev.cluster.lifecycle import Cluster  # noqa: E402


class Guards(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name)

    def test_a_directory_with_other_files_is_neither_closed_to_others_nor_wiped(self):
        state = self.path / "mine"
        state.mkdir(mode=0o755)
        (state / "letter.txt").write_text("dear")
        with mock.patch("quern_dev.paths.models_dir", lambda: self.path / "models"):
            with self.assertRaisesRegex(console.Failure, "QUERN_STATE"):
                Layout(state).make()
            with self.assertRaisesRegex(console.Failure, "QUERN_STATE"):
                Cluster(state).down(wipe=True)
        self.assertEqual((state / "letter.txt").read_text(), "dear")
        self.assertEqual(state.stat().st_mode & 0o777, 0o755)

    def test_an_empty_or_new_directory_becomes_a_clusters_and_is_wiped(self):
        with mock.patch("quern_dev.paths.models_dir", lambda: self.path / "models"):
            for name in ("new", "empty"):
                state = self.path / name
                if name == "empty":
                    state.mkdir()
                Layout(state).make()
                Layout(state).make()
                Cluster(state).down(wipe=True)
                self.assertFalse(state.exists())

    def _policy(self, text):
        policy = self.path / "policy-rc.d"
        policy.write_text(text)
        return mock.patch.multiple(debian, _POLICY=policy, _POLICY_ASIDE=self.path / "policy-rc.d.before-quern"), policy

    def test_a_policy_left_by_a_killed_run_goes_even_if_no_package_is_missing(self):
        patched, policy = self._policy(f"#!/bin/sh\n# {debian._POLICY_MARK}\nexit 101\n")
        (self.path / "policy-rc.d.before-quern").write_text("the machine's own")
        with patched, mock.patch.object(debian, "missing", lambda names: []), mock.patch.object(os, "geteuid", lambda: 0):
            debian.ensure(["base"])
        self.assertEqual(policy.read_text(), "the machine's own")

    def test_the_machines_own_policy_stays(self):
        patched, policy = self._policy("#!/bin/sh\nexit 0\n")
        with patched, mock.patch.object(debian, "missing", lambda names: []), mock.patch.object(os, "geteuid", lambda: 0):
            debian.ensure(["base"])
        self.assertEqual(policy.read_text(), "#!/bin/sh\nexit 0\n")


if __name__ == "__main__":
    unittest.main()
