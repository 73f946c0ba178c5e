# SPDX-License-Identifier: MIT
"""What the pictures of MinAtar show is what was run."""

import numpy as np
import pytest

from benchmarks.aggregates import MINATAR_SCORES, normalised
from benchmarks.minatar_pictures import COLORS, UNIFORM, draw_curves, draw_returns
from benchmarks.minatar_results import NAMES, Results, length_of_picture
from benchmarks.suite import VARIANTS
from rllib_per.experiments.experiment import load_experiment
from tests.support.documentation import ROOT
from tests.support.kept_runs import write_seeds

GAMES = ("breakout", "asterix", "space_invaders")
GREEDY = (3.0, 4.0, 8.0)
CURVES = ((0.0, 1.0), (0.0, 2.0), (3.0, 9.0))


@pytest.fixture
def results(tmp_path):
    """Of `base` and `per` in all games; of `rainbow` in one, which is not shown."""
    for game in GAMES:
        write_seeds(tmp_path, game, "base", *zip(GREEDY, CURVES, strict=True))
        write_seeds(tmp_path, game, "per", *[(value + 1, (5.0, 5.0)) for value in GREEDY])
    write_seeds(tmp_path, "breakout", "rainbow", (1.0, (1.0, 1.0)))
    return Results(tmp_path)


def points(axes, marker):
    return [line.get_xdata() for line in axes.get_lines() if line.get_marker() == marker]


def test_a_picture_is_of_the_length_with_the_most_whole_variants(results, tmp_path):
    assert length_of_picture(Results(tmp_path / "empty")) is None
    assert length_of_picture(results) == "500k"


def test_greedy_returns_of_all_seeds_and_their_means(results):
    *panels, aggregate = draw_returns(results, "500k").axes
    assert [axes.get_title() for axes in panels] == ["breakout", "asterix", "space invaders"]
    labels = [label.get_text() for label in panels[0].get_yticklabels()]
    assert labels == [NAMES["base"], NAMES["per"]]
    for axes, game in zip(panels, GAMES, strict=True):
        assert [list(x) for x in points(axes, "o")] == [[3, 4, 8], [4, 5, 9]]
        means = [x[0] for x in points(axes, "None") if x[0] == x[1]][:2]
        assert means == [5, 6]
        lines = {line.get_label(): line for line in axes.get_lines()}
        random, dqn = MINATAR_SCORES[game]
        assert lines["random play"].get_xdata()[0] == random
        assert lines["DQN, 5M env steps, ε = 0.1"].get_xdata()[0] == dqn
    values = sorted(normalised(game, value) for game in GAMES for value in GREEDY)
    assert points(aggregate, "o")[0] == pytest.approx(np.mean(values[2:-2]))
    (low, high), *_ = points(aggregate, "None")
    assert low < np.mean(values[2:-2]) < high


def test_training_curves_of_all_seeds_and_their_mean(results):
    *panels, profile = draw_curves(results, "500k").axes
    for axes in panels:
        lines = axes.get_lines()
        drawn = [list(line.get_ydata()) for line in lines[:4]]
        assert drawn == [*map(list, CURVES), [1, 4]]
        assert [line.get_xdata()[-1] for line in lines[:4]] == [40_000] * 4
        assert lines[3].get_linestyle() == "--"
        assert lines[7].get_linestyle() == "-"
    uniform, prioritized = profile.get_lines()
    assert uniform.get_ydata()[0] == 1
    assert uniform.get_ydata()[-1] == 0
    assert prioritized.get_ydata().sum() > uniform.get_ydata().sum()


def test_colors_and_dashes_say_what_is_prioritized():
    assert COLORS.keys() == VARIANTS.keys()
    for variant, (config, settings) in VARIANTS.items():
        is_uniform = load_experiment(ROOT / config, settings).replay.type == "uniform"
        assert is_uniform == (variant in UNIFORM)
    styles = [(color, variant in UNIFORM) for variant, color in COLORS.items()]
    assert len(set(styles)) == len(styles)
