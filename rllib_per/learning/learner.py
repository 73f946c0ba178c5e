# SPDX-License-Identifier: MIT
"""ApexDQNLearner: RLlib's DQN learner with a gradient step that takes columns as they come."""

from __future__ import annotations

import copy
import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.dqn.dqn_learner import DQNLearner
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.connectors.common.add_observations_from_episodes_to_batch import (
    AddObservationsFromEpisodesToBatch,
)
from ray.rllib.connectors.learner.add_next_observations_from_episodes_to_train_batch import (
    AddNextObservationsFromEpisodesToTrainBatch,
)
from ray.rllib.core import (
    COMPONENT_METRICS_LOGGER,
    COMPONENT_OPTIMIZER,
    COMPONENT_RL_MODULE,
)
from ray.rllib.core.learner.learner import LR_KEY
from ray.rllib.core.rl_module.apis import SelfSupervisedLossAPI
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from ray.rllib.utils.metrics import (
    LAST_TARGET_UPDATE_TS,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES_LIFETIME,
    WEIGHTS_SEQ_NO,
)

from rllib_per.action_masks import has_mask
from rllib_per.arrays import Allocator
from rllib_per.learning.module import require_finite, shapes_of
from rllib_per.learning.optimizers import build_optimizer, keep_settings
from rllib_per.learning.rllib_hooks import (
    HOOKS_OF_A_STEP,
    LOSS_HOOKS,
    HookedStep,
    columns_of_rllib,
    losses_from_metrics,
    overridden,
    refuse_changes,
    rllib_columns,
    warn_of_slower_path,
)
from rllib_per.learning.rllib_metrics import log_losses, log_updates, rllib_timesteps
from rllib_per.learning.step import UpdateStep
from rllib_per.learning.target_network import TargetClock, TargetNetworks
from rllib_per.learning.transfer import make_transfer, masks_apart
from rllib_per.learning.update_parts import health_of, network_pair, objective_from, recycler_of
from rllib_per.objectives import (
    Expected,
    Losses,
)
from rllib_per.own_forwards import has_own_forward
from rllib_per.replay.fragment import PriorityUpdate, TransitionBatch
from rllib_per.replay.leaves import ObservationTree
from rllib_per.schedules import schedule
from rllib_per.settings.algorithm import Settings
from rllib_per.settings.section import as_dict
from rllib_per.settings.training import Training
from rllib_per.sharding.batches import join


class ApexDQNLearner(DQNTorchLearner):
    """`update_from_replay` is the lean step; everything else of RLlib's `Learner` works as ever.

    Trains one module, which implements QNetAPI and TargetNetworkAPI. With N learners each takes its
    slice of a batch, in lock-step, and gradients are averaged before they are clipped, as RLlib
    does: the same step as one learner's on the whole batch.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Of `configure_optimizers_for_module`; None if a subclass made others in its place.
        self._default_optimizer: Any = None
        self._losses: Losses | None = None
        # Of RLlib's `update`, for units that begin again.
        self._last_obs: Any = None
        self._is_in_step = False

    def build(self) -> None:
        if self._is_built:
            return
        self._require_gpu()
        # DQNLearner.build asks for a connector pipeline, which this learner may do without.
        super(DQNLearner, self).build()
        if self._learner_connector is not None and (
            self.config.add_default_connectors_to_learner_pipeline
        ):
            self._learner_connector.insert_after(
                AddObservationsFromEpisodesToBatch, AddNextObservationsFromEpisodesToTrainBatch()
            )
        if self._learner_connector is not None:
            refuse_changes(self._learner_connector)
        self.module_id, self._net = self._only_module()
        self._net.make_target_networks()
        self._bind()

    def _require_gpu(self) -> None:
        """RLlib names an index that is not valid, or computes on the CPU without a word."""
        wanted = self.config.settings().learners.num_gpus_per_learner
        if wanted and not torch.cuda.is_available():
            raise ValueError(
                f"`num_gpus_per_learner` is {wanted:g}, and PyTorch {torch.__version__} sees no "
                "GPU in the learner's process: install its CUDA build and the driver there, or "
                "set learners(num_gpus_per_learner=0)"
            )

    def _only_module(self) -> tuple[str, Any]:
        if len(self.module) != 1:
            raise ValueError(f"ApexDQNLearner trains one module: got {sorted(self.module.keys())}")
        module_id = next(iter(self.module.keys()))
        net = self.module[module_id].unwrapped()
        for api in self.rl_module_required_apis():
            if not isinstance(net, api):
                raise TypeError(f"{type(net).__name__} must implement RLlib's {api.__name__}")
        if net.is_stateful():
            raise ValueError(
                f"{type(net).__name__} is stateful (`get_initial_state` gives a state), and replay "
                "has transitions and no sequences: take a module without a state, and let the "
                "environment stack its last observations"
            )
        return module_id, net

    def _bind(self) -> None:
        """Look up once what every update needs."""
        asked: Settings = self.config.get_config_for_module(self.module_id).settings()
        training, learners = asked.training, asked.learners
        self._gamma = training.gamma
        self._nested = ObservationTree(self._net.observation_space).nested
        hooks = overridden(type(self), ApexDQNLearner)
        self._calls_before = "before_gradient_based_update" in hooks
        self._calls_after = "after_gradient_based_update" in hooks
        self._has_own_forward_train = has_own_forward(type(self._net), "train")
        if self._has_own_forward_train or isinstance(self._net, SelfSupervisedLossAPI):
            hooks |= LOSS_HOOKS
        hooks &= HOOKS_OF_A_STEP
        spaces = (self._net.observation_space, self._net.action_space)
        self._has_masks = has_mask(*spaces, asked.runners.action_masks)
        self._transfer = make_transfer(self._device, has_masks=self._has_masks)
        objective = objective_from(training)
        is_rllibs = type(objective) is Expected and training.munchausen is None
        if self._has_own_forward_train and not is_rllibs:
            raise ValueError(
                f"{type(self._net).__name__} has a `_forward_train` of its own, which belongs to "
                f"RLlib's loss and to no other: leave `objective`, `distribution`, `num_atoms` and "
                "`munchausen` at their defaults, or take `_forward_train` away"
            )
        make_step: Any = UpdateStep
        if hooks:
            warn_of_slower_path(type(self), type(self._net), hooks)
            make_step = functools.partial(HookedStep, self, hooks)
        self._step: UpdateStep = make_step(
            network_pair(self._net, objective, asked, self._device),
            objective,
            self._default_optimizer,
            TargetNetworks(self._net.get_target_network_pairs()),
            TargetClock(training.target_network_update_freq, training.target_network_update_unit),
            self._transfer,
            grad_clip=training.grad_clip,
            grad_clip_by=training.grad_clip_by,
            log_gradients=asked.logs_gradients,
            num_learners=learners.num_learners,
            updates_targets=not self._calls_after,
            health=health_of(self._net),
            recycler=recycler_of(self._net, asked, self._default_optimizer),
        )
        self.change_settings(training)

    @property
    def batch_allocator(self) -> Allocator:
        """Makes the arrays that batches come fastest from."""
        return self._transfer.allocator

    def change_settings(self, training: Training) -> None:
        """Go by `training` from now on, as far as no part has to be built anew for it."""
        self._step.tau = training.tau
        self._step.target_clock.frequency = training.target_network_update_freq
        self._lr_schedule = schedule(training.lr)

    def configure_optimizers_for_module(
        self, module_id: str, config: AlgorithmConfig | None = None
    ) -> None:
        asked: Settings = (config or self.config).settings()
        training = asked.training
        parameters = self.get_parameters(self._module[module_id])
        optimizer = build_optimizer(
            as_dict(training.optimizer),
            parameters,
            lr=schedule(training.lr)(0),
            adam_epsilon=training.adam_epsilon,
            fused=asked.learners.fused_optimizer,
        )
        self.register_optimizer(module_id=module_id, optimizer=optimizer, params=parameters)
        self._default_optimizer = optimizer

    def update_from_replay(
        self, batch: TransitionBatch, *, timesteps: Mapping[str, int], lr: float | None = None
    ) -> PriorityUpdate | None:
        """One gradient step on a batch from replay (this learner's slice of it, if there are N).

        Args:
            batch: Stays untouched, and must stay so until its TD errors are back.
            timesteps: Lifetime "env_steps" and "episodes", for the target networks' clock.
            lr: The learning rate from now on; None leaves it.

        Returns:
            TD errors δ, signed, beside their ids: this batch's on a CPU; on a GPU the last batch's,
            None the first time, so that nobody waits for the device. `flush` gives what is left.
        """
        if lr is not None and self._default_optimizer is not None:
            self._set_optimizer_lr(self._default_optimizer, lr)
        if not self._net.training:
            self._net.train()
        counts = {**timesteps, "updates": self._weights_seq_no + 1}
        rllibs = rllib_timesteps(counts)
        self._is_in_step = True
        try:
            if self._calls_before:
                self.before_gradient_based_update(timesteps=rllibs)
            update = self._step(batch, counts)
            self._weights_seq_no += 1
            if self._calls_after:
                self.after_gradient_based_update(timesteps=rllibs)
            elif self._optimizer_lr_schedules:
                self._follow_lr_schedules(rllibs)
        finally:
            self._is_in_step = False
        return update

    def update_from_blocks(
        self,
        factors: Sequence[float],
        limit: float,
        *blocks: TransitionBatch,
        asked_at: int | None = None,
        timesteps: Mapping[str, int],
        lr: float | None = None,
    ) -> PriorityUpdate | None:
        """`update_from_replay` on a part of a batch that several replay shards drew, joined here.

        As arguments of their own, references to blocks are fetched while the update before this one
        still runs.
        """
        batch = join(blocks, factors, limit, self._transfer.allocator, asked_at)
        return self.update_from_replay(batch, timesteps=timesteps, lr=lr)

    def flush(self) -> PriorityUpdate | None:
        """The TD errors that `update_from_replay` still owes; None if there are none."""
        return self._step.flush()

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """RLlib's hook at the end of an update: learning rates, units that begin again, targets.

        `update` calls it always, `update_from_replay` where it is overridden.
        """
        env_steps = timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0)
        self._follow_lr_schedules(timesteps)
        if self._default_optimizer is not None and not self._is_in_step:
            self._set_optimizer_lr(self._default_optimizer, self._lr_schedule(env_steps))
        episodes = timesteps.get(NUM_EPISODES_LIFETIME, 0)
        counts = {"env_steps": env_steps, "episodes": episodes, "updates": self._weights_seq_no}
        if self._step.recycler is not None and self._last_obs is not None:
            self._step.recycler.after_update(self._last_obs, self._weights_seq_no)
        self._last_obs = None
        self._step.update_targets(counts)
        if not self._is_in_step:
            self._log_pending_metrics()

    def _follow_lr_schedules(self, timesteps: Mapping[str, Any]) -> None:
        """Those that a subclass registered with optimizers of its own."""
        env_steps = timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0)
        for optimizer, lr_schedule in self._optimizer_lr_schedules.items():
            self._set_optimizer_lr(optimizer, lr_schedule.update(timestep=env_steps))

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> Any:
        """RLlib's hook: the objective's importance-weighted mean loss of RLlib's batch.

        `update` calls it, and so does `update_from_replay` where a subclass overrides it. Where the
        module has a `_forward_train` of its own, it is RLlib's DQN loss of `fwd_out`.
        """
        if self._has_own_forward_train:
            return super().compute_loss_for_module(
                module_id=module_id, config=config, batch=batch, fwd_out=fwd_out
            )
        columns = columns_of_rllib(batch, self._gamma)
        if self._has_masks:
            columns = masks_apart(columns)
        noise = getattr(self._net, "update_noise", None)
        if not self._is_in_step:  # RLlib's `update` has counted itself already.
            self._step.begin_update({"updates": self._weights_seq_no})
            self._last_obs = columns.obs
        elif noise is not None:  # `forward_train` has drawn from it.
            noise.begin(self._weights_seq_no + 1)
        loss, self._losses = self._step.objective_loss(columns)
        if not self._is_in_step:
            log_losses(self.metrics, self.module_id, loss.detach(), self._losses)
        return loss

    def evaluate_by_hooks(self, columns: Any) -> tuple[Any, Losses]:
        """The loss as RLlib computes it: `forward_train`, `compute_losses`, for overriding."""
        batch = rllib_columns(columns, self._gamma, self._nested)
        fwd_out = self._net.forward_train(batch)
        self._losses = None
        losses = self.compute_losses(
            fwd_out={self.module_id: fwd_out}, batch={self.module_id: batch}
        )
        loss = sum(losses.values())
        if self._losses is not None:
            return loss, self._losses
        return loss, losses_from_metrics(self.metrics, self.module_id, loss, batch, fwd_out)

    def pop_metrics(self) -> dict[str, Any]:
        """RLlib's result dict of all updates since the last time."""
        self._log_pending_metrics()
        return self.metrics.reduce()

    def _log_pending_metrics(self) -> None:
        log_updates(self.metrics, self.module_id, self._step)
        self._log_trainable_parameters()  # RLlib's `build` does it once, for the first result.
        for owner, names in self._module_optimizers.items():
            for name in names:
                key = f"{name[len(owner) + 1 :]}_{LR_KEY}"
                lr = self._get_optimizer_lr(self._named_optimizers[name])
                self.metrics.log_value((owner, key), lr, window=1)
        for name, value in (
            (WEIGHTS_SEQ_NO, self._weights_seq_no),
            (LAST_TARGET_UPDATE_TS, self._step.target_clock.last),
        ):
            self.metrics.log_value((self.module_id, name), value, window=1)

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """RLlib's; every way of the weights to an env runner, a file or a user leads through here.

        Raises:
            TrainingDivergedError: They are not finite.
        """
        if self._check_component(COMPONENT_RL_MODULE, components, not_components):
            require_finite(self._net, self._weights_seq_no)
        if self._check_component(COMPONENT_METRICS_LOGGER, components, not_components):
            self._log_pending_metrics()
        state = super().get_state(components, not_components=not_components, **kwargs)
        if self._check_component(LAST_TARGET_UPDATE_TS, components, not_components):
            state[LAST_TARGET_UPDATE_TS] = self._step.target_clock.last
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        if COMPONENT_OPTIMIZER in state:
            # A restore, no sync of weights: RLlib would keep this learner's module if it is newer.
            self._weights_seq_no = 0
            # PyTorch would go on in these very arrays. Out of an object store all learners of a
            # node have the same ones, and would all count their steps in them.
            optimizer = copy.deepcopy(state[COMPONENT_OPTIMIZER])
            state = {**state, COMPONENT_OPTIMIZER: optimizer}
        super().set_state(state)
        if self._default_optimizer is not None:
            keep_settings(self._default_optimizer)
        self._step.target_clock.last = state.get(
            LAST_TARGET_UPDATE_TS, self._step.target_clock.last
        )

    def take_over(self, state: dict[str, Any]) -> None:
        """Go on from another learner's state; its target network is a copy where none is given."""
        self.set_state(state)
        if COMPONENT_OPTIMIZER not in state:
            self._step.target_networks.follow(1.0)

    def export_weights(self) -> tuple[int, dict[str, Any]]:
        """How many updates the weights have seen, and the weights as an env runner takes them."""
        state = self.get_state(components=COMPONENT_RL_MODULE, inference_only=True)
        return self._weights_seq_no, state

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of all weights by name, as they are saved.

        Empty where the module has a `set_state` of its own, which decides what fits.
        """
        if type(self._net).set_state is not TorchRLModule.set_state:
            return {}
        return shapes_of(self._net.get_state())

    def add_module(self, *, module_id: str, **kwargs: Any) -> Any:
        raise NotImplementedError(
            f"ApexDQNLearner trains one module; {module_id!r} cannot be added"
        )
