# SPDX-License-Identifier: MIT
import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.dqn.dqn import DQNConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rllib_per import ApexDQNConfig
from rllib_per.learning.module import ApexDQNModule

VECTOR = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)


def images(*shape, dtype=np.uint8):
    return gym.spaces.Box(0, 255, shape, dtype)


def module(space=VECTOR, model_config=None, *, num_actions=3, inference_only=False):
    torch.manual_seed(0)
    return ApexDQNModule(
        observation_space=space,
        action_space=gym.spaces.Discrete(num_actions),
        model_config=model_config or {},
        inference_only=inference_only,
    )


def observations(space, batch_size=5):
    space.seed(1)
    return torch.from_numpy(np.stack([space.sample() for _ in range(batch_size)]))


def linear_shapes(network):
    return [tuple(m.weight.shape) for m in network.modules() if isinstance(m, torch.nn.Linear)]


@pytest.mark.parametrize(
    ("space", "model_config"),
    [
        (VECTOR, {}),
        (VECTOR, {"dueling": False, "hiddens": []}),
        (gym.spaces.Box(-1, 1, (4, 7), np.float32), {}),
        (images(4, 84, 84), {}),
        (images(4, 84, 84), {"dueling": False, "channels_last": True}),
        (images(4, 42, 42), {}),
        (images(3, 105, 80), {}),
        (images(36, 36), {}),
        (images(4, 84, 84), {"network": "impala", "width": 2}),
        (images(4, 10, 10), {"network": "impala", "channels": [4, 8]}),
        (images(4, 10, 10), {"conv_filters": [[16, 3, 1]], "hiddens": [128]}),
        (images(1, 40, 40, dtype=np.float32), {}),
        (images(4, 84, 84), {"network": "mlp"}),
    ],
    ids=str,
)
def test_every_network_gives_one_value_per_action_and_row(space, model_config):
    q_values = module(space, model_config).compute_q_values({"obs": observations(space)})
    assert q_values["qf_preds"].shape == (5, 3)
    assert q_values["qf_preds"].dtype == torch.float32


def test_the_nature_network_is_the_published_one():
    network = module(images(4, 84, 84), {"dueling": False}).q_network
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [(c.out_channels, c.kernel_size[0], c.stride[0]) for c in convolutions] == [
        (32, 8, 4),
        (64, 4, 2),
        (64, 3, 1),
    ]
    assert linear_shapes(network) == [(512, 3136), (3, 512)]


def test_dueling_streams_share_the_encoder_and_nothing_else():
    network = module(VECTOR, {"encoder_hiddens": [16], "hiddens": [8]}).q_network
    assert linear_shapes(network.encoder) == [(16, 4)]
    assert linear_shapes(network.head.advantage) == [(8, 16), (3, 8)]
    assert linear_shapes(network.head.value) == [(8, 16), (1, 8)]


def test_pixels_are_scaled_and_floats_are_not():
    space = images(4, 36, 36)
    bytes_in = observations(space)
    q_network = module(space).q_network
    torch.testing.assert_close(q_network(bytes_in).q, q_network(bytes_in.float() / 255).q)


def test_channels_last_changes_the_layout_and_not_the_values():
    space = images(4, 36, 36)
    obs = observations(space)
    plain, last = module(space), module(space, {"channels_last": True})
    q_values, others = plain.q_network(obs).q, last.q_network(obs).q
    torch.testing.assert_close(q_values, others, rtol=1e-4, atol=1e-5)


def test_observations_are_left_as_they_are():
    for space in (VECTOR, images(4, 36, 36), images(1, 36, 36, dtype=np.float32)):
        obs = observations(space)
        before = obs.clone()
        module(space).compute_q_values({"obs": obs})
        assert torch.equal(obs, before)


@pytest.mark.parametrize(
    ("space", "model_config", "network"),
    [
        (gym.spaces.Box(0, 1, (12, 20, 10), np.float32), {}, "mlp"),
        (images(4, 128), {}, "mlp"),
        (images(6, 7), {}, "mlp"),
        (images(7, 7, 3), {}, "mlp"),
        (images(4, 10, 10), {}, "mlp"),
        (images(4, 10, 10), {"conv_filters": [[16, 3, 1]]}, "nature"),
        (images(36, 36), {}, "nature"),
        (images(4, 84, 84), {"network": "mlp"}, "mlp"),
    ],
)
def test_boards_planes_and_memory_are_no_images(space, model_config, network):
    built = module(space, model_config).q_network
    has_convolutions = any(isinstance(m, torch.nn.Conv2d) for m in built.modules())
    assert has_convolutions == (network == "nature")


@pytest.mark.parametrize("as_dict", [True, False])
def test_rllibs_model_config_keeps_its_network_sizes(as_dict):
    theirs = DefaultModelConfig(
        fcnet_hiddens=[32, 16], head_fcnet_hiddens=[8], fcnet_activation="tanh"
    )
    model_config = vars(theirs) | {"hiddens": [256]} if as_dict else theirs
    network = module(VECTOR, model_config).q_network
    assert linear_shapes(network.encoder) == [(32, 4), (16, 32)]
    assert linear_shapes(network.head.value) == [(8, 16), (1, 8)]
    assert [type(m) for m in network.encoder if not list(m.parameters())][1:] == [torch.nn.Tanh] * 2


@pytest.mark.parametrize(
    "model_config",
    [
        {"fcnet_hiddens": [64, 64]},
        {"fcnet_hiddens": [64, 64], "head_fcnet_hiddens": [32]},
        {"fcnet_activation": "relu"},
        {"head_fcnet_hiddens": [8]},
        {"fcnet_hiddens": [64, 64], "dueling": False},
    ],
)
def test_a_network_by_rllibs_names_is_rllibs(model_config):
    def build(config_class, model_config):
        config = config_class().environment("CartPole-v1").rl_module(model_config=model_config)
        if isinstance(model_config, dict) and "dueling" in model_config:
            config.training(dueling=False)
        spaces = {"default_policy": (VECTOR, gym.spaces.Discrete(2))}
        return config.get_rl_module_spec(spaces=spaces, inference_only=True).build()

    def layers(module):
        kinds = (torch.nn.Linear, torch.nn.Tanh, torch.nn.ReLU)
        return sorted(repr(m) for m in module.modules() if isinstance(m, kinds))

    theirs, ours = build(DQNConfig, model_config), build(ApexDQNConfig, model_config)
    assert layers(ours) == layers(theirs)
    if "dueling" not in model_config:
        assert layers(build(ApexDQNConfig, DefaultModelConfig(**model_config))) == layers(ours)
    if model_config == {"fcnet_hiddens": [64, 64]}:
        assert sum(p.numel() for p in ours.parameters()) == 4675


def test_rllibs_initializers_fill_the_layers_that_they_name():
    network = module(
        VECTOR,
        {
            "fcnet_hiddens": [8, 4],
            "fcnet_kernel_initializer": "constant_",
            "fcnet_kernel_initializer_kwargs": {"val": 0.5},
            "fcnet_bias_initializer": "zeros_",
            "head_fcnet_hiddens": [6],
            "head_fcnet_kernel_initializer": torch.nn.init.ones_,
        },
    ).q_network
    for layer in (network.encoder[1], network.encoder[3]):
        assert (layer.weight == 0.5).all()
        assert (layer.bias == 0).all()
    for stream in (network.head.advantage, network.head.value):
        assert (stream[0].weight == 1).all()
        assert (stream[2].weight == 1).all()
        assert not (stream[0].bias == 1).any()


def test_what_dqn_config_adds_to_a_model_config_is_accepted():
    added = {"double_q": True, "dueling": True, "epsilon": [(0, 1.0), (10, 0.1)], "num_atoms": 1,
             "std_init": 0.5, "v_max": 10.0, "v_min": -10.0, "hiddens": [32]}  # fmt: skip
    assert linear_shapes(module(VECTOR, added).q_network.head.value) == [(32, 256), (1, 32)]


@pytest.mark.parametrize(
    ("space", "model_config", "message"),
    [
        (VECTOR, {"hidens": [3]}, "no key 'hidens'; did you mean 'hiddens'"),
        (VECTOR, {"use_lstm": True}, r"'use_lstm'\] = True is not supported"),
        (VECTOR, {"fcnet_use_layernorm": True}, "'fcnet_use_layernorm'"),
        (VECTOR, {"num_atoms": 51}, "num_atoms must be 1"),
        (VECTOR, {"conv_filters": [[16, 4, 2]]}, "no effect on the network 'mlp'"),
        (images(4, 42, 42), {"fcnet_hiddens": [7]}, "no effect on the network 'nature'"),
        (images(4, 42, 42), {"conv_filters": [[16, [4, 3], 2]]}, "rows: got"),
        (VECTOR, {"fcnet_kernel_initializer": "zeros"}, "ends with '_'.*got 'zeros'"),
        (VECTOR, {"network": "resnet"}, "must be one of 'mlp', 'nature', 'impala': got 'resnet'"),
        (VECTOR, {"hiddens": [0]}, "integers >= 1"),
        (VECTOR, {"activation": "sin"}, "must be one of relu, tanh"),
        (VECTOR, {"network": "nature"}, r"images must be \(stack, height, width\).*got \(4,\)"),
        (images(4, 20, 20), {}, "need images of 36×36 at least: got 20×20.*network='mlp'"),
        (images(4, 10, 10), {"network": "nature"}, "36×36 at least: got 10×10"),
        (images(64, 64, 4), {}, "looks like.*network='mlp' if they are no images"),
        (images(84, 84, 4), {}, "looks like"),
        (images(4, 84, 84), {"conv_filters": [[32, 8]]}, "rows: got"),
        (gym.spaces.Discrete(4), {}, "needs a Box observation space"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_fix(space, model_config, message):
    with pytest.raises(ValueError, match=message):
        module(space, model_config)


@pytest.mark.parametrize("actions", [gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(3, start=1)])
def test_actions_must_be_discrete_from_zero(actions):
    with pytest.raises(ValueError, match="Discrete action space that starts at 0"):
        ApexDQNModule(observation_space=VECTOR, action_space=actions, model_config={})


def test_target_networks_start_equal_and_take_no_gradient():
    learners = module()
    learners.make_target_networks()
    batch = {"obs": observations(VECTOR)}
    target = learners.forward_target(batch)["qf_preds"]
    assert torch.equal(target, learners.compute_q_values(batch)["qf_preds"])
    assert not target.requires_grad
    assert not any(p.requires_grad for p in learners.target_q_network.parameters())


def test_an_inference_module_takes_a_learners_state_without_the_target():
    learners, runners = module(), module(inference_only=True)
    learners.make_target_networks()
    with torch.no_grad():
        learners.q_network.head.value[-1].bias.add_(1.0)
    state = learners.get_state(inference_only=True)
    assert not any(key.startswith("target_q_network") for key in state)
    runners.set_state(state)
    batch = {"obs": observations(VECTOR)}
    for name in ("forward_inference", "compute_q_values"):
        for mine, theirs in zip(
            getattr(learners, name)(batch).values(),
            getattr(runners, name)(batch).values(),
            strict=True,
        ):
            assert torch.equal(mine, theirs)


def test_a_learners_whole_state_can_be_restored():
    first, second = module(), module()
    for each in (first, second):
        each.make_target_networks()
    with torch.no_grad():
        first.target_q_network.head.value[-1].bias.add_(1.0)
    second.set_state(first.get_state())
    batch = {"obs": observations(VECTOR)}
    assert torch.equal(
        first.forward_target(batch)["qf_preds"], second.forward_target(batch)["qf_preds"]
    )


def test_inference_is_greedy():
    each, batch = module(), {"obs": observations(VECTOR, 50)}
    q_values = each.compute_q_values(batch)["qf_preds"]
    assert torch.equal(each.forward_inference(batch)["actions"], q_values.argmax(dim=1))


def test_exploration_follows_the_epsilon_schedule_of_model_config():
    each = module(VECTOR, {"epsilon": [(0, 1.0), (1000, 0.0)]}, num_actions=4)
    batch = {"obs": observations(VECTOR, 1).repeat(4000, 1)}
    greedy = each.forward_inference(batch)["actions"]
    assert torch.equal(each.forward_exploration(batch, t=1000)["actions"], greedy)
    shares = torch.bincount(each.forward_exploration(batch, t=0)["actions"], minlength=4) / 4000
    # Uniform over 4 actions: 5 standard deviations of a share are 5·sqrt(¼·¾/4000) = 0.034.
    assert (shares - 0.25).abs().max() < 0.034
    half = (each.forward_exploration(batch, t=500)["actions"] == greedy).float().mean()
    assert abs(half - 0.625) < 5 * (0.625 * 0.375 / 4000) ** 0.5
