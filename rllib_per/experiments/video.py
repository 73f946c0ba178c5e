# SPDX-License-Identifier: MIT
"""Whole games as a video."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.error import DependencyNotInstalled

from rllib_per.arrays import Array
from rllib_per.experiments.evaluation import (
    EvaluationStoppedError,
    GreedyPolicy,
    ShouldStop,
    VectorEnv,
)
from rllib_per.experiments.run_folder import write_bytes
from rllib_per.experiments.yaml_source import described
from rllib_per.extras import how_to_install
from rllib_per.runners.vector_env import episodes_over, find_long_episodes


def record_games(
    policy: GreedyPolicy,
    path: Path,
    *,
    num_games: int,
    seed: int,
    max_frames: int | None = None,
    should_stop: ShouldStop | None = None,
) -> list[float]:
    """Play greedily and write what the environment draws; returns each game's return.

    Args:
        policy: Who plays.
        path: Of the mp4, or of the animated gif.
        num_games: How many.
        seed: Of the first game; each has its own.
        max_frames: The video ends there, and a game under way has no return; None: at their end,
            or where an evaluation would cut them.
        should_stop: As of `GreedyPolicy.evaluate`.

    Raises:
        ValueError: The path ends in neither .mp4 nor .gif.
        RuntimeError: imageio-ffmpeg is not installed, or the environment draws nothing.
        EvaluationStoppedError: `should_stop` said so.
    """
    if path.suffix not in (".mp4", ".gif"):
        raise ValueError(f"a video's name must end in .mp4 or .gif: got {path}")
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise RuntimeError(f"videos need more packages: {how_to_install('video')}") from error
    env = drawing_env(policy)
    returns: list[float] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    is_gif = path.suffix == ".gif"
    video = path.with_name(f".{path.stem}.mp4") if is_gif else path
    frames = islice(frames_of(env, policy, num_games, seed, returns, should_stop), max_frames)
    try:
        first = next(frames)
        height, width = first.shape[:2]
        writer = imageio_ffmpeg.write_frames(
            str(video), (width, height), fps=env.metadata.get("render_fps", 30), macro_block_size=2
        )
        writer.send(None)
        try:
            writer.send(first)
            for frame in frames:
                writer.send(frame)
        finally:
            writer.close()
        if is_gif:
            write_bytes(path, as_gif(video, frames_per_s=25))
    finally:
        env.close()
        if is_gif:
            video.unlink(missing_ok=True)
    return returns


def drawing_env(policy: GreedyPolicy) -> VectorEnv:
    """One environment that draws; raises RuntimeError if it does not."""
    for driver in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER"):  # pygame needs no screen, no sound.
        os.environ.setdefault(driver, "dummy")
    try:
        return policy.make_drawing_env()
    except Exception as error:
        raise RuntimeError(
            "the environment cannot be made with render_mode='rgb_array', which pictures need: "
            f"{described(error)}"
        ) from error


def check_drawing(policy: GreedyPolicy) -> None:
    """Whether its environment draws, before hours are spent; raises RuntimeError if it does not."""
    env = drawing_env(policy)
    try:
        env.reset(seed=0)
        _draw(env)
    finally:
        env.close()


def as_gif(video: Path, *, frames_per_s: int = 10) -> bytes:
    """A recorded game as an animated GIF, which TensorBoard shows where it shows no mp4.

    Raises:
        RuntimeError: ffmpeg cannot read it.
    """
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", str(video)]
    palette = "split[a][b];[a]palettegen=max_colors=64[p];[b][p]paletteuse=dither=none"
    command += ["-vf", f"fps={frames_per_s},{palette}", "-f", "gif", "-"]
    try:
        return subprocess.run(command, capture_output=True, check=True).stdout
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"{video}: {error.stderr.decode(errors='replace').strip()}") from error


def frames_of(
    env: VectorEnv,
    policy: GreedyPolicy,
    num_games: int,
    seed: int,
    returns: list[float],
    should_stop: ShouldStop | None = None,
) -> Iterator[Array]:
    """Every picture of greedy games, whose returns are appended to `returns` as they end."""
    long_episodes = find_long_episodes(env)
    for game in range(num_games):
        obs, _ = env.reset(seed=int(seed) + game)
        yield _draw(env)
        total, over, steps_left = 0.0, False, policy.max_length(env)
        while not over and steps_left:
            if should_stop is not None and should_stop():
                raise EvaluationStoppedError(f"stopped while game {game} was recorded")
            steps_left -= 1
            obs, rewards, terminated, truncated, _ = env.step(policy.actions(obs))
            yield _draw(env)
            total += float(rewards[0])
            over = bool(episodes_over(long_episodes, terminated, truncated)[0])
        returns.append(total)


def _draw(env: VectorEnv) -> Array:
    """The first environment's picture.

    Raises:
        RuntimeError: It draws none; the message says what `render` must do.
    """
    try:
        pictures: Any = env.render()
        picture = None if pictures is None else pictures[0]
    except Exception as error:
        is_missing = isinstance(error, (ImportError, DependencyNotInstalled))
        if is_missing and find_spec("pygame") is None:
            raise RuntimeError(
                f"{_name(env)} draws with pygame, which is missing: {how_to_install('video')}"
            ) from error
        raise RuntimeError(_must_draw(env, f"it raised {described(error)}")) from error
    if not isinstance(picture, np.ndarray):
        raise RuntimeError(_must_draw(env, f"it returned {picture!r}"))
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype.kind not in "iu":
        raise RuntimeError(_must_draw(env, f"it returned {picture.shape} of {picture.dtype}"))
    return np.ascontiguousarray(picture, np.uint8)


def _must_draw(env: VectorEnv, found: str) -> str:
    return (
        f"a game is shown in pictures: {_name(env)}.render() must return an array (height, width, "
        f"3) of uint8 where render_mode is 'rgb_array', and {found}"
    )


def _name(env: VectorEnv) -> str:
    base = env.unwrapped
    return type(getattr(base, "envs", [base])[0].unwrapped).__name__
