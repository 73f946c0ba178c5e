# SPDX-License-Identifier: MIT
import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rllib_per.episodes import EpisodeFragmenter
from rllib_per.frame_stack import FrameStack
from rllib_per.observations import WrongDataError
from tests.support.counting_env import CountingEnv, runner_config
from tests.support.masked_env import MaskedEnv, mask_of
from tests.support.tree_env import DTYPES, SPACE, TreeEnv, leaves_at


def fragmenter_of(config, **options):
    runners = config.settings().runners
    stack = FrameStack.of(runners.frame_stack, runners.frame_stack_padding)
    return EpisodeFragmenter(runners.num_envs_total, stack, **options)


def fragmenter(num_envs=2, **env_runners):
    env = CountingEnv(0, [1])
    config = runner_config("CartPole-v1", num_envs, **env_runners)
    built = fragmenter_of(config)
    return built, built.row_spec((env.observation_space, env.action_space))


def episode_of(number, length, *, terminated=False, truncated=False):
    """An episode whose observations say (number, step)."""
    return SingleAgentEpisode(
        id_=str(number),
        observations=[np.array([number, 0, t], np.float32) for t in range(length + 1)],
        actions=[np.int64(t % 3) for t in range(length)],
        rewards=[number + t / 64 for t in range(length)],
        terminated=terminated,
        truncated=truncated,
        len_lookback_buffer=0,
    )


def chunks_of(episode, *lengths):
    """The episode in chunks of the given lengths, as an env runner returns them."""
    chunks, start = [], 0
    for length in lengths:
        chunks.append(episode[start : start + length])
        start += length
    return chunks


class Streams:
    """Puts fragments together again, stream by stream, checking that rows join."""

    @staticmethod
    def label(frame):
        """(episode, step), of `episode_of` and of CountingEnv."""
        first, second, step = frame.astype(int).tolist()
        return first or second, step

    def __init__(self):
        self.rows, self.next_row, self.last_frame = {}, {}, {}

    def add(self, fragment):
        stream, first = int(fragment.stream_ids[0]), int(fragment.first_step[0])
        if self.next_row.get(stream) == first:
            np.testing.assert_array_equal(fragment.obs[0, 0], self.last_frame[stream])
        elif stream in self.next_row:
            assert first > self.next_row[stream]
            self.rows[stream].append("gap")
        for t in range(len(fragment.reset)):
            flags = "".join(
                letter
                for letter, column in zip("rTU", ("reset", "terminated", "truncated"), strict=True)
                if getattr(fragment, column)[t, 0]
            )
            number, step = self.label(fragment.obs[t, 0])
            self.rows.setdefault(stream, []).append(f"{number}.{step}{flags}")
        self.next_row[stream] = first + len(fragment.reset)
        self.last_frame[stream] = fragment.obs[-1, 0]


def rows_of(built, *batches):
    streams = Streams()
    for episodes in batches:
        for fragment in built.fragments(episodes):
            streams.add(fragment)
    return streams.rows


def test_the_spec_is_that_of_the_spaces():
    spec = fragmenter()[1]
    assert (spec.frame_shape, spec.action_dtype, spec.stack) == ((3,), np.int64, None)


def test_chunks_of_an_episode_join_and_the_next_begins_with_a_reset_row():
    first = chunks_of(episode_of(1, 5, terminated=True), 2, 2, 1)
    second = chunks_of(episode_of(2, 3, truncated=True), 1, 2)
    rows = rows_of(fragmenter()[0], first[:1], first[1:2], [first[2], second[0]], [second[1]])
    # The reset row shows the first episode's last observation.
    assert rows == {0: ["1.0", "1.1", "1.2", "1.3", "1.4T", "1.5r", "2.0", "2.1", "2.2U"]}


def test_columns_hold_the_episodes_values():
    fragment = fragmenter()[0].fragments([episode_of(3, 4, truncated=True).to_numpy()])[0]
    np.testing.assert_array_equal(fragment.actions[:, 0], [0, 1, 2, 0])
    np.testing.assert_array_equal(fragment.rewards[:, 0], 3 + np.arange(4) / 64)
    np.testing.assert_array_equal(fragment.obs[:, 0, 2], range(5))
    assert fragment.obs.shape == (5, 1, 3)


def test_ongoing_episodes_have_a_stream_each():
    one, two = (chunks_of(episode_of(number, 4), 2, 2) for number in (1, 2))
    rows = rows_of(fragmenter()[0], [one[0], two[0]], [two[1], one[1]])
    assert rows == {0: ["1.0", "1.1", "1.2", "1.3"], 1: ["2.0", "2.1", "2.2", "2.3"]}


def test_a_lost_chunk_leaves_a_gap():
    chunks = chunks_of(episode_of(1, 6), 2, 2, 2)
    assert rows_of(fragmenter()[0], [chunks[0]], [chunks[2]]) == {
        0: ["1.0", "1.1", "gap", "1.4", "1.5"]
    }


def test_an_abandoned_episode_gives_its_stream_up():
    built = fragmenter(num_envs=1)[0]
    rows = rows_of(built, [episode_of(1, 2)], [episode_of(2, 2)], [episode_of(3, 2)])
    # The gap closes what was abandoned, and the reset row begins the next with all its frames.
    assert rows == {0: ["1.0", "1.1", "gap", "1.2r", "2.0", "2.1", "gap", "2.2r", "3.0", "3.1"]}


def test_what_a_new_fragmenter_gives_goes_on_nowhere_in_what_replay_has_of_another():
    """Not for any number of rows that a stream of the other may have got."""
    episodes = [*chunks_of(episode_of(1, 5), 2, 3), *chunks_of(episode_of(2, 5), 2, 3)]
    for begun in (0, 1):  # With an episode's beginning, and with one that is under way.
        (fragment,) = fragmenter()[0].fragments([episodes[begun]])
        for other in (0, 1):
            (kept,) = fragmenter()[0].fragments([episodes[2 + other]])
            ends = kept.first_step[0] + 1 + np.arange(10)
            assert fragment.first_step[0] not in ends


def test_stacks_are_taken_apart_and_checked():
    built = fragmenter_of(runner_config("CartPole-v1", frame_stack=2))
    space = CountingEnv(0, [1]).observation_space
    stacked_space = type(space)(-1, 10_000, (2, 3), np.float32)
    spec = built.row_spec((stacked_space, CountingEnv.action_space))
    assert (spec.frame_shape, spec.stack) == ((3,), 2)
    plain = episode_of(1, 3)
    frames = np.stack(list(plain.get_observations()))
    stacks = np.stack([np.concatenate([np.zeros((1, 3)), frames[:-1]]), frames], axis=1)
    episode = episode_of(1, 3)
    episode.set_observations(new_data=list(stacks.astype(np.float32)))
    np.testing.assert_array_equal(built.fragments([episode])[0].obs[:, 0], frames)
    episode = episode_of(2, 3)
    episode.set_observations(new_data=list(stacks[:, ::-1].astype(np.float32)))
    with pytest.raises(ValueError, match="older frames differ"):
        built.fragments([episode])
    episode = episode_of(3, 3)
    repeated = np.stack([np.concatenate([frames[:1], frames[:-1]]), frames], axis=1)
    episode.set_observations(new_data=list(repeated.astype(np.float32)))
    with pytest.raises(ValueError, match="`frame_stack_padding` is 'zero', but the first"):
        built.fragments([episode])


def test_observations_that_a_connector_changed_only_for_the_module_are_refused():
    built = fragmenter_of(runner_config("CartPole-v1"))
    built.row_spec((gym_box(7), CountingEnv.action_space))
    with pytest.raises(ValueError, match="must write them back into the episode"):
        built.fragments([episode_of(1, 2)])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_refused_chunk_takes_no_stream_and_leaves_a_gap(bad):
    built = fragmenter(num_envs=1)[0]
    one = chunks_of(episode_of(1, 6, terminated=True), 2, 2, 2)
    one[1].rewards.data[1] = bad
    streams = Streams()
    streams.add(built.fragments(one[:1])[0])
    other = episode_of(2, 2)
    other.rewards.data[0] = bad
    for refused, step in ((one[1], 3), (other, 0)):
        with pytest.raises(ValueError, match=f"rewards must be finite.* at step {step} of episode"):
            built.fragments([refused])
    streams.add(built.fragments(one[2:])[0])
    assert streams.rows == {0: ["1.0", "1.1", "gap", "1.4", "1.5T"]}


def test_a_chunk_whose_columns_are_refused_takes_no_stream():
    def refuse(chunk):
        if chunk.id_ == "1":
            raise ValueError("no such column")
        return {}

    config = runner_config("CartPole-v1", 1)
    built = fragmenter_of(config, extra_columns=refuse)
    env = CountingEnv(0, [1])
    built.row_spec((env.observation_space, env.action_space))
    for _ in range(2):
        with pytest.raises(ValueError, match="no such column"):
            built.fragments([episode_of(1, 2)])
    assert rows_of(built, [episode_of(2, 2)]) == {0: ["2.0", "2.1"]}


def gym_box(size):
    space = CountingEnv(0, [1]).observation_space
    return type(space)(-1, 1, (size,), np.float32)


def test_rllibs_own_runner_gives_the_rows_that_the_environments_gave():
    lengths = [3, 1, 4]
    config = runner_config(lambda context: CountingEnv(0, lengths), rollout_fragment_length=5)
    runner = SingleAgentEnvRunner(config=config)
    built = fragmenter_of(config)
    spaces = runner.get_spaces()["default_policy"]
    built.row_spec(spaces)
    rows = rows_of(built, *(runner.sample(num_timesteps=2) for _ in range(6)))[0]
    assert rows == [
        *("0.0", "0.1", "0.2T", "0.3r", "1.0U", "1.1r", "2.0", "2.1", "2.2", "2.3T", "2.4r"),
        *("3.0", "3.1", "3.2U", "3.3r", "4.0T"),
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_observation_that_is_no_number_is_refused_with_its_step_and_takes_no_stream(value):
    built = fragmenter(num_envs=1)[0]
    chunk = chunks_of(episode_of(7, 6), 2, 4)[1].to_numpy()
    chunk.set_observations(new_data=np.full(3, value, np.float32), at_indices=1)
    with pytest.raises(ValueError, match=rf"got {value} before step 3 of episode 7; fix"):
        built.fragments([chunk])
    assert rows_of(built, [episode_of(1, 2)]) == {0: ["1.0", "1.1"]}


@pytest.mark.parametrize(
    ("dtype", "given"), [(np.uint8, np.float32), (np.uint8, np.int64), (np.int64, np.float64)]
)
def test_observations_of_another_kind_than_the_modules_are_refused(dtype, given):
    built = fragmenter_of(runner_config("CartPole-v1"))
    built.row_spec((gym.spaces.Box(0, 100, (3,), dtype), gym.spaces.Discrete(3)))
    episode = SingleAgentEpisode(
        observations=[np.full(3, 1.5, given)] * 2, actions=[0], rewards=[0.0], len_lookback_buffer=0
    )
    with pytest.raises(ValueError, match=f"and dtype {np.dtype(dtype)}: .* {np.dtype(given)}"):
        built.fragments([episode])


# -- observations that are trees -----------------------------------------------------------------


def tree_episode(length, *, index=0, numpy=False):
    env = TreeEnv(index, [length])
    observations, actions, rewards = [env.reset()[0]], [], []
    for t in range(length):
        obs, reward, *_ = env.step(t % 3)
        observations.append(obs)
        actions.append(t % 3)
        rewards.append(reward)
    episode = SingleAgentEpisode(
        id_=f"tree {index}",
        observations=observations,
        observation_space=SPACE,
        actions=actions,
        rewards=rewards,
        terminated=True,
        len_lookback_buffer=0,
    )
    return episode.to_numpy() if numpy else episode


@pytest.mark.parametrize("numpy", [True, False])
def test_every_leaf_of_an_episode_is_a_column(numpy):
    built = EpisodeFragmenter(1)
    spec = built.row_spec((SPACE, gym.spaces.Discrete(3)))
    assert {path: np.dtype(frame.dtype) for path, frame in spec.leaves.items()} == DTYPES
    fragments = built.fragments([tree_episode(5, index=i, numpy=numpy) for i in range(2)])
    assert fragments[1].reset[:, 0].tolist() == [True] + [False] * 5
    for path, dtype in DTYPES.items():
        whole = np.concatenate([fragment.obs[path] for fragment in fragments])
        rows = [(0, t) for t in range(6)] + [(0, 5)] + [(1, t) for t in range(6)]
        assert whole.dtype == dtype
        for row, (index, t) in enumerate(rows):
            np.testing.assert_array_equal(whole[row, 0], leaves_at(index, 0, t)[path], path)


def test_a_leaf_of_another_kind_is_named_and_takes_no_stream():
    built = EpisodeFragmenter(1)
    built.row_spec((SPACE, gym.spaces.Discrete(3)))
    wrong = tree_episode(3, numpy=True)
    wrong.observations.data["pos"]["x"][2] = np.nan
    with pytest.raises(ValueError, match=r"got nan in pos/x before step 2 of episode tree 0"):
        built.fragments([wrong])
    wrong.observations.data["image"] = wrong.observations.data["image"][:, 1:]
    with pytest.raises(ValueError, match=r"as the module gets them in image, of shape \(3, 4\)"):
        built.fragments([wrong])
    assert built.fragments([tree_episode(3)])[0].first_step.tolist() == [0]


def test_a_stack_that_config_names_must_be_one_of_all_leaves():
    built = EpisodeFragmenter(1, FrameStack(4, "zero"))
    with pytest.raises(ValueError, match=r"hold 4 frames: the leaf 'image' has the shape \(3, 4\)"):
        built.row_spec((SPACE, gym.spaces.Discrete(3)))


def masked_episode(change=lambda mask, t: mask, *, terminated=False, length=4):
    """Its states' masks are `mask_of` them, but for the last of one that terminates."""
    numbers = [np.array([0, 1, t], np.float32) for t in range(length + 1)]
    masks = [change(mask_of(each), t) for t, each in enumerate(numbers)]
    if terminated:
        masks[-1] = np.zeros(5, np.int8)
    return SingleAgentEpisode(
        observations=[
            {"action_mask": mask, "numbers": each}
            for mask, each in zip(masks, numbers, strict=True)
        ],
        actions=[int(mask.argmax()) for mask in masks[:-1]],
        rewards=[0.0] * length,
        infos=[{"action_mask": None}] * (length + 1),
        terminated=terminated,
        len_lookback_buffer=0,
    )


def masked_fragmenter(source="auto", masks_in="observation", **options):
    env = MaskedEnv({"masks_in": masks_in})
    built = EpisodeFragmenter(1, action_masks=source, **options)
    return built, built.row_spec((env.observation_space, env.action_space))


def test_masks_of_episodes_become_a_column():
    fragmenter, rows = masked_fragmenter()
    assert rows.frames["action_mask"].shape == (5,)
    (fragment,) = fragmenter.fragments([masked_episode(terminated=True)])
    masks = fragment.obs["action_mask"][:, 0]
    expected = [mask_of([0, 1, t]) for t in range(4)] + [np.zeros(5)]
    np.testing.assert_array_equal(masks, expected)


def test_a_mask_is_no_stack_of_frames():
    stack = FrameStack(3, "zero")
    _, rows = masked_fragmenter(stack=stack)
    assert {path: frame.stack for path, frame in rows.frames.items()} == {
        "action_mask": None,
        "numbers": 3,
    }


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda mask, t: mask * 2 if t == 2 else mask, "must be 5 numbers.* before step 2"),
        (lambda mask, t: mask * (t != 4), "must have a legal action.* before step 4"),
    ],
)
def test_masks_of_episodes_are_checked(change, complaint):
    fragmenter, _ = masked_fragmenter()
    with pytest.raises(WrongDataError, match=f"The leaf 'action_mask' {complaint}"):
        fragmenter.fragments([masked_episode(change)])
    fragmenter, _ = masked_fragmenter("none")
    assert fragmenter.fragments([masked_episode(change)])


def test_masks_in_infos_that_nobody_asked_for_are_refused():
    episode = masked_episode()
    episode.set_observations(
        new_data=[obs["numbers"] for obs in episode.get_observations()],
        at_indices=slice(0, 5),
    )
    fragmenter, _ = masked_fragmenter(masks_in="info")
    with pytest.raises(WrongDataError, match=r"env_runners\(action_masks='info'\)"):
        fragmenter.fragments([episode])
    fragmenter, _ = masked_fragmenter("none", masks_in="info")
    assert fragmenter.fragments([episode])
