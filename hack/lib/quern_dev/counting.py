"""Counts tests from the JUnit files that ctest and pytest write."""

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path


_WHY_CHARACTERS = 300


@dataclass
class Counts:
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    failures: list = field(default_factory=list)  # names, with why where that is known

    def __add__(self, other):
        return Counts(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped,
                      self.failures + other.failures)

    def total(self) -> int:
        return self.passed + self.failed + self.skipped

    def __str__(self):
        return f"{self.passed} passed, {self.failed} failed" + (f", {self.skipped} skipped" if self.skipped else "")


def _pytest_counts(path: Path, entry: str) -> Counts:
    counts = Counts()
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name = f"{entry}: {case.get('classname', '').split('.')[-1]}.{case.get('name')}"
        found = [reason for kind in ("failure", "error") if (reason := case.find(kind)) is not None]
        if found:
            why = " ".join(found[0].get("message", "").split())[:_WHY_CHARACTERS]
            counts += Counts(failed=1, failures=[f"{name}: {why}" if why else name])
        elif case.find("skipped") is not None:
            counts += Counts(skipped=1)
        else:
            counts += Counts(passed=1)
    return counts


def count_ctest(junit: Path, inner: Path) -> Counts:
    """The tests in a JUnit file of ctest. An entry "pytest.X" counts as the tests in inner/X.xml, when it wrote that.

    An entry that failed though no test inside did (a crash, a time limit) counts as one failure more. A missing or
    broken file is the caller's to judge: it raises OSError or ParseError.
    """
    counts = Counts()
    for case in ElementTree.parse(junit).getroot().iter("testcase"):
        name, status = case.get("name"), case.get("status")
        ok = status == "run"
        reason = case.find("skipped")
        skipped = status == "disabled" or (reason is not None and "SKIP" in reason.get("message", "").upper())
        if name.startswith("pytest.") and (inner / f"{name[7:]}.xml").exists():
            own = _pytest_counts(inner / f"{name[7:]}.xml", name)
            if not ok and not own.failed:
                own += Counts(failed=1, failures=[f"{name} ended badly though none of its tests failed"])
            counts += own
        elif ok:
            counts += Counts(passed=1)
        elif skipped:
            counts += Counts(skipped=1)
        else:
            counts += Counts(failed=1, failures=[name])
    return counts
