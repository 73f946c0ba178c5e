# SPDX-License-Identifier: MIT
"""The tables of docs/rllib_compatibility.md that say what is called, has an effect, or is refused.

`python -m tests.called.tables` writes them; test_tables.py compares.
"""

import re
from collections import defaultdict
from pathlib import Path

from rllib_per.settings.refused import OF_RLLIBS_RUNNER, REFUSED
from tests.called import verdicts
from tests.called.rllibs_programs import (
    DQN_PROGRAMS,
    FAILS_ANYWAY,
    NOT_IN_THIS_RLLIB,
    SAC_PROGRAMS,
    TRAINS,
)
from tests.called.test_result_keys import EXCEPT

PAGE = Path(__file__).parents[2] / "docs" / "rllib_compatibility.md"

_METHODS = (
    ("called", verdicts.CALLED),
    ("slower path", verdicts.SLOWER_PATH),
    ("refused", verdicts.REFUSED_TO_OVERRIDE),
    ("called by RLlib's actors, restores and users", verdicts.CALLED_BY_OTHERS),
    ("RLlib's DQN does not call them either", verdicts.NOT_CALLED_BY_RLLIB),
)


def _shown(names):
    return ", ".join(
        f"`{name}`" for name in sorted(names, key=lambda name: (name.lstrip("_"), name))
    )


def _table(header, rows):
    lines = [" | ".join(header), " | ".join("---" for _ in header), *map(" | ".join, rows)]
    return "\n".join(f"| {line} |" for line in lines)


def methods():
    rows = [
        (f"`{kind}`", verdict, _shown(table[kind]))
        for kind in verdicts.CALLED
        for verdict, table in _METHODS
        if kind in table
    ]
    return _table(("overridden in", "what becomes of it", "methods"), rows)


def settings():
    by_reason = defaultdict(list)
    for name, why in (REFUSED | OF_RLLIBS_RUNNER).items():
        by_reason[why].append(name)
    rows = [(_shown(names), why) for why, names in by_reason.items()]
    return _table(("setting", "refused, as it"), sorted(rows, key=lambda row: -len(row[0])))


def result_keys():
    return _table(
        ("keys of RLlib's results with", "are not in ours:"),
        [(f"`{part}`", why) for part, why in EXCEPT.items()],
    )


def _verdict(verdict):
    if verdict in (None, TRAINS, FAILS_ANYWAY, NOT_IN_THIS_RLLIB):
        return verdict or ""
    return "refused"


def programs():
    rows = [
        (each.shown, _verdict(each.word), _verdict(each.buffer), each.because)
        for each in (*DQN_PROGRAMS, *SAC_PROGRAMS)
    ]
    header = ("RLlib's program", "with one word changed", "with only the buffer changed", "why")
    return _table(header, rows)


TABLES = {
    "methods": methods,
    "settings": settings,
    "result keys": result_keys,
    "programs": programs,
}


def written(page):
    """`page` with all tables as they are to be."""
    for name, make in TABLES.items():
        pattern = rf"(<!-- table: {name} -->\n).*?(\n<!-- end -->)"
        assert re.search(pattern, page, re.DOTALL), f"{PAGE.name} has no table of {name}"
        table = make()
        page = re.sub(pattern, lambda m, t=table: m[1] + t + m[2], page, flags=re.DOTALL)
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
