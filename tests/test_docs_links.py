# SPDX-License-Identifier: MIT
"""Where README and docs send their readers, there is something."""

from urllib.parse import urlsplit

import pytest

from tests.support.documentation import NOTES, PAGES, ROOT, anchors, links, name_of

ALL = (*PAGES, *NOTES)


def is_external(link):
    return "://" in link


@pytest.mark.parametrize("page", ALL, ids=name_of)
def test_a_link_leads_to_a_file_of_the_repository_and_a_heading_in_it(page):
    wrong = []
    for link in links(page):
        if is_external(link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        is_there = target.exists() and ROOT in target.parents
        if not is_there or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert wrong == []


@pytest.mark.parametrize("page", ALL, ids=name_of)
def test_a_link_to_the_outside_is_a_secure_address(page):
    for link in filter(is_external, links(page)):
        address = urlsplit(link)
        assert address.scheme == "https", link
        assert "." in address.netloc, link


def test_every_page_is_in_the_index_and_linked_from_the_readme():
    pages = {page.name for page in PAGES if page.parent.name == "docs"} - {"README.md"}
    assert pages <= set(links(ROOT / "docs" / "README.md"))
    assert {f"docs/{name}" for name in pages} <= set(links(ROOT / "README.md"))


def test_every_decision_is_in_their_index():
    folder = ROOT / "docs" / "decisions"
    notes = {path.name for path in folder.glob("[0-9]*.md")}
    assert notes <= set(links(folder / "README.md"))


def test_every_picture_is_shown_somewhere():
    shown = {(page.parent / link).resolve() for page in ALL for link in links(page)}
    pictures = set((ROOT / "docs" / "images").iterdir())
    assert {path.name for path in pictures - shown} == set()


def test_what_is_wrong_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A `b` c!\n\n## Two\n\n## Two\n\n[x](gone.md#y) `[no](link)` ![p](p.png)\n")
    assert links(page) == ["gone.md#y", "p.png"]
    assert anchors(page) == {"a-b-c", "two", "two-1"}
