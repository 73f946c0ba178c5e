# SPDX-License-Identifier: MIT
"""The queue of learning runs: what is run, in which order.

A line that is added at the end is run last. What a run needs that does not exist yet is not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

GAMES = ("breakout", "asterix", "space_invaders", "seaquest", "freeway")
LENGTHS = {"500k": 500_000, "1m": 1_000_000, "5m": 5_000_000}

DQN = ("training.double_q=false", "training.n_step=1", "training.dueling=false")
# base.yaml has the squared loss, per.yaml Huber's.
HUBER = "training.td_error_loss_fn=huber"
SQUARED = "training.td_error_loss_fn=mse"
# Their table of hyper-parameters: α 0.6, β 1 when the run ends, and a quarter of the learning rate,
# which is given to uniform replay by itself, too.
QUARTER_LR = "training.lr=6.25e-5"
SCHAUL = (
    QUARTER_LR,
    "replay.alpha=0.6",
    "replay.beta={type: linear, initial: 0.4, final: 1.0, steps: 500000}",
)
# Hessel et al. 2018 explore by noise alone, Clark et al. 2025 with ε as well (decision 0081).
NOISE_AND_EPSILON = ("training.noisy=true",)
NOISE_ALONE = (*NOISE_AND_EPSILON, "training.epsilon=0")
# Games without bad rewards return less than 50, discounted.
ATOMS = ("training.num_atoms=51", "training.v_min=0", "training.v_max=50")
# Eight fractions as in Clark et al. 2025: with the paper's 64 an update takes six times as long.
FRACTIONS = "num_taus: 8, num_target_taus: 8, num_acting_taus: 8"
IQN = (f"training.distribution={{type: implicit_quantile, {FRACTIONS}}}",)

# Each of the four numbers is a leaf with an encoder, and only the head sees them together.
CARTPOLE_OF_LEAVES = (
    "environment.env=rllib_per/DictCartPole-v1",
    "model.encoder_hiddens=[64]",
    "model.hiddens=[128, 128]",
)

# Each variant of MinAtar: its configuration, and what is changed.
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "base": ("configs/minatar/base.yaml", ()),
    "per": ("configs/minatar/per.yaml", (SQUARED,)),
    "base_huber": ("configs/minatar/base.yaml", (HUBER,)),
    "per_huber": ("configs/minatar/per.yaml", ()),
    "base_quarter_lr": ("configs/minatar/base.yaml", (HUBER, QUARTER_LR)),
    "per_schaul": ("configs/minatar/per.yaml", SCHAUL),
    "rainbow": ("configs/minatar/per.yaml", (*NOISE_ALONE, *ATOMS)),
    "iqn": ("configs/minatar/per.yaml", (*NOISE_AND_EPSILON, *IQN)),
    "iqn_noise": ("configs/minatar/per.yaml", (*NOISE_ALONE, *IQN)),
    "iqn_munchausen": (
        "configs/minatar/per.yaml",
        (*NOISE_AND_EPSILON, *IQN, "training.munchausen={}"),
    ),
    "dqn": ("configs/minatar/base.yaml", DQN),
    "dqn32": ("configs/minatar/base.yaml", (*DQN, "training.replay_ratio=32")),
}


@dataclass(frozen=True)
class Run:
    """One learning run.

    Attributes:
        name: Of its folder below benchmarks/evidence.
        config: What is run.
        seed: Of everything that is random.
        episodes: Greedy ones on fresh seeds, at the end.
        settings: What is changed in `config`.
        env_steps: Its length, if not that of `config`.
        folder: Where it is trained, below runs/evidence, if not in `name`. A longer run with the
            folder of a shorter one goes on with it.
        is_small: Of many: only numbers are kept, and those of training thinned out.
        game: Of MinAtar.
    """

    name: str
    config: str
    seed: int = 0
    episodes: int = 100
    settings: tuple[str, ...] = ()
    env_steps: int | None = None
    folder: str | None = None
    is_small: bool = False
    game: str | None = None

    @property
    def shipped_name(self) -> str:
        return Path(self.config).relative_to("configs").with_suffix("").as_posix()

    @property
    def config_name(self) -> str:
        return Path(self.config).stem

    @property
    def changes(self) -> tuple[str, ...]:
        """All settings."""
        length = () if self.env_steps is None else (f"stop.env_steps={self.env_steps}",)
        return (*self.settings, *length)


def minatar_name(length: str, game: str, variant: str, seed: int) -> str:
    """The name of a run of MinAtar."""
    return f"minatar/{length}/{game}-{variant}-{seed}"


def planned(length: str, game: str, variant: str) -> list[Run]:
    """The runs of a cell of the table, one for each seed."""
    stem = minatar_name(length, game, variant, 0).rpartition("-")[0]
    return [run for run in SUITE if run.name.rpartition("-")[0] == stem]


def minatar(
    length: str, games: Iterable[str], variants: Iterable[str], seeds: Iterable[int]
) -> Iterator[Run]:
    """A block of MinAtar: every game and variant with the first seed, then with the next."""
    games, variants = tuple(games), tuple(variants)
    for seed in seeds:
        for game in games:
            for variant in variants:
                config, settings = VARIANTS[variant]
                yield Run(
                    minatar_name(length, game, variant, seed),
                    config,
                    seed,
                    settings=(f"environment.env_config.game={game}", *settings),
                    env_steps=LENGTHS[length],
                    folder=f"minatar/{game}-{variant}-{seed}",
                    is_small=True,
                    game=game,
                )


def tutorials() -> Iterator[Run]:
    """The PyTorch notebook with five seeds, the Keras tutorial with two: prioritized, uniform."""
    for name, config, seeds, episodes in (
        ("notebook", "configs/seeds/cartpole_per.yaml", 5, 100),
        ("d3qn", "configs/seeds/cartpole_d3qn.yaml", 2, 20),
    ):
        for seed in range(seeds):
            for kind in ("prioritized", "uniform"):
                settings = (f"replay.type={kind}",)
                yield Run(f"tutorials/{name}-{kind}-{seed}", config, seed, episodes, settings)


# With the tutorial's own settings units die within 3,000 updates: by a target that follows at once,
# and by the learning rate.
AS_PUBLISHED = (
    "training.lr=1e-3",
    "training.tau=0.08",
    "model.layer_norm=false",
    "training.num_steps_sampled_before_learning_starts=50000",
    "training.epsilon={type: linear, initial: 1.0, final: 0.1, steps: 500000, start: 50000}",
    "stop={env_steps: 1500000, time_s: 7200}",
)


# What the file says by now; the runs that are kept were begun before it did.
LIVING = (
    "training.lr=1e-4",
    "training.tau=5e-4",
    "model.layer_norm=true",
    "training.num_steps_sampled_before_learning_starts=5000",
    "training.epsilon={type: linear, initial: 1.0, final: 0.1, steps: 30000}",
    "stop.time_s=null",
)


def space_invaders_tutorial() -> Iterator[Run]:
    """The TensorFlow tutorial with units that live and a target that follows slowly."""
    for seed in range(2):
        yield Run(
            f"tutorials/space_invaders-{seed}",
            "configs/seeds/space_invaders.yaml",
            seed,
            30,
            LIVING,
            env_steps=200_000,
        )


def cartpole_steady() -> Iterator[Run]:
    """Whether CartPole stays solved, when training goes on.

    Its settings were chosen with seeds 0, 1 and 2; seeds 5 to 9 had no part in anything.
    """
    settings = ("stop.target_return=null",)
    for seed in range(10):
        name = f"cartpole-steady-{seed}"
        yield Run(
            name, "configs/cartpole.yaml", seed, 100, settings, env_steps=100_000, is_small=True
        )


# As Pong was first learned.
THREE_STEPS = ("training.n_step=3", "evaluation.interval_env_steps=50000")

FIRST_GAMES, LAST_GAMES = GAMES[:3], GAMES[3:]

SUITE = (
    *(Run(f"cartpole-{seed}", "configs/cartpole.yaml", seed) for seed in range(5)),
    Run("cartpole-per-seed", "configs/seeds/cartpole_per.yaml"),
    Run("cartpole-d3qn-seed", "configs/seeds/cartpole_d3qn.yaml", episodes=20),
    *(Run(f"frozenlake-{seed}", "configs/frozenlake.yaml", seed) for seed in range(3)),
    *(Run(f"taxi-{seed}", "configs/taxi.yaml", seed) for seed in range(3)),
    *(
        Run(f"cartpole-dict-{seed}", "configs/cartpole.yaml", seed, settings=CARTPOLE_OF_LEAVES)
        for seed in range(3)
    ),
    *(Run(f"minigrid-{seed}", "configs/minigrid.yaml", seed) for seed in range(3)),
    Run("pong-small-n3-0", "configs/atari/pong_small.yaml", 0, 20, THREE_STEPS),
    Run(
        "space-invaders-seed",
        "configs/seeds/space_invaders.yaml",
        episodes=20,
        settings=AS_PUBLISHED,
    ),
    *cartpole_steady(),
    *minatar("500k", FIRST_GAMES, ("base", "per"), range(3)),
    *minatar("500k", FIRST_GAMES, ("rainbow", "iqn"), range(3)),
    *minatar("500k", FIRST_GAMES, ("per_huber", "base_huber"), range(3)),
    *minatar("500k", FIRST_GAMES, ("per_schaul", "base_quarter_lr"), range(3)),
    *minatar("500k", ("breakout", "space_invaders"), ("iqn_noise",), (0,)),
    *space_invaders_tutorial(),
    *(Run(f"pong-small-{seed}", "configs/atari/pong_small.yaml", seed, 20) for seed in range(3)),
    Run("pong-rainbow-0", "configs/atari/rainbow_small.yaml", episodes=20),
    Run("space-invaders-small-0", "configs/atari/space_invaders_small.yaml"),
    *minatar("500k", FIRST_GAMES, ("dqn",), range(3)),
    *minatar("500k", FIRST_GAMES, ("iqn_munchausen",), range(3)),
    *tutorials(),
    *minatar("1m", FIRST_GAMES, ("base", "per"), range(3)),
    *minatar("1m", LAST_GAMES, ("base", "per"), range(3)),
    *minatar("1m", GAMES, ("base", "per"), (3, 4)),
    *minatar("1m", GAMES, ("dqn",), range(5)),
    *minatar("500k", ("breakout",), ("dqn32",), range(3)),
    Run("cartpole-apex", "configs/cartpole_apex.yaml"),
    *minatar("5m", GAMES, ("per",), (0,)),
)
