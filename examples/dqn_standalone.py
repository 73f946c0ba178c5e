# SPDX-License-Identifier: MIT
"""Double DQN with n-step prioritized replay in one file: the replay buffer, torch and Gymnasium.

python examples/dqn_standalone.py                # CartPole-v1, solved in a minute or two
python examples/dqn_standalone.py --smoke        # the same loop for two seconds
"""

import argparse
from collections import deque

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from rllib_per.replay import PrioritizedReplayBuffer


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--num-envs", type=int, default=4)
    parser.add_argument("--env-steps", type=int, default=80_000)
    parser.add_argument("--learning-starts", type=int, default=1_000)
    parser.add_argument("--capacity", type=int, default=50_000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--n-step", type=int, default=3)
    parser.add_argument("--gamma", type=float, default=0.99)
    parser.add_argument("--alpha", type=float, default=0.6)
    parser.add_argument("--beta", type=float, default=0.4, help="annealed to 1")
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--final-epsilon", type=float, default=0.02)
    parser.add_argument("--target-updates", type=int, default=200, help="updates between syncs")
    parser.add_argument("--stop-return", type=float, default=475.0, help="mean of 20 episodes")
    parser.add_argument("--smoke", action="store_true", help="a short run that learns nothing")
    args = parser.parse_args()
    if args.smoke:
        args.env_steps, args.learning_starts = 1_000, 200
    return args


def make_network(envs):
    num_inputs = int(np.prod(envs.single_observation_space.shape))
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(num_inputs, 128),
        nn.ReLU(),
        nn.Linear(128, 128),
        nn.ReLU(),
        nn.Linear(128, int(envs.single_action_space.n)),
    )


def td_errors_of(batch, network, target_network):
    """δ = R + discount · Q'(s', argmax_a Q(s', a)) - Q(s, a); the discount is 0 after the end."""
    obs, next_obs = torch.as_tensor(batch.obs), torch.as_tensor(batch.next_obs)
    q_taken = network(obs).gather(1, torch.as_tensor(batch.actions)[:, None])[:, 0]
    with torch.no_grad():
        best = network(next_obs).argmax(1, keepdim=True)
        next_value = target_network(next_obs).gather(1, best)[:, 0]
    returns, discounts = map(torch.as_tensor, (batch.n_step_returns, batch.bootstrap_discounts))
    return returns + discounts * next_value - q_taken


def main():
    args = parse_args()
    rng = np.random.default_rng(args.seed)
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    envs = gym.make_vec(args.env, num_envs=args.num_envs)  # next-step autoreset
    network, target_network = make_network(envs), make_network(envs)
    target_network.load_state_dict(network.state_dict())
    optimizer = torch.optim.Adam(network.parameters(), lr=args.lr)
    replay = PrioritizedReplayBuffer.for_spaces(
        args.capacity,
        envs.single_observation_space,
        envs.single_action_space,
        n_step=args.n_step,
        gamma=args.gamma,
        alpha=args.alpha,
        seed=args.seed,
    )

    obs, _ = envs.reset(seed=args.seed)
    returns, finished, num_updates = np.zeros(args.num_envs), deque([0.0], maxlen=20), 0
    for step in range(args.env_steps // args.num_envs):
        progress = step * args.num_envs / args.env_steps
        epsilon = max(args.final_epsilon, 1.0 - 5.0 * progress)
        with torch.no_grad():
            actions = network(torch.as_tensor(obs)).argmax(1).numpy()
        explores = rng.random(args.num_envs) < epsilon
        actions = np.where(
            explores, rng.integers(envs.single_action_space.n, size=len(obs)), actions
        )
        next_obs, rewards, terminated, truncated, _ = envs.step(actions)

        replay.add_step(obs, actions, rewards, next_obs, terminated, truncated)
        obs, ended = next_obs, terminated | truncated
        returns += rewards
        finished.extend(returns[ended])
        returns[ended] = 0.0

        if len(replay) >= args.learning_starts:
            batch = replay.sample(args.batch_size, args.beta + (1.0 - args.beta) * progress)
            td_errors = td_errors_of(batch, network, target_network)
            weights = torch.as_tensor(batch.importance_weights)
            losses = nn.functional.huber_loss(
                td_errors, torch.zeros_like(td_errors), reduction="none"
            )
            optimizer.zero_grad()
            (weights * losses).mean().backward()
            optimizer.step()
            replay.update_priorities(batch.ids, td_errors.detach().numpy())
            num_updates += 1
            if num_updates % args.target_updates == 0:
                target_network.load_state_dict(network.state_dict())

        if step % (2_000 // args.num_envs) == 0:
            print(
                f"{step * args.num_envs:7} env steps  return {np.mean(finished):6.1f}", flush=True
            )
        if len(finished) == finished.maxlen and np.mean(finished) >= args.stop_return:
            break
    envs.close()
    print(f"{(step + 1) * args.num_envs} env steps, mean return {np.mean(finished):.1f}")


if __name__ == "__main__":
    main()
