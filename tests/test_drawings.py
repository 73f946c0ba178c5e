# SPDX-License-Identifier: MIT
"""The pictures of README and docs can be drawn from what the code answers today."""

import pytest

from benchmarks import drawings, learning
from tests.support.documentation import ROOT

DRAWN = {**drawings.PICTURES, "learning": learning.draw}


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_is_drawn(name, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    DRAWN[name]().savefig(tmp_path / "picture.png", dpi=30)
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert (ROOT / "docs" / "images" / f"{name}.png").is_file()


def test_the_ring_shows_a_row_of_every_kind():
    (axes,) = drawings.draw_ring().axes
    names = [text.get_text() for text in axes.texts]
    assert [names.count(frame) for frame in ("a3", "a4", "a5")] == [2, 2, 3]  # And in the stacks.
    assert {label for label, _ in drawings.KINDS.values()} <= set(names)
