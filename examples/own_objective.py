# SPDX-License-Identifier: MIT
"""An objective of your own: the softmax Bellman operator (Song et al. 2019) on CartPole.

    python examples/own_objective.py

It bootstraps from Σ_a softmax(Q(s', ·)/τ)_a · Q(s', a), which overestimates less than the maximum.
"""

import argparse

import torch

from rllib_per import ApexDQNConfig
from rllib_per.objectives import Losses, Objective
from rllib_per.objectives.losses import q_targets, select_actions, td_losses


class SoftmaxBootstrap(Objective):
    """y = R + γᵏ·Σ_a π(a)·Q_target(s', a), with π = softmax(Q_target(s', ·)/τ)."""

    def __init__(self, settings, temperature=0.1):
        super().__init__(settings)
        self.temperature = temperature

    def losses(self, batch, networks):
        next_q = networks.target(batch.next_obs).q
        policy = torch.softmax(next_q / self.temperature, dim=1)
        targets = q_targets(
            batch.n_step_returns, batch.bootstrap_discounts, (policy * next_q).sum(dim=1)
        )
        q_taken = select_actions(networks.online(batch.obs).q, batch.actions)
        td_errors = (targets - q_taken).detach()
        return Losses(
            loss=td_losses(q_taken, targets, self.settings.td_error_loss_fn),
            td_errors=td_errors,
            priority=td_errors,
            q_taken=q_taken.detach(),
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="two iterations only")
    arguments = parser.parse_args()
    config = (
        ApexDQNConfig()
        .environment("CartPole-v1")
        .env_runners(num_envs_per_env_runner=4)
        .training(
            objective={"type": SoftmaxBootstrap, "temperature": 0.05},
            n_step=3,
            lr=1e-3,
            train_batch_size_per_learner=64,
            replay_ratio=8,
        )
    )
    algorithm = config.build_algo()
    for _ in range(2 if arguments.smoke else 30):
        result = algorithm.train()
        print(result["env_runners"]["episode_return_mean"])
    algorithm.stop()


if __name__ == "__main__":
    main()
