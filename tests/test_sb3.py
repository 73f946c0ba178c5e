# SPDX-License-Identifier: MIT
"""stable-baselines3 with our replay: the transitions of its own buffers, and a prioritized DQN."""

import copy
import os
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

from rllib_per.sb3 import PrioritizedDQN, PrioritizedReplayBuffer

# Gymnasium's and torch's own, on their way through stable-baselines3.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

NUM_ENVS = 3
BOX, ACTIONS = spaces.Box(-1e6, 1e6, (2,), np.float32), spaces.Discrete(5)


def small(**options):
    """SAC writes into the `policy_kwargs` that it is given."""
    policy = {"net_arch": [16]}
    return {"policy_kwargs": policy, "learning_starts": 50, "seed": 0, "device": "cpu", **options}


def fill(*buffers, num_steps=60):
    """The same steps into all; the observation says which it is, ends come in every way."""
    rng, number = np.random.default_rng(0), 0
    obs = np.float32([[-1, -1], [-2, -2], [-3, -3]])
    for _ in range(num_steps):
        next_obs = np.empty_like(obs)
        for env in range(NUM_ENVS):
            number += 1
            next_obs[env] = number
        actions, rewards = rng.integers(5, size=NUM_ENVS), rng.normal(size=NUM_ENVS)
        done = rng.random(NUM_ENVS) < 0.2
        infos = [{"TimeLimit.truncated": bool(d and rng.random() < 0.5)} for d in done]
        for buffer in buffers:
            buffer.add(obs, next_obs, actions, rewards.astype(np.float32), done, infos)
        obs = next_obs.copy()
        for env in np.flatnonzero(done):
            number += 1
            obs[env] = number


def by_first_observation(samples):
    """What follows each state that was drawn."""
    found = {}
    columns = [samples.actions, samples.next_observations, samples.dones, samples.rewards]
    if samples.discounts is not None:  # Of what has ended, theirs are not 0.
        columns.append(samples.discounts * (1 - samples.dones))
    for obs, *row in zip(samples.observations, *columns, strict=True):
        found[float(obs[0])] = np.concatenate([np.float64(value).ravel() for value in row])
    return found


def make(n_steps, gamma=0.9, handles=True, **options):
    return PrioritizedReplayBuffer(
        300, BOX, ACTIONS, "cpu", NUM_ENVS, handle_timeout_termination=handles,
        n_steps=n_steps, gamma=gamma, seed=0, **options,
    )  # fmt: skip


@pytest.mark.parametrize("handles", [True, False])
@pytest.mark.parametrize("n_steps", [1, 3])
def test_transitions_are_those_of_their_own_buffers(n_steps, handles):
    ours = make(n_steps, handles=handles)
    options = {"device": "cpu", "n_envs": NUM_ENVS, "handle_timeout_termination": handles}
    if n_steps > 1:
        options |= {"n_steps": n_steps, "gamma": 0.9}
    theirs = (NStepReplayBuffer if n_steps > 1 else ReplayBuffer)(300, BOX, ACTIONS, **options)
    fill(ours, theirs)
    mine = by_first_observation(ours.sample(6000))
    its = by_first_observation(theirs.sample(6000))
    # Ours waits for a window to be complete.
    assert len(mine) == ours.size() > NUM_ENVS * (60 - n_steps)
    for obs, row in mine.items():
        np.testing.assert_allclose(row, its[obs], rtol=1e-6, atol=1e-6)


def test_environments_that_learn_resets_by_hand_end_their_windows():
    buffer = make(3)
    obs = np.float32([[[number, number]] * NUM_ENVS for number in range(9)])
    row = [np.zeros(NUM_ENVS, np.int64), np.ones(NUM_ENVS, np.float32), np.zeros(NUM_ENVS, bool)]
    for number in (0, 1, 5, 6, 7):
        buffer.add(obs[number], obs[number + 1], *row, [{}] * NUM_ENVS)
    found = by_first_observation(buffer.sample(300))
    assert {obs: row[1] for obs, row in found.items()} == {0: 2, 1: 2, 5: 8}


def test_a_dict_a_discrete_observation_and_a_stack():
    space = spaces.Dict({"a": BOX, "b": spaces.Discrete(9)})
    buffer = PrioritizedReplayBuffer(50, space, ACTIONS, "cpu", 1, seed=0)
    rest = [np.array([1]), np.float32([2]), np.array([False]), [{}]]
    seen = [{"a": np.full((1, 2), n, np.float32), "b": np.array([n])} for n in range(3)]
    for number in range(2):
        buffer.add(seen[number], seen[number + 1], *rest)
    samples = buffer.sample(8)
    assert samples.observations["b"].shape == (8, 1)
    assert torch.equal(samples.observations["a"][:, :1] + 1, samples.next_observations["b"])
    buffer = PrioritizedReplayBuffer(50, spaces.Discrete(9), ACTIONS, "cpu", 1, seed=0)
    buffer.add(np.array([3]), np.array([4]), *rest)
    assert buffer.sample(2).observations.shape == (2, 1)
    images = spaces.Box(0, 255, (4, 6, 6), np.uint8)
    buffer = PrioritizedReplayBuffer(50, images, ACTIONS, "cpu", 1, stack=4, seed=0)
    stacks = np.zeros((3, 1, 4, 6, 6), np.uint8)
    for number in range(3):
        stacks[number:, :, 3 - number] = 7 - number
        stacks[number, 0] = [[[v] * 6] * 6 for v in [0, 0, 0, 1, 2, 3][number : number + 4]]
    for number in range(2):
        buffer.add(stacks[number], stacks[number + 1], *rest)
    assert buffer.replay.rows.frame_shape == (6, 6)
    samples = buffer.sample(30)
    drawn = {tuple(obs[:, 0, 0].tolist()) for obs in samples.next_observations}
    assert drawn == {(0, 0, 1, 2), (0, 1, 2, 3)}


def test_windows_of_several_steps_need_the_algorithms_gamma():
    with pytest.raises(ValueError, match="n_steps=3 needs the algorithm's gamma"):
        make(3, gamma=None)
    model = PrioritizedDQN("MlpPolicy", "CartPole-v1", gamma=0.8, n_steps=3, **small())
    assert model.replay_buffer.gamma == 0.8
    assert model.replay_buffer.replay._storage.window.ahead == 3
    with pytest.raises(ValueError, match=r"that of the algorithm, 0\.99: got 0\.8"):
        PrioritizedDQN("MlpPolicy", "CartPole-v1", replay_buffer_kwargs={"gamma": 0.8}, **small())
    with pytest.raises(ValueError, match=r"must be rllib_per\.sb3\.PrioritizedReplayBuffer"):
        PrioritizedDQN("MlpPolicy", "CartPole-v1", replay_buffer_class=ReplayBuffer, **small())
    with pytest.raises(ValueError, match="beta must be in"):
        PrioritizedDQN("MlpPolicy", "CartPole-v1", beta=1.5, **small())


def test_dqn_and_sac_take_the_buffer_as_it_is(tmp_path):
    options = {"replay_buffer_class": PrioritizedReplayBuffer, "buffer_size": 500}
    model = DQN("MlpPolicy", "CartPole-v1", **options, **small())
    model.learn(200)
    assert 150 < model.replay_buffer.size() <= 200
    model.save_replay_buffer(tmp_path / "replay")
    model.load_replay_buffer(tmp_path / "replay")
    model.learn(100)
    kwargs = {"n_steps": 2, "gamma": 0.99}
    sac = SAC("MlpPolicy", "Pendulum-v1", replay_buffer_kwargs=kwargs, **options, **small())
    sac.learn(70)
    assert sac.replay_buffer.size() == 69


def test_the_same_seed_learns_the_same():
    def weights(seed):
        options = small(seed=seed)
        model = PrioritizedDQN("MlpPolicy", "CartPole-v1", n_steps=2, **options).learn(120)
        return torch.cat([p.detach().ravel() for p in model.q_net.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_priorities_are_those_of_the_td_errors():
    env = VecNormalize(make_vec_env("CartPole-v1", 2, seed=0))
    options = {"replay_buffer_kwargs": {"alpha": 1.0, "priority_epsilon": 0.5}, "buffer_size": 400}
    model = PrioritizedDQN("MlpPolicy", env, n_steps=3, double_q=True, **options, **small())
    model.learn(100)
    batch = model.replay_buffer.draw(64, 0.4, model.get_vec_normalize_env())
    weights = copy.deepcopy(model.q_net.state_dict())
    model.replay_buffer.draw = lambda *_: batch
    model.policy.optimizer.param_groups[0]["lr"] = 0.0
    model.train(1, 64)
    for name, value in model.q_net.state_dict().items():
        assert torch.equal(value, weights[name]) or value.is_floating_point()
    state = model.replay_buffer.replay.state()
    slots = batch.ids % 400
    q, next_q = model.q_net(batch.samples.observations), batch.samples.next_observations
    q = q.gather(1, batch.samples.actions)
    best = model.q_net(next_q).argmax(1, keepdim=True)
    value = model.q_net_target(next_q).gather(1, best)
    target = batch.samples.rewards + (1 - batch.samples.dones) * batch.samples.discounts * value
    expected = (target - q).abs().detach()[:, 0].numpy() + 0.5
    np.testing.assert_allclose(state["priorities"][slots], expected, rtol=2e-2)
    assert len(set(state["priorities"])) > 10


@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_an_update_is_dqns_with_weighted_losses(weight):
    """Weights of 1: the very update; weights of 0: none."""
    ours = PrioritizedDQN("MlpPolicy", "CartPole-v1", **small()).learn(51)
    theirs = DQN("MlpPolicy", "CartPole-v1", **small())
    theirs._setup_learn(100)
    theirs.policy.load_state_dict(ours.policy.state_dict())
    before = copy.deepcopy(ours.q_net.state_dict())
    batch = ours.replay_buffer.draw(16, 0.5)
    batch = batch._replace(importance_weights=torch.full((16, 1), weight))
    ours.replay_buffer.draw = lambda *_: batch
    theirs.replay_buffer.sample = lambda *_, **__: batch.samples
    for model in (ours, theirs):
        model.policy.optimizer = torch.optim.SGD(model.policy.parameters(), lr=0.1)
        model.train(1, 16)
    expected = theirs.q_net.state_dict() if weight else before
    for name, value in ours.q_net.state_dict().items():
        assert torch.equal(value, expected[name])


def test_a_model_is_saved_and_loaded(tmp_path):
    model = PrioritizedDQN("MlpPolicy", "CartPole-v1", beta=0.3, double_q=True, **small()).learn(60)
    model.save(tmp_path / "model")
    loaded = PrioritizedDQN.load(tmp_path / "model", env=gym.make("CartPole-v1"))
    assert (loaded.beta, loaded.double_q) == (0.3, True)
    loaded.learn(60)


def test_without_stable_baselines3_the_extra_is_named(tmp_path):
    (tmp_path / "stable_baselines3.py").write_text("raise ImportError('none')")
    command = [sys.executable, "-c", "import rllib_per.sb3"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert "pip install 'rllib-per[sb3]'" in done.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_cartpole_is_solved():
    torch.set_num_threads(1)
    model = PrioritizedDQN(
        "MlpPolicy",
        "CartPole-v1",
        learning_rate=1e-3,
        buffer_size=50_000,
        learning_starts=1_000,
        batch_size=64,
        train_freq=4,
        gradient_steps=2,
        target_update_interval=250,
        exploration_fraction=0.2,
        exploration_final_eps=0.04,
        n_steps=3,
        double_q=True,
        policy_kwargs={"net_arch": [128, 128]},
        seed=1,
        device="cpu",
    )
    score = 0.0
    for _ in range(10):
        model.learn(8_000, reset_num_timesteps=False)
        score, _ = evaluate_policy(model, make_vec_env("CartPole-v1", 5, seed=7), 20)
        if score >= 475.0:
            break
    assert score >= 475.0
