"""Every relative link of the documentation leads to a file, and every page is reachable from docs/README.md."""

import re
import unittest
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def links(page: Path):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    return [target for target in _LINK.findall(text) if "://" not in target]


def rows(page: str, section: str):
    """The cells of a section's tables, without their heads."""
    text = re.search(rf"^## {section}$(.*?)(?=^## |\Z)", page, re.M | re.S).group(1)
    lines = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line] for line in lines[1:]]


class Documentation(unittest.TestCase):
    def test_every_relative_link_leads_to_a_file(self):
        pages = [*REPO.glob("*.md"), *(REPO / "docs").rglob("*.md")]
        self.assertGreater(len(pages), 5)
        broken = [f"{page.relative_to(REPO)}: {target}" for page in pages for target in links(page)
                  if not (page.parent / target).exists()]
        self.assertEqual(broken, [])

    def test_every_page_is_linked_from_the_index(self):
        listed = {(REPO / "docs" / target).resolve() for target in links(REPO / "docs" / "README.md")}
        missing = [page.name for page in (REPO / "docs").rglob("*.md") if page.resolve() not in listed and page.name != "README.md"]
        self.assertEqual(missing, [])

    def test_the_read_me_s_first_screen_has_both_commands(self):
        first_screen = "\n".join((REPO / "README.md").read_text().splitlines()[:25])
        for command in ("hack/demo", "hack/test"):
            self.assertIn(command, first_screen)

    def test_no_placeholder_is_left(self):
        for page in [*REPO.glob("*.md"), *(REPO / "docs").rglob("*.md")]:
            self.assertNotRegex(page.read_text(), r"(?m)@[A-Z_]{3,}@|\bTODO\b|\bFIXME\b|^[A-Z_]{6,}$", page.name)

    def test_the_runtime_s_tables_have_every_series_and_reason(self):
        """What /metrics shows is pinned by the golden file; the table of metrics and that of limits follow it."""
        page = (REPO / "docs" / "quern-serve.md").read_text()
        golden = [line.split() for line in (REPO / "tests/contract/runtime/metrics.golden").read_text().splitlines()]
        self.assertGreater(len(golden), 50)
        listed = {}
        for first, kind, _ in rows(page, "Metrics"):
            listed |= dict.fromkeys(re.findall(r"`(quern_\w+)`", first), kind)
        self.assertEqual(listed, {line[0]: line[1] for line in golden})
        monitoring = (REPO / "docs" / "monitoring.md").read_text()
        self.assertEqual([line[0] for line in golden if f"`{line[0]}" not in monitoring], [])
        reasons = {reason for first, *_ in rows(page, "Limits") for reason in re.findall(r"`(\w+)`", first)}
        counted = {line[3].removeprefix("reason=") for line in golden if line[0] == "quern_requests_rejected_total"}
        self.assertEqual(reasons, counted)


if __name__ == "__main__":
    unittest.main()
