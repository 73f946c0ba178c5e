# SPDX-License-Identifier: MIT
"""Prioritized replay for stable-baselines3: a buffer for its DQN, and a DQN that uses all of it."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from rllib_per.arrays import Array, Int64s
from rllib_per.replay import FrameSpec, RowSpec
from rllib_per.replay import PrioritizedReplayBuffer as Replay

try:
    from stable_baselines3 import DQN
    from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
    from stable_baselines3.common.type_aliases import DictReplayBufferSamples, ReplayBufferSamples
    from stable_baselines3.common.vec_env import VecNormalize
except ImportError as error:
    raise ImportError(
        f"rllib_per.sb3 needs stable-baselines3 2.9 or newer ({error}): "
        "pip install 'rllib-per[sb3]'"
    ) from error


class PrioritizedSamples(NamedTuple):
    """A batch with what prioritized replay adds to it.

    Attributes:
        samples: As stable-baselines3 has them, n-step returns as rewards.
        importance_weights: (B, 1).
        ids: (B,); TD errors go back beside them.
    """

    samples: ReplayBufferSamples
    importance_weights: Tensor
    ids: Int64s


class PrioritizedReplayBuffer(ReplayBuffer):
    """`replay_buffer_class` of stable-baselines3's DQN, for any spaces that it takes.

    `PrioritizedDQN` gives TD errors back. Other algorithms draw from it too, but send no
    priorities: then every transition is as likely as any other. `save_replay_buffer` and
    `load_replay_buffer` work: draws go on as if nothing had happened.

    Args:
        buffer_size: Rows of all environments together. An episode of L steps takes L + 1.
        handle_timeout_termination: Bootstrap where a time limit ended the episode.
        n_steps: Steps of a window, or an inclusive range, as in `rllib_per.replay`.
        gamma: γ of n-step returns: that of the algorithm. Required for more than one step.
        stack: Frames that the first axis of an observation stacks, which are stored once then.
        stack_padding: "zero" (`VecFrameStack`) or "repeat" (Gymnasium's `FrameStackObservation`).
        seed: Of the draws; None: of NumPy's global generator, which the algorithm's seed has set.
        options: Further ones of `rllib_per.replay.PrioritizedReplayBuffer`, such as alpha.

    Attributes:
        replay: The buffer itself.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
        *,
        n_steps: int | tuple[int, int] = 1,
        gamma: float | None = None,
        stack: int | None = None,
        stack_padding: str = "zero",
        seed: int | None = None,
        **options: Any,
    ) -> None:
        # Not ReplayBuffer's: it allocates all arrays a second time.
        BaseBuffer.__init__(self, buffer_size, observation_space, action_space, device, n_envs)
        self.optimize_memory_usage = optimize_memory_usage  # Frames are stored once in any case.
        self.handle_timeout_termination = handle_timeout_termination
        self._is_one_step = n_steps in (1, (1, 1))
        if gamma is None and not self._is_one_step:
            raise ValueError(
                f"n_steps={n_steps} needs the algorithm's gamma: pass replay_buffer_kwargs="
                f"{{'n_steps': {n_steps}, 'gamma': 0.99}}, or use PrioritizedDQN, which does"
            )
        self.gamma = gamma
        self._arguments = {
            "capacity": buffer_size,
            "rows": self._row_spec(stack, stack_padding),
            "n_step": n_steps,
            "gamma": 1.0 if gamma is None else gamma,
            "seed": int(np.random.randint(2**31)) if seed is None else seed,
            **options,
        }
        self.reset()

    def _row_spec(self, stack: int | None, stack_padding: str) -> RowSpec:
        dtype = self._maybe_cast_dtype(self.action_space.dtype)
        action: dict[str, Any] = {"action_shape": self.action_space.shape, "action_dtype": dtype}
        space = self.observation_space
        if isinstance(space, spaces.Dict):
            if stack is not None:
                raise ValueError("stack is of a single observation: this one is a Dict")
            shapes = cast(dict[str, tuple[int, ...]], self.obs_shape)
            leaves = {
                key: FrameSpec(shapes[key], np.dtype(leaf.dtype)) for key, leaf in space.items()
            }
            return RowSpec(leaves=leaves, **action)
        if stack is not None and self.obs_shape[:1] != (stack,):
            raise ValueError(
                f"stack={stack} must be the first axis of an observation: got {self.obs_shape}"
            )
        frame_shape = self.obs_shape if stack is None else self.obs_shape[1:]
        frames: dict[str, Any] = {"stack": stack, "stack_padding": stack_padding}
        return RowSpec(frame_shape, np.dtype(space.dtype), **frames, **action)

    def reset(self) -> None:
        """Empty the buffer."""
        super().reset()
        self.replay = Replay(**self._arguments)

    def size(self) -> int:
        """Transitions that can be drawn."""
        return len(self.replay)

    def add(
        self,
        obs: Any,
        next_obs: Any,
        action: Array,
        reward: Array,
        done: Array,
        infos: list[dict[str, Any]],
    ) -> None:
        """One step of all environments; `next_obs` holds the final observations, as it does."""
        ended = np.array(done, np.bool_)
        truncated = np.zeros_like(ended)
        if self.handle_timeout_termination:
            timeouts = [bool(info.get("TimeLimit.truncated", False)) for info in infos]
            truncated = ended & np.array(timeouts)
        spec = self.replay.rows
        # `learn` may reset the environments at any step.
        self.replay.add_step(
            self._leaves(obs),
            action.reshape(self.n_envs, *spec.action_shape).astype(spec.action_dtype, copy=False),
            reward,
            self._leaves(next_obs),
            ended & ~truncated,
            truncated,
            autoreset_mode="Disabled",
        )

    def _leaves(self, obs: Any) -> Any:
        """(N, *shape) of the space's dtype: Discrete observations come without their axis."""
        if isinstance(obs, dict):
            shapes = cast(dict[str, tuple[int, ...]], self.obs_shape)
            return {
                key: np.asarray(leaf, self.observation_space[key].dtype).reshape(-1, *shapes[key])  # type: ignore[index]
                for key, leaf in obs.items()
            }
        return np.asarray(obs, self.observation_space.dtype).reshape(-1, *self.obs_shape)

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        """Draw transitions for an algorithm that knows no importance weights."""
        return self.draw(batch_size, 0.0, env).samples

    def draw(
        self, batch_size: int, beta: float, env: VecNormalize | None = None
    ) -> PrioritizedSamples:
        """Draw transitions, on the buffer's device, with the importance weights of β = `beta`.

        Args:
            env: Normalizes observations and n-step returns.
        """
        batch = self.replay.sample(batch_size, beta)
        discounts = batch.bootstrap_discounts[:, None]
        obs, next_obs = (
            self._to_tensors(self._normalize_obs(o, env)) for o in (batch.obs, batch.next_obs)
        )
        kind = DictReplayBufferSamples if isinstance(obs, dict) else ReplayBufferSamples
        samples = kind(
            observations=obs,
            actions=self._to_tensors(batch.actions.reshape(batch_size, self.action_dim)),
            next_observations=next_obs,
            dones=self._to_tensors((discounts == 0.0).astype(np.float32)),
            rewards=self._to_tensors(self._normalize_reward(batch.n_step_returns[:, None], env)),
            # Of one step, the algorithm's own γ.
            discounts=None if self._is_one_step else self._to_tensors(discounts),
        )
        weights = self._to_tensors(batch.importance_weights[:, None])
        return PrioritizedSamples(cast(ReplayBufferSamples, samples), weights, batch.ids)

    def _to_tensors(self, arrays: Any) -> Any:
        if isinstance(arrays, dict):
            return {key: self.to_torch(array, copy=False) for key, array in arrays.items()}
        return self.to_torch(arrays, copy=False)

    def update_priorities(self, ids: Int64s, td_errors: Array) -> None:
        """TD errors (B,) of drawn transitions, in any order, at any time."""
        self.replay.update_priorities(ids, td_errors)

    def _get_samples(self, batch_inds: Array, env: VecNormalize | None = None) -> Any:
        raise NotImplementedError("transitions are drawn by priority, not by position: call sample")


class PrioritizedDQN(DQN):
    """stable-baselines3's DQN with prioritized replay (Schaul et al. 2016).

    Each loss is multiplied by its importance weight, and TD errors go back to the buffer. With
    `double_q` False all else is DQN's, so that a comparison differs in the replay alone. The buffer
    gets the algorithm's `n_steps` and `gamma`; its other options stand in `replay_buffer_kwargs`.

    Args:
        beta: β at first; it rises to 1 linearly over the training.
        double_q: The online network chooses the action that the target network rates.
    """

    replay_buffer: PrioritizedReplayBuffer

    def __init__(
        self, *args: Any, beta: float = 0.4, double_q: bool = False, **kwargs: Any
    ) -> None:
        if not 0.0 <= beta <= 1.0:
            raise ValueError(f"beta must be in [0, 1]: got {beta}")
        self.beta, self.double_q = beta, double_q
        super().__init__(*args, **kwargs)

    def _setup_model(self) -> None:
        kind = self.replay_buffer_class or PrioritizedReplayBuffer
        if not issubclass(kind, PrioritizedReplayBuffer):
            raise ValueError(
                "replay_buffer_class must be rllib_per.sb3.PrioritizedReplayBuffer, which is the "
                f"default, or derived from it: got {kind.__name__}"
            )
        given = self.replay_buffer_kwargs
        if given.get("gamma", self.gamma) != self.gamma:
            raise ValueError(
                f"gamma of the buffer must be that of the algorithm, {self.gamma}: got "
                f"{given['gamma']}; leave it out of replay_buffer_kwargs"
            )
        self.replay_buffer_class = kind
        self.replay_buffer_kwargs = {"n_steps": self.n_steps, "gamma": self.gamma, **given}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`n_steps=.*is ignored")  # Just not by this class.
            super()._setup_model()

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """Updates, as DQN makes them."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        beta = 1.0 - (1.0 - self.beta) * min(max(self._current_progress_remaining, 0.0), 1.0)
        losses = []
        for _ in range(gradient_steps):
            batch = self.replay_buffer.draw(batch_size, beta, self._vec_normalize_env)
            td_errors = self._td_errors(batch.samples)
            each = smooth_l1_loss(td_errors, torch.zeros_like(td_errors), reduction="none")
            loss = (batch.importance_weights * each).mean()
            losses.append(loss.item())
            self.policy.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
            self.policy.optimizer.step()
            self.replay_buffer.update_priorities(batch.ids, td_errors.detach()[:, 0].cpu().numpy())
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/loss", np.mean(losses))
        self.logger.record("train/beta", beta)

    def _td_errors(self, samples: ReplayBufferSamples) -> Tensor:
        """R + γ^k max_a Q'(s', a) - Q(s, a), (B, 1)."""
        discounts = self.gamma if samples.discounts is None else samples.discounts
        with torch.no_grad():
            next_q = self.q_net_target(samples.next_observations)
            chooser = self.q_net(samples.next_observations) if self.double_q else next_q
            next_value = next_q.gather(1, chooser.argmax(1, keepdim=True))
            targets = samples.rewards + (1.0 - samples.dones) * discounts * next_value
        q_taken = self.q_net(samples.observations).gather(1, samples.actions.long())
        return cast(Tensor, targets - q_taken)
