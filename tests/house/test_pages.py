"""The pages: their links lead somewhere, the files that they name are there, and docs/README.md knows them all."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("docs/*/*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
FILE = re.compile(r"(?<![\w./-])((?:[\w-]+/)+[\w-]+\.(?:py|md))\b")
HISTORY = "CHANGELOG.md"  # names files as they were


def slugs(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_files_are_there(page: Path) -> None:
    text, lost = page.read_text(), []
    for link in LINK.findall(text):
        target, _, anchor = link.partition("#")
        if "://" in link:
            continue
        to = page.parent / target if target else page
        if not to.exists() or (anchor and anchor not in slugs(to)):
            lost.append(link)
    if page.name != HISTORY:
        places = ROOT, page.parent
        lost += [name for name in FILE.findall(text) if not any((place / name).exists() for place in places)]
    assert lost == []
    assert "@@" not in text, "a place that was to be filled in"


def test_the_page_of_pages_names_every_page() -> None:
    named = set(LINK.findall((ROOT / "docs" / "README.md").read_text()))
    assert {page.name for page in ROOT.glob("docs/*.md")} - {"README.md"} <= named
