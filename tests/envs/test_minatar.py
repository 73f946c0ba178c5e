# SPDX-License-Identifier: MIT
import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import rllib_per.envs  # noqa: F401  (registers them)
from rllib_per.envs.minatar import GAMES, MinAtarGame


@pytest.mark.parametrize("game", GAMES)
def test_a_game_keeps_gymnasiums_contract(game):
    check_env(MinAtarGame(game=game), skip_render_check=True)


def test_planes_come_first_and_are_black_and_white():
    env = gym.make("rllib_per/MinAtar-v1", game="breakout")
    obs, _ = env.reset(seed=1)
    assert obs.shape == (4, 10, 10)
    assert set(np.unique(obs)) == {0, 255}


def test_the_same_seed_plays_the_same_game():
    def play():
        env = MinAtarGame(game="space_invaders")
        frames = [env.reset(seed=5)[0]]
        frames += [env.step(t % env.action_space.n)[0] for t in range(50)]
        return np.stack(frames)

    np.testing.assert_array_equal(play(), play())


def test_a_restored_generator_plays_the_same_next_games():
    def play(env):
        frames = [env.reset()[0]]
        frames += [env.step(t % env.action_space.n)[0] for t in range(50)]
        return np.stack(frames)

    games = [MinAtarGame(game="space_invaders") for _ in range(2)]
    games[0].reset(seed=5)
    games[1].np_random = np.random.default_rng()
    games[1].np_random.bit_generator.state = games[0].np_random.bit_generator.state
    first = [play(game) for game in games]
    np.testing.assert_array_equal(*first)
    assert not np.array_equal(play(games[0]), first[0])


def test_a_game_that_does_not_exist_is_named_with_its_nearest():
    with pytest.raises(ValueError, match="did you mean 'breakout'"):
        MinAtarGame(game="braekout")


def test_the_board_is_drawn():
    env = MinAtarGame(game="freeway", render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert picture.shape == (240, 240, 3)
    assert picture.max() > 0
