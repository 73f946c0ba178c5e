# SPDX-License-Identifier: MIT
import copy

import pytest
import torch

from rllib_per.learning.target_network import TargetClock, TargetNetworks


def network_pair():
    online = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    target = copy.deepcopy(online).requires_grad_(False)
    with torch.no_grad():
        for tensor in (*online.parameters(), *online.buffers()):
            tensor.add_(2)
    return online, target


def test_a_hard_update_copies_parameters_and_buffers():
    online, target = network_pair()
    TargetNetworks([(online, target)]).follow(1.0)
    for mine, theirs in zip(
        online.state_dict().values(), target.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs)


def test_a_soft_update_interpolates_and_copies_what_cannot_be():
    online, target = network_pair()
    before = copy.deepcopy(target.state_dict())
    networks = TargetNetworks([(online, target)])
    networks.follow(0.25)
    for name, tensor in target.state_dict().items():
        gained = 0.5 if tensor.is_floating_point() else 2
        torch.testing.assert_close(tensor, before[name] + gained)


def test_loading_a_state_does_not_break_the_bond():
    online, target = network_pair()
    networks = TargetNetworks([(online, target)])
    fresh = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    online.load_state_dict(fresh.state_dict())
    networks.follow(1.0)
    assert torch.equal(target[0].weight, fresh[0].weight)


def test_a_clock_that_is_behind_its_last_update_waits_no_longer_than_its_frequency():
    """It counted env steps, and now updates; or counts begin again beside restored learners."""
    clock = TargetClock(10, "updates")
    clock.last = 500_000
    due = [t for t in range(0, 50, 4) if clock.is_due({"updates": t})]
    assert due == [12, 24, 36, 48]


def test_the_clock_waits_its_frequency_from_the_last_update():
    clock = TargetClock(10, "env_steps")
    due = [t for t in range(0, 50, 4) if clock.is_due({"env_steps": t})]
    assert due == [12, 24, 36, 48]
    assert clock.last == 48


def test_a_clock_goes_on_from_its_state():
    clock = TargetClock(10, "updates")
    clock.last = 95
    assert [t for t in range(100, 110) if clock.is_due({"updates": t})] == [105]


def test_a_clock_without_its_count_says_which():
    with pytest.raises(KeyError, match="'episodes', but only \\['env_steps'\\] are counted"):
        TargetClock(10, "episodes").is_due({"env_steps": 3})
