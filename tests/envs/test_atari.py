# SPDX-License-Identifier: MIT
import gymnasium as gym
import numpy as np
import pytest

from rllib_per.envs.atari import AtariGames, find_game
from rllib_per.replay import Fragment
from rllib_per.runners.env_runner import ApexEnvRunner
from tests.support.counting_env import runner_config


def play(env, num_steps, seed=0):
    """Yields (observations before, row, info before, info) under random actions."""
    rng = np.random.default_rng(seed)
    obs, info = env.reset(seed=seed)
    for _ in range(num_steps):
        row = env.step(rng.integers(env.single_action_space.n, size=env.num_envs))
        yield obs, row, info, row[4]
        obs, info = row[0], row[4]


def episode_frames(info):
    return info["episode_frame_number"].astype(int)


# Adventure ends with its life left, Pong has none.
@pytest.mark.parametrize(
    ("game", "cap"),
    [("breakout", 4000), ("pong", 4000), ("adventure", 18_000), ("seaquest", 300)],
)
def test_the_game_is_over_exactly_where_the_emulator_resets_next(game, cap):
    env = AtariGames(4, game=game, frame_size=(20, 20), max_frames_per_episode=cap)
    over, num_resets = np.zeros(4, bool), 0
    for _, row, info_before, info in play(env, 1100, seed=2):
        went_on = episode_frames(info) > episode_frames(info_before)
        np.testing.assert_array_equal(went_on, ~over)
        num_resets += int(over.sum())
        # Nothing else than the end of a game or of a life is flagged.
        over, flagged = env.episodes_over, row[2] | row[3]
        assert (flagged | ~over).all()
    assert num_resets >= 1


def until_a_life_is_lost(**settings):
    """Fires until then; the environment, its steps, and the infos of the last."""
    env = AtariGames(1, game="Breakout", frame_size=(20, 20), noop_max=0, **settings)
    env.reset(seed=0)
    num_steps, terminated = 0, np.zeros(1, bool)
    while not terminated[0]:
        _, _, terminated, _, info = env.step(np.array([1]))
        num_steps += 1
    return env, num_steps, info


def test_a_life_lost_on_the_very_step_of_the_frame_cap_ends_the_game_too():
    env, num_steps, info = until_a_life_is_lost()
    assert not env.episodes_over[0]
    assert episode_frames(env.step(np.array([1]))[4]) > episode_frames(info)
    env, _, info = until_a_life_is_lost(max_frames_per_episode=4 * num_steps)
    assert info["lives"][0] > 0
    assert env.episodes_over[0]
    assert episode_frames(env.step(np.array([1]))[4]) < episode_frames(info)


def test_a_lost_life_ends_the_value_but_not_the_frames():
    env, num_lost = AtariGames(2, game="Breakout", frame_size=(20, 20)), 0
    for before, (obs, _, terminated, _, info), info_before, _ in play(env, 400):
        lost = (info["lives"] < info_before["lives"]) & (info["lives"] > 0)
        assert terminated[lost].all()
        assert not env.episodes_over[lost].any()
        np.testing.assert_array_equal(obs[lost, :-1], before[lost, 1:])
        num_lost += int(lost.sum())
    assert num_lost > 4


def test_in_whole_games_a_lost_life_is_nothing():
    env = AtariGames(2, game="Breakout", protocol="machado2018", frame_size=(20, 20))
    for _, (_, _, terminated, truncated, _), _, _ in play(env, 500):
        np.testing.assert_array_equal(terminated | truncated, env.episodes_over)


def test_rewards_are_not_clipped():
    env = AtariGames(4, game="SpaceInvaders", frame_size=(20, 20))
    rewards = np.concatenate([row[1] for _, row, _, _ in play(env, 400)])
    assert {5, 10} <= set(rewards.tolist())


def test_the_frame_cap_truncates():
    env = AtariGames(2, game="pong", frame_size=(20, 20), max_frames_per_episode=400)
    truncations = sum(row[3].sum() for _, row, _, _ in play(env, 210))
    # 100 steps of 4 frames and a reset row, twice over, in each game.
    assert truncations == 4
    assert not any(row[2].any() for _, row, _, _ in play(env, 210))


def test_protocols_differ_in_what_their_papers_say():
    mnih, machado = (
        AtariGames(2, game="pong", protocol=name, frame_size=(20, 20))
        for name in ("mnih2015", "machado2018")
    )
    assert mnih.single_action_space.n == 6
    assert machado.single_action_space.n == 18
    # No-op starts against none.
    assert len(set(episode_frames(mnih.reset(seed=0)[1]))) == 2
    np.testing.assert_array_equal(episode_frames(machado.reset(seed=0)[1]), 0)


def test_sticky_actions_make_the_same_actions_come_out_differently():
    def last_frames(sticky, seed):
        env = AtariGames(1, game="pong", noop_max=0, sticky_actions=sticky, fire_reset=False)
        env.reset(seed=seed)
        return [env.step(np.array([2 + t // 5 % 2]))[0] for t in range(60)][-1]

    np.testing.assert_array_equal(last_frames(0.0, 1), last_frames(0.0, 2))
    assert (last_frames(0.25, 1) != last_frames(0.25, 2)).any()


def test_sizes_stacks_and_seeds_are_what_was_asked_for():
    env = AtariGames(3, game="pong", frame_size=(105, 80), frame_stack=2)
    obs, _ = env.reset(seed=[7, 8, 2**32 - 1])
    assert obs.shape == (3, 2, 105, 80)
    assert env.frame_stack.size == 2
    again, _ = env.reset(seed=[7, 8, 2**32 - 1])
    np.testing.assert_array_equal(obs, again)


@pytest.mark.parametrize("seed", [7, 2**31 - 1, 2**32 - 1])
def test_one_seed_is_that_of_the_first_game_and_the_next_are_those_of_the_others(seed):
    env = AtariGames(2, game="breakout", noop_max=30)
    frames = episode_frames(env.reset(seed=seed)[1])
    np.testing.assert_array_equal(frames, episode_frames(env.reset(seed=[seed, seed + 1])[1]))


def test_screens_are_of_the_same_games():
    env = AtariGames(2, game="Breakout", render_mode="rgb_array", sticky_actions=0.25)
    screens = AtariGames(
        2, game="Breakout", sticky_actions=0.25, frame_size=(210, 160), frame_stack=1
    )
    rows, twins = play(env, 300, seed=3), play(screens, 300, seed=3)
    for (_, _, _, info), (_, twin, _, twin_info) in zip(rows, twins, strict=True):
        np.testing.assert_array_equal(info["frame_number"], twin_info["frame_number"])
        for colour, grey in zip(env.render(), twin[0][:, 0], strict=True):
            assert colour.shape == (210, 160, 3)
            # Luminance weighs red, green and blue.
            luminance = colour @ np.array([0.299, 0.587, 0.114])
            assert np.abs(luminance - grey).max() < 3
    assert AtariGames(1, game="pong").render() is None


@pytest.mark.parametrize("name", ["SpaceInvaders", "space_invaders", "Space_Invaders"])
def test_games_are_found_by_either_spelling(name):
    assert find_game(name) == "space_invaders"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"game": "Pongg"}, "got 'Pongg'; did you mean 'pong'"),
        ({"game": "combat"}, "must be an Atari game"),  # For two players.
        ({"game": "pong", "protocol": "nature"}, "`protocol` must be 'mnih2015' or 'machado2018'"),
        ({"game": "pong", "noop": 3}, "'noop' is no setting .* did you mean 'noop_max'"),
        ({"game": "pong", "sticky_actions": 25}, "must be a probability: got 25"),
        ({"game": "pong", "frame_size": (84,)}, r"`frame_size` must be \(height, width\)"),
        ({"game": "pong", "frame_size": (84, 0)}, "1 to 1024 each"),
        ({"game": "pong", "render_mode": "human"}, "`render_mode` must be"),
    ],
)
def test_what_does_not_exist_is_refused_with_a_hint(settings, message):
    with pytest.raises(ValueError, match=message):
        AtariGames(1, **settings)


def atari_runner(num_envs, training=None, **env_config):
    config = runner_config("rllib_per/Atari-v1", num_envs, env_config=env_config, training=training)
    return ApexEnvRunner(config=config.rl_module(model_config={"network": "nature"}))


def stacks_of(fragment: Fragment, i, size):
    """Zero-padded stacks of stream i, from its single frames and its reset rows."""
    stack = np.zeros((size, *fragment.obs.shape[2:]), np.uint8)
    stack[-1] = fragment.obs[0, i]
    yield stack
    for t in range(len(fragment.reset)):
        stack = np.zeros_like(stack) if fragment.reset[t, i] else np.roll(stack, -1, axis=0)
        stack[-1] = fragment.obs[t + 1, i]
        yield stack


def test_a_fragments_frames_and_resets_rebuild_the_emulators_stacks():
    settings = {"game": "Breakout", "max_frames_per_episode": 160}
    # With Q-values in the fragment, the network sees every observation.
    records_q = {"replay_buffer_config": {"initial_priority": "td_error"}}
    runner = atari_runner(2, records_q, **settings)
    assert (runner.row_spec.stack, runner.row_spec.frame_shape) == (4, (84, 84))
    seen = []
    choose = runner.module.compute_q_values
    runner.module.compute_q_values = lambda batch: (
        seen.append(batch["obs"].numpy().copy()) or choose(batch)
    )
    fragment = runner.collect(90, epsilon=0.5)
    assert fragment.reset.sum() >= 4
    assert (fragment.terminated[:-1] & ~fragment.reset[1:]).any()  # Lives were lost.
    for i in range(2):
        for stack, obs in zip(stacks_of(fragment, i, 4), seen, strict=False):
            np.testing.assert_array_equal(stack, obs[i])


def test_returns_are_of_whole_games():
    runner = atari_runner(2, game="Breakout", max_frames_per_episode=1200)
    fragment = runner.collect(700, epsilon=1.0)
    metrics = runner.get_metrics()
    games = sum(np.flatnonzero(fragment.reset[:, i]).size for i in range(2))
    assert metrics["num_episodes"].peek() in (games, games + 1, games + 2)
    assert fragment.terminated.sum() > 2 * games
    assert metrics["episode_len_mean"].peek() > 100


def test_gymnasium_makes_it_by_its_id():
    env = gym.make_vec("rllib_per/Atari-v1", num_envs=2, game="pong")
    assert env.metadata["autoreset_mode"] is gym.vector.AutoresetMode.NEXT_STEP
    assert env.reset()[0].shape == (2, 4, 84, 84)
