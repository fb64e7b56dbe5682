"""hack/bench's arithmetic and its command line; not its figures."""

import subprocess
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "hack" / "lib"))
from quern_dev.bench import measure, report, workloads  # noqa: E402

LIMITS = {"read": 40e9, "int8": 800e9}
FACTS = {"weight_bytes": 200_000_000, "parameters": 100_000_000, "head_parameters": 60_000_000}


def figure(quern, peer, **changes):
    chosen = dict(model=workloads.GEMMA, phase="decode", batch=1, prompt=128, generate=64, at_least=1.5, limit="read", of_limit=0.8)
    return measure.Figure(workloads.Workload(**{**chosen, **changes}), quern=quern, peer=peer, setting=measure.Setting(2, True, 512),
                          facts=FACTS)


class ReportTest(unittest.TestCase):
    def test_the_memorys_limit_is_one_reading_of_the_weights_a_step(self):
        row = report.row_of(figure([150, 170, 160], [80, 90, 100]), LIMITS)
        self.assertEqual((row["quern"], row["peer"], row["cap"]), (160, 90, 200))
        self.assertAlmostEqual(row["ratio"], 160 / 90)
        self.assertAlmostEqual(row["of_limit"], 0.8)
        self.assertAlmostEqual(row["spread"]["quern"], 10 / 160)
        self.assertTrue(row["met"])

    def test_both_targets_must_be_met(self):
        self.assertFalse(report.row_of(figure([160], [110]), LIMITS)["met"])  # 1.45 times
        self.assertFalse(report.row_of(figure([159], [80]), LIMITS)["met"])  # 79.5 % of the limit
        self.assertIsNone(report.row_of(figure([159], [80], at_least=None, limit=None, of_limit=None), LIMITS)["met"])

    def test_a_prompt_needs_no_head_and_a_decoded_token_does(self):
        prefill = report.row_of(figure([1], [1], phase="prefill", limit="int8"), LIMITS)
        decode = report.row_of(figure([1], [1], batch=32, limit="int8"), LIMITS)
        self.assertEqual((prefill["cap"], decode["cap"]), (10_000, 4_000))

    def test_the_roof_is_the_lower_of_both_limits(self):
        self.assertEqual(report.roof(figure([1], [1]), LIMITS), 200)
        self.assertEqual(report.roof(figure([1], [1], batch=32), LIMITS), 4_000)

    def test_a_machine_without_vnni_has_no_share_of_it(self):
        row = report.row_of(figure([1], [1], limit="int8"), {"read": 1.0})
        self.assertIsNone(row["of_limit"])
        self.assertIn("| – |", report.comparison([row]))

    def test_tables_say_what_is_beside_what(self):
        text = report.comparison([report.row_of(figure([150, 170, 160], [80, 90, 100]), LIMITS)])
        self.assertIn("| Gemma 3 270M Q4_K_M | decode, batch 1 | 160.0 ± 6% | 90.0 ± 11% | 1.78 | 80% of read (200) | ≥ 1.5, 80% | yes | "
                      "`-t 2 -fa on -ub 512` |", text)

    def test_what_other_processes_leave(self):
        row = report.shared_row(figure([100], [80]), figure([45], [4]))
        self.assertEqual((row["quern"]["share"], row["peer"]["share"]), (0.45, 0.05))
        self.assertIn("45.0 of 100.0 (45%) | 4.0 of 80.0 (5%)", report.shared([row]))

    def test_every_table_has_its_place_in_the_page(self):
        page = (ROOT / "docs" / "performance.md").read_text()
        for name in ("forward", "clients", "shared", "start", "memory", "machine", "batches", "load"):
            self.assertIn(f"<!-- bench:{name} -->\n", page)


class SweepTest(unittest.TestCase):
    def test_every_setting_is_tried_once(self):
        tried = measure.settings(2)
        self.assertEqual(len(tried), len(set(tried)))
        self.assertEqual({one.threads for one in tried}, {1, 2})
        self.assertEqual({one.threads for one in measure.settings(1)}, {1})


class CommandLineTest(unittest.TestCase):
    def refused(self, *arguments):
        done = subprocess.run([ROOT / "hack" / "bench", *arguments], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 2)
        return done.stderr.splitlines()[-1]

    def test_wrong_options_are_refused_with_what_is_right(self):
        self.assertIn("at least 1", self.refused("--rounds", "0"))
        self.assertIn("leave out --quick", self.refused("--write", "--quick"))
        self.assertIn("invalid choice: 'nothing'", self.refused("--only", "nothing"))


if __name__ == "__main__":
    unittest.main()
