"""What hack/test counts from the result files of ctest and pytest."""

import sys
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "hack" / "lib"))
from quern_dev.counting import Counts, count_ctest  # noqa: E402


def case(name, status, inner=""):
    return f'<testcase name="{name}" status="{status}">{inner}</testcase>'


class Counting(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.root = Path(self.directory.name)

    def count(self, *cases):
        (self.root / "ctest.xml").write_text(f"<testsuite>{''.join(cases)}</testsuite>")
        return count_ctest(self.root / "ctest.xml", self.root)

    def test_each_ctest_state_is_counted_as_what_it_is(self):
        counts = self.count(
            case("good", "run"), case("bad", "fail", "<failure message=''/>"),
            case("absent", "notrun", "<skipped message='Unable to find executable'/>"),
            case("skips", "notrun", "<skipped message='SKIP_REGULAR_EXPRESSION_MATCHED'/>"), case("off", "disabled"))
        self.assertEqual((counts.passed, counts.failed, counts.skipped), (1, 2, 2))
        self.assertEqual(counts.failures, ["bad", "absent"])

    def test_pytest_entries_count_as_the_tests_inside(self):
        (self.root / "e2e.xml").write_text(
            "<testsuites><testsuite><testcase classname='a.T' name='one'/><testcase classname='a.T' name='two'>"
            "<failure/></testcase><testcase classname='a.T' name='three'><skipped/></testcase><testcase classname='a.T' "
            "name='four'><failure message='AssertionError: 3&#10;  is not 4'/></testcase></testsuite></testsuites>")
        counts = self.count(case("pytest.e2e", "fail"))
        self.assertEqual(str(counts), "1 passed, 2 failed, 1 skipped")
        self.assertEqual(counts.failures, ["pytest.e2e: T.two", "pytest.e2e: T.four: AssertionError: 3 is not 4"])

    def test_an_entry_that_crashed_after_its_tests_passed_is_a_failure(self):
        (self.root / "e2e.xml").write_text("<testsuite><testcase classname='a' name='one'/></testsuite>")
        self.assertEqual(str(self.count(case("pytest.e2e", "fail"))), "1 passed, 1 failed")

    def test_a_pytest_entry_without_results_counts_as_itself(self):
        self.assertEqual(str(self.count(case("pytest.e2e", "fail"))), "0 passed, 1 failed")

    def test_counts_print_as_the_closing_line(self):
        self.assertEqual(str(Counts(passed=3)), "3 passed, 0 failed")


if __name__ == "__main__":
    unittest.main()
