"""The cluster's lifecycle: what `up` says when a part of it ends while it waits for another."""

import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "hack" / "lib"))
from quern_dev import console  # noqa: E402
from quern_dev.cluster.lifecycle import Cluster  # noqa: E402
from quern_dev.cluster.parts import Part  # noqa: E402
from quern_dev.processes import wait_until  # noqa: E402


class Waiting(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.cluster = Cluster(Path(directory.name) / "state")
        self.cluster.require_up = lambda: None  # in no namespaces
        self.addCleanup(lambda: self.cluster.registry.stop(self.cluster.registry.names(), 0))

    def test_a_part_that_ended_is_named_at_once_though_another_one_is_waited_for(self):
        self.cluster._ensure(Part("etcd", ["sh", "-c", "echo address already in use; exit 1"]))
        self.cluster._ensure(Part("kubelet", ["sleep", "1000"]))
        start = time.monotonic()
        with self.assertRaisesRegex(console.Failure, r"etcd has ended(.|\n)*address already in use"):
            self.cluster._wait("kubelet", lambda: False, 60)
        self.assertLess(time.monotonic() - start, 30)

    def test_of_several_the_one_that_the_others_hang_on_is_named(self):
        for name in ("prometheus", "etcd"):
            self.cluster._ensure(Part(name, ["false"]))
        self.assertTrue(wait_until(lambda: not any(map(self.cluster.registry.pid, ("prometheus", "etcd"))), 20))
        with self.assertRaisesRegex(console.Failure, "prometheus has ended"):
            self.cluster._wait("kubelet", lambda: self.fail("asked of a cluster that has ended"), 60)

    def test_a_part_that_is_not_ready_in_time_is_named_with_the_end_of_its_log(self):
        self.cluster._ensure(Part("kubelet", ["sh", "-c", "echo waiting; sleep 1000"]))
        log = self.cluster.layout.logs / "kubelet.log"
        self.cluster._wait("kubelet", lambda: log.read_text() == "waiting\n", 20)
        with self.assertRaisesRegex(console.Failure, r"kubelet did not become ready in 0 s(.|\n)*waiting"):
            self.cluster._wait("kubelet", lambda: False, 0)


if __name__ == "__main__":
    unittest.main()
