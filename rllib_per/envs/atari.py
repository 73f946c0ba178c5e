# SPDX-License-Identifier: MIT
"""Atari games on ale-py's own vectorised emulator, in next-step autoreset."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from rllib_per.arrays import Array, Bools, Int64s
from rllib_per.did_you_mean import did_you_mean
from rllib_per.envs.long_episodes import LongEpisodes
from rllib_per.extras import import_extra
from rllib_per.frame_stack import FrameStack

# The protocols of the two papers, in ale-py's words where it has one.
# mnih2015: "Human-level control through deep reinforcement learning", Methods.
# machado2018: "Revisiting the Arcade Learning Environment": sticky actions, not no-ops, make a game
# unpredictable; lives and the actions that matter are for the agent to find out.
PROTOCOLS: dict[str, dict[str, Any]] = {
    "mnih2015": {
        "sticky_actions": 0.0,
        "full_action_set": False,
        "life_loss_terminates": True,
        "noop_max": 30,
        "max_frames_per_episode": 18_000,
        "fire_reset": True,
    },
    "machado2018": {
        "sticky_actions": 0.25,
        "full_action_set": True,
        "life_loss_terminates": False,
        "noop_max": 0,
        "max_frames_per_episode": 18_000,
        "fire_reset": False,
    },
}
_SCREEN = (210, 160)
# Half an hour at 60 frames per second: the longest game that the field's evaluations know.
_LONGEST_GAME_FRAMES = 108_000


class AtariGames(LongEpisodes):
    """Several games of one title, played in threads; observations are stacks of grey frames.

    `terminated` is also True where a life was lost, if `life_loss_terminates`: the value ends
    there, but the game and its frames go on; `episodes_over` says where the game is over and the
    next step resets. Rewards are never clipped here, so returns are those of whole games.

    Attributes:
        frame_stack: How the observations stack frames.
        max_env_steps_per_episode: An evaluation needs to play no game for longer.
    """

    metadata = {  # noqa: RUF012
        "render_modes": ["rgb_array"],
        "render_fps": 15,
        "autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        *,
        game: str,
        protocol: str = "mnih2015",
        frame_size: tuple[int, int] = (84, 84),
        frame_stack: int = 4,
        frame_skip: int = 4,
        num_threads: int = 0,
        render_mode: str | None = None,
        **overrides: Any,
    ) -> None:
        """
        Args:
            num_envs: N.
            game: A title as in "Pong" or "space_invaders".
            protocol: "mnih2015" or "machado2018": the settings of `PROTOCOLS`.
            frame_size: (height, width) in pixels of a frame.
            frame_stack: Frames per observation.
            frame_skip: Emulator frames per env step.
            num_threads: 0 is as many as there are cores and games.
            render_mode: "rgb_array" lets `render()` return the screens, in colour and full size,
                for twice the work.
            overrides: Settings of the protocol to change.
        Raises:
            ValueError: An argument is out of range, or there is no such game or setting.
        """
        settings = _settings(protocol, overrides)
        height, width = _check_frame_size(frame_size)
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"`render_mode` must be None or 'rgb_array': got {render_mode!r}")
        common = {
            "game": find_game(game),
            "num_envs": num_envs,
            "num_threads": num_threads,
            "frameskip": frame_skip,
            "repeat_action_probability": settings["sticky_actions"],
            "full_action_space": settings["full_action_set"],
            "noop_max": settings["noop_max"],
            "use_fire_reset": settings["fire_reset"],
            "max_num_frames_per_episode": settings["max_frames_per_episode"],
            # Not `episodic_life`, which ends the whole game at a lost life.
            "life_loss_info": settings["life_loss_terminates"],
            "reward_clipping": False,
        }
        make = _ale_py().vector_env.AtariVectorEnv
        self._emulator = make(**common, img_height=height, img_width=width, stack_num=frame_stack)
        # The same games again for looking at: equal seeds and actions keep them the same.
        self._screens = None
        if render_mode == "rgb_array":
            size = {"img_height": _SCREEN[0], "img_width": _SCREEN[1]}
            self._screens = make(**common, **size, stack_num=1, grayscale=False)
        self._max_frames = settings["max_frames_per_episode"]
        longest = max(_LONGEST_GAME_FRAMES, self._max_frames)
        self.max_env_steps_per_episode = -(-longest // frame_skip)
        self.render_mode = render_mode
        self.num_envs = num_envs
        self.frame_stack = FrameStack(frame_stack, "zero")
        for space in (
            "single_observation_space",
            "observation_space",
            "single_action_space",
            "action_space",
        ):
            setattr(self, space, getattr(self._emulator, space))

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin new games everywhere; game i gets `seed` + i, or `seed[i]`."""
        if seed is None and self._screens is not None:
            seed = int(np.random.SeedSequence().generate_state(1)[0] >> 1)
        seeds = _emulator_seeds(seed, self.num_envs)
        obs, infos = self._emulator.reset(seed=seeds)
        self._lives = infos["lives"]
        self._first_frames = infos["episode_frame_number"]
        self.episodes_over = np.zeros(self.num_envs, np.bool_)
        if self._screens is not None:
            self._drawn = self._screens.reset(seed=seeds)[0]
        return obs, infos

    def step(self, actions: Int64s) -> tuple[Array, Array, Bools, Bools, dict[str, Any]]:
        """One env step of every game, or its reset where it was over."""
        obs, rewards, terminated, truncated, infos = self._emulator.step(actions)
        self.episodes_over = self._find_over(terminated, truncated, infos)
        if self._screens is not None:
            self._drawn = self._screens.step(actions)[0]
        return obs, rewards, terminated, truncated, infos

    def _find_over(self, terminated: Bools, truncated: Bools, infos: dict[str, Any]) -> Bools:
        lives, frames = infos["lives"], infos["episode_frame_number"]
        # A game that is over has no life left, or as many as before (Adventure).
        life_was_lost = (lives < self._lives) & (lives > 0)
        self._lives = lives
        self._first_frames = np.where(self.episodes_over, frames, self._first_frames)
        # ale-py leaves `truncated` False where a life is lost on the very step of the frame cap.
        at_cap = frames - self._first_frames >= self._max_frames
        over: Bools = truncated | (terminated & (~life_was_lost | at_cap))
        return over

    def close_extras(self, **kwargs: Any) -> None:
        """Let the emulators go."""
        self._emulator = self._screens = None

    def render(self) -> tuple[Any, ...] | None:
        """The screens as (210, 160, 3) uint8 each, if `render_mode` is "rgb_array"."""
        return None if self._screens is None else tuple(self._drawn[:, 0])


def find_game(name: str) -> str:
    """ale-py's id of a game, such as "space_invaders" for "SpaceInvaders".

    Raises:
        ValueError: There is no such game for one player.
    """
    games = _games()
    game = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    if game not in games:
        hint = did_you_mean(game, games, f"there are {', '.join(sorted(games))}")
        raise ValueError(f"`game` must be an Atari game of ale-py: got {name!r}{hint}")
    return game


def _games() -> set[str]:
    """Of the ROMs in ale-py, those that Gymnasium lists: the others abort the process."""
    gym.register_envs(_ale_py())
    return {s.kwargs["game"] for s in gym.registry.values() if s.namespace == "ALE"}


def _ale_py() -> Any:
    return import_extra("atari", "ale_py", "An Atari game")


def _settings(protocol: str, overrides: dict[str, Any]) -> dict[str, Any]:
    if protocol not in PROTOCOLS:
        names = " or ".join(map(repr, PROTOCOLS))
        raise ValueError(f"`protocol` must be {names}: got {protocol!r}")
    settings = PROTOCOLS[protocol]
    for name in overrides.keys() - settings:
        hint = did_you_mean(name, settings, f"there are {', '.join(sorted(settings))}")
        raise ValueError(f"{name!r} is no setting of an Atari protocol{hint}")
    settings = settings | overrides
    if not 0.0 <= settings["sticky_actions"] <= 1.0:
        raise ValueError(
            f"`sticky_actions` must be a probability: got {settings['sticky_actions']!r}"
        )
    return settings


def _check_frame_size(frame_size: Any) -> tuple[int, int]:
    size = tuple(frame_size)
    if len(size) != 2 or not all(isinstance(n, int) and 1 <= n <= 1024 for n in size):
        raise ValueError(
            f"`frame_size` must be (height, width) in pixels, 1 to 1024 each: got {frame_size!r}"
        )
    return size


def _emulator_seeds(seed: int | Sequence[int] | None, num_envs: int) -> Array | None:
    """As ale-py takes them: one per game, of 31 bits."""
    if seed is None:
        return None
    seeds = seed + np.arange(num_envs) if np.ndim(seed) == 0 else np.asarray(seed, np.int64)
    return seeds & 0x7FFFFFFF
