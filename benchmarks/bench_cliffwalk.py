# SPDX-License-Identifier: MIT
"""Updates that replay needs on Blind Cliffwalk: proportional, rank-based and uniform.

Schaul et al. 2016, figure 1.

    make bench-cliffwalk

Replay holds every one of the 2^n action sequences once, in random order. Tabular Q-learning (step
size 1/4, γ = 1 - 1/n, Q drawn from [0, 0.1]) replays one transition per update until the mean
squared error to the true values is at most 1e-3.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from statistics import median

import numpy as np
from matplotlib.figure import Figure

from benchmarks.report import describe_machine, table
from rllib_per.envs.blind_cliffwalk import BlindCliffwalk
from rllib_per.replay import Fragment, PrioritizedReplayBuffer, RowSpec

STEP_SIZE = 0.25
TOLERANCE = 1e-3
# The paper's exponents, 1 for priorities and 0.7 for ranks.
BUFFERS = {
    "uniform": {"prioritization": "uniform"},
    "proportional": {"alpha": 1.0, "priority_epsilon": 1e-4},
    "rank-based": {"prioritization": "rank", "alpha": 0.7},
}


def experience(num_states: int, rng: np.random.Generator) -> Fragment:
    """All action sequences, each until it falls or arrives, as one stream of rows."""
    env = BlindCliffwalk(num_states)
    sequences = list(product((0, 1), repeat=num_states))
    rng.shuffle(sequences)
    obs, rows = [env.reset()[0]], []
    for sequence in sequences:
        for action in sequence:
            frame, reward, terminated, _, _ = env.step(action)
            obs.append(frame)
            rows.append((action, reward, terminated, False))
            if terminated:
                break
        obs.append(env.reset()[0])
        rows.append((0, 0.0, False, True))
    actions, rewards, terminated, reset = (
        np.array(column)[:, None] for column in zip(*rows, strict=True)
    )
    return Fragment(
        stream_ids=np.zeros(1, np.int64),
        first_step=np.zeros(1, np.int64),
        obs=np.stack(obs)[:, None],
        actions=actions.astype(np.int64),
        rewards=rewards.astype(np.float32),
        terminated=terminated.astype(np.bool_),
        truncated=np.zeros(reset.shape, np.bool_),
        reset=reset.astype(np.bool_),
    )


def updates_needed(kind: str, num_states: int, seed: int) -> int:
    """Single-transition updates until the values are right."""
    rng = np.random.default_rng(seed)
    gamma = 1.0 - 1.0 / num_states
    fragment = experience(num_states, rng)
    buffer = PrioritizedReplayBuffer(
        capacity=fragment.num_rows + 1,
        rows=RowSpec(frame_shape=(num_states,)),
        gamma=gamma,
        seed=seed,
        **BUFFERS[kind],
    )
    buffer.add(fragment)
    values = rng.uniform(0.0, 0.1, (num_states, 2))
    truth = np.zeros((num_states, 2))
    for state in range(num_states):
        truth[state, BlindCliffwalk.right_action(state)] = gamma ** (num_states - 1 - state)
    updates = 0
    while np.square(values - truth).mean() > TOLERANCE:
        batch = buffer.sample(1, beta=0.0)
        state, action = int(batch.obs[0].argmax()), int(batch.actions[0])
        bootstrap = batch.bootstrap_discounts[0] * values[int(batch.next_obs[0].argmax())].max()
        td_error = batch.n_step_returns[0] + bootstrap - values[state, action]
        values[state, action] += STEP_SIZE * td_error
        buffer.update_priorities(batch.ids, np.array([td_error], np.float32))
        updates += 1
    return updates


def plot(results: dict[str, dict[int, list[int]]], path: Path) -> None:
    """Median and range over the seeds, against the number of transitions in replay."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for kind, by_states in results.items():
        sizes = [2 ** (states + 1) - 2 for states in by_states]
        runs = list(by_states.values())
        axes.plot(sizes, [median(r) for r in runs], marker="o", label=kind)
        axes.fill_between(sizes, [min(r) for r in runs], [max(r) for r in runs], alpha=0.2)
    axes.set(
        xscale="log", yscale="log", xlabel="transitions in replay, $2^{n+1} - 2$",
        ylabel="updates until solved", title="Blind Cliffwalk",
    )  # fmt: skip
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--states", type=int, nargs="+", default=[2, 4, 6, 8, 10, 12])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("docs/images/blind_cliffwalk.png"))
    arguments = parser.parse_args()
    results = {
        kind: {
            states: [updates_needed(kind, states, seed) for seed in range(arguments.seeds)]
            for states in arguments.states
        }
        for kind in BUFFERS
    }
    rows = []
    for states in arguments.states:
        medians = [median(results[kind][states]) for kind in BUFFERS]
        ratios = [f"{medians[0] / other:.1f}" for other in medians[1:]]
        rows.append([str(states), *(f"{updates:,.0f}" for updates in medians), *ratios])
    print(describe_machine())
    headings = ["n", *(f"{kind} updates" for kind in BUFFERS)]
    print(table([*headings, *(f"uniform ÷ {kind}" for kind in list(BUFFERS)[1:])], rows))
    plot(results, arguments.out)


if __name__ == "__main__":
    main()
