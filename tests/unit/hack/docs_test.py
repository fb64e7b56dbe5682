"""Every relative link of the documentation leads to a file, and every page is reachable from docs/README.md."""

import re
import unittest
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def links(page: Path):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    return [target for target in _LINK.findall(text) if "://" not in target]


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


if __name__ == "__main__":
    unittest.main()
