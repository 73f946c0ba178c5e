# SPDX-License-Identifier: MIT
"""The experiments that come with the package: the repository's `configs`, installed with it."""

from __future__ import annotations

import difflib
import re
from importlib.resources import files
from pathlib import Path

import yaml

from rllib_per.extras import missing

# Files for clusters are read by other programs.
_NOT_EXPERIMENTS = ("cluster",)

_END_OF_TITLE = re.compile(r"(?<! al)\. |: |; |, with")


def shipped_names() -> list[str]:
    """What `train` and `tune` take for a file: `cartpole`, `atari/pong_small`, `tune/cartpole`."""
    folder = _folder()
    paths = (path.relative_to(folder) for path in sorted(folder.glob("**/*.yaml")))
    names = [path.with_suffix("").as_posix() for path in paths]
    return sorted((name for name in names if _parent(name) not in _NOT_EXPERIMENTS), key=_order)


def shipped_file(name: str) -> Path:
    """The file of a name.

    Raises:
        FileNotFoundError: There is none; the message has the names that may have been meant.
    """
    names = shipped_names()
    if name in names:
        return _folder() / f"{name}.yaml"
    wanted = Path(name).stem
    near = [known for known in names if known.rpartition("/")[2] == wanted]
    near = near or difflib.get_close_matches(name, names, n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise FileNotFoundError(
        f"{name} is neither a file nor the name of an experiment that comes with rllib-per; "
        f"{hint}`rllib-per list` shows all names"
    )


def pretrained(name: str) -> Path:
    """The archive of a policy that comes with the package, for `evaluate` and `play`.

    Raises:
        FileNotFoundError: There is none; the message lists those there are.
    """
    folder = Path(str(files("rllib_per") / "pretrained"))
    path = folder / f"{name}.zip"
    if name not in [known.stem for known in folder.glob("*.zip")]:
        known = ", ".join(sorted(path.stem for path in folder.glob("*.zip")))
        raise FileNotFoundError(f"no policy of {name} comes with rllib-per: there is {known}")
    return path


def title_of(name: str) -> str:
    """The first sentence of the comment at the top of a shipped file."""
    lines = []
    for line in shipped_file(name).read_text(encoding="utf-8").splitlines():
        if not line.startswith("# "):
            break
        lines.append(line.removeprefix("# "))
    return _END_OF_TITLE.split(" ".join(lines), maxsplit=1)[0].removesuffix(".")


def missing_extra(name: str) -> str | None:
    """An extra that a shipped file needs, and that is not installed here."""
    from rllib_per.experiments.needs import needed_extras

    data = yaml.safe_load(shipped_file(name).read_text(encoding="utf-8"))
    return next((extra for extra in needed_extras(data) if missing(extra)), None)


def _folder() -> Path:
    return Path(str(files("rllib_per") / "configs"))


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def _order(name: str) -> tuple[bool, str]:
    """Those at the top first."""
    return "/" in name, name
