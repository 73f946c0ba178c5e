# SPDX-License-Identifier: MIT
"""What README and docs tell their readers to type, and where they send them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
NOTES = (*sorted((ROOT / "docs").glob("*/*.md")), ROOT / "benchmarks" / "RESULTS.md")

# An indented block that begins with one of them is for a shell; others are drawings and trees.
PROGRAMS = {
    "cd", "chmod", "export", "kubectl", "make", "pip", "python", "ray", "rllib-per", "sbatch",
    "ssh",
}  # fmt: skip
SHELLS = {"bash", "console", "sh"}

_ASSIGNMENT = re.compile(r"[A-Z_]+=")
_SEPARATORS = {"&&", "||", "|", ";"}


@dataclass(frozen=True)
class Command:
    """One command of a page, as a shell would see it.

    Attributes:
        page: Where it stands.
        words: The program and its arguments.
        shown: Lines that the page shows as its output.
    """

    page: Path
    words: tuple[str, ...]
    shown: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.page.stem}: {shlex.join(self.words)[:80]}"


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[tuple[str, list[str]]]:
    """(language, lines) of every code block; indented ones have the language ""."""
    language, lines, was_blank = None, [], True
    for line in [*page.read_text(encoding="utf-8").splitlines(), "```end"]:
        fence = re.match(r"```(\w*)", line)
        if language:
            if fence:
                yield language, lines
                language, lines = None, []
            else:
                lines.append(line)
        elif line.startswith("    ") and (lines or was_blank):
            lines.append(line[4:])
        else:
            if lines:
                yield "", lines
                lines = []
            if fence:
                language = fence[1] or "text"
        was_blank = not line.strip()


def files() -> dict[str, str]:
    """The files that pages have their readers write: blocks that begin with `# name.py`, say."""
    found: dict[str, str] = {}
    for page in PAGES:
        for _, lines in blocks(page):
            named = re.fullmatch(r"# (\w+\.(?:py|yaml))", lines[0])
            if named:
                assert named[1] not in found, named[1]
                found[named[1]] = "\n".join(lines) + "\n"
    return found


def commands() -> list[Command]:
    """All commands of all pages, those that a remote shell is given among them."""
    return [
        Command(page, words, shown)
        for page in PAGES
        for language, lines in blocks(page)
        if language in SHELLS or (language == "" and _program(lines[0]) in PROGRAMS)
        for line, shown in _lines(lines, language)
        for words in _split(line)
    ]


def inline_commands() -> list[Command]:
    """Commands within sentences: of ours and of make."""
    return [
        Command(page, tuple(shlex.split(code)))
        for page in PAGES
        for code in re.findall(r"`((?:rllib-per|make) [^`]+)`", page.read_text(encoding="utf-8"))
    ]


def _program(line: str) -> str:
    return next((word for word in line.split() if not _ASSIGNMENT.match(word)), "")


def _lines(lines: list[str], language: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Logical lines, each with the output that is shown of it."""
    line, shown = "", []
    for number, physical in enumerate([*lines, None]):
        is_console = language == "console"
        is_open = bool(line) and not _is_complete(line)
        if physical is not None and is_open:
            line += "\n" + physical
        elif physical is not None and is_console and not physical.startswith("$ "):
            assert number, f"an example of a console begins with a command: {lines}"
            shown.append(physical)
        else:
            if line:
                yield line.replace("\\\n", " "), tuple(shown)
            line, shown = (physical or "").removeprefix("$ "), []


def _is_complete(line: str) -> bool:
    try:
        shlex.split(line)
    except ValueError:  # A quote is open.
        return False
    return not line.endswith("\\")


def _split(line: str) -> Iterator[tuple[str, ...]]:
    """The commands of one line, without redirections and assignments."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    redirects = False
    for word in [*lexer, ";"]:
        if word in _SEPARATORS:
            if words:
                yield from _with_nested(tuple(words))
            words = []
        elif word in (">", ">>", "<"):
            redirects = True
        elif redirects:
            redirects = False
        elif words or not _ASSIGNMENT.match(word):
            words.append(word)


def _with_nested(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """A command, and the one that it has run elsewhere."""
    yield words
    if words[:2] == ("ray", "exec"):
        yield from _split(words[-1].replace("\n", " "))
    elif "--" in words:
        yield words[words.index("--") + 1 :]


# -- links -------------------------------------------------------------------------------------


def links(page: Path) -> list[str]:
    """Targets of all links and pictures outside of code."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.findall(r"\]\(([^()\s]+)\)", text)


def anchors(page: Path) -> set[str]:
    """The ids that GitHub gives a page's headings."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    found: dict[str, int] = {}
    for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).replace("`", "").strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found[anchor] = found.get(anchor, -1) + 1
    return {f"{anchor}-{n}" if n else anchor for anchor, m in found.items() for n in range(m + 1)}
