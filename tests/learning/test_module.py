# SPDX-License-Identifier: MIT
import gymnasium as gym
import numpy as np
import pytest
import torch
import tree
from ray.rllib.algorithms.dqn.dqn import DQNConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rllib_per import ApexDQNConfig
from rllib_per.learning.module import ApexDQNModule, require_same_network, shapes_of
from rllib_per.replay.leaves import leaves_of

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
    "theirs", [{"fcnet_hiddens": [32]}, DefaultModelConfig(fcnet_hiddens=[32])]
)
def test_a_size_of_ours_wins_over_what_rllibs_dataclass_has_by_default(theirs):
    config = ApexDQNConfig().environment("CartPole-v1").training(hiddens=[16])
    config.rl_module(model_config=theirs)
    network = config.get_rl_module_spec(env=gym.make("CartPole-v1")).build().q_network
    assert linear_shapes(network.encoder) == [(32, 4)]
    assert linear_shapes(network.head.value) == [(16, 32), (1, 16)]


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


def test_rllibs_names_give_a_distribution_on_atoms():
    net = module(VECTOR, {"num_atoms": 51, "v_min": 0.0, "v_max": 1.0, "hiddens": [32]})
    assert linear_shapes(net.q_network.head.value) == [(32, 256), (51, 32)]
    q_values = net.q_network(torch.zeros(1, *VECTOR.shape)).q
    assert ((q_values > 0) & (q_values < 1)).all()


def test_beside_vectors_images_have_initializers_of_their_own():
    names = ("fcnet_kernel_initializer", "conv_kernel_initializer")
    space = gym.spaces.Dict({"image": images(4, 42, 42), "speed": VECTOR})
    encoder = module(space, dict.fromkeys(names, "zeros_")).q_network.encoder
    assert not encoder["obs/speed"][1].weight.any()
    assert not encoder["obs/image"][0][0].weight.any()


@pytest.mark.parametrize(
    ("space", "model_config", "message"),
    [
        (VECTOR, {"hidens": [3]}, "no key 'hidens'; did you mean 'hiddens'"),
        (VECTOR, {"use_lstm": True}, r"'use_lstm'\] = True is not supported"),
        (VECTOR, {"fcnet_use_layernorm": True}, "'fcnet_use_layernorm'"),
        (VECTOR, {"num_atoms": 51, "v_min": 10.0}, "v_min < v_max: got 51 from 10 to 10"),
        (VECTOR, {"conv_filters": [[16, 4, 2]]}, "no effect on the network 'mlp'"),
        (images(4, 42, 42), {"fcnet_hiddens": [7]}, "no effect on the network 'nature'"),
        (images(4, 42, 42), {"conv_filters": [[16, [4, 3], 2]]}, "rows: got"),
        (VECTOR, {"fcnet_kernel_initializer": "zeros"}, "ends with '_'.*got 'zeros'"),
        (VECTOR, {"conv_kernel_initializer": "orthogonal_"}, "'mlp', which has no convolutions"),
        (images(4, 42, 42), {"fcnet_bias_initializer": "zeros_"}, "which has no dense layers"),
        (images(4, 42, 42), {"network": "impala", "activation": "elu"}, "'elu' has no effect on"),
        (VECTOR, {"network": "resnet"}, "must be one of 'mlp', 'nature', 'impala': got 'resnet'"),
        (VECTOR, {"hiddens": [0]}, "integers >= 1"),
        (VECTOR, {"activation": "sin"}, "'.*activation'.* must be one of 'relu', 'tanh'"),
        (VECTOR, {"network": "nature"}, r"images must be \(height, width\).*shape \(4,\)"),
        (
            images(4, 20, 20),
            {},
            "need images of 36×36 at least: got 20×20.*`network` to 'impala', .* to 'mlp'",
        ),
        (images(4, 10, 10), {"network": "nature"}, "36×36 at least: got 10×10"),
        (
            images(84, 84, 4),
            {"image_format": "WHC"},
            r"one of \('CHW', 'HWC'\), or None: got 'WHC'",
        ),
        (images(4, 84, 84), {"conv_filters": [[32, 8]]}, "rows: got"),
        (gym.spaces.Text(4), {}, "arrays of numbers: got the Text"),
        (gym.spaces.Discrete(4), {"network": "nature"}, "images must be"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_fix(space, model_config, message):
    with pytest.raises(ValueError, match=message):
        module(space, model_config)


def test_actions_that_rllibs_runner_would_get_wrong_are_refused():
    with pytest.raises(ValueError, match=r"counts actions from 0.*ActionsFromZero"):
        ApexDQNModule(
            observation_space=VECTOR, action_space=gym.spaces.Discrete(3, start=5), model_config={}
        )


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


@pytest.mark.parametrize(
    ("there", "here", "named"),
    [
        ({}, {"dueling": False}, "with q_network.head.value.0.bias"),
        ({"dueling": False}, {}, "without q_network.head.value.0.bias"),
        ({}, {"layer_norm": True}, "without q_network.head.advantage.1.bias"),
        ({"spectral_norm": True}, {}, r"with q_network\..*\.u, "),
        ({}, {"spectral_norm": True}, r"without q_network\..*\.u, "),
        ({}, {"hiddens": [7]}, r"has the shape \(256, .*\) there, \(7, .*\) here"),
    ],
)
def test_weights_of_another_network_are_told_apart(there, here, named):
    size = {"network": "impala", "channels": [2], "hiddens": [256]}
    saved, own = (module(images(4, 42, 42), size | each).state_dict() for each in (there, here))
    require_same_network(shapes_of(own), shapes_of(own))
    with pytest.raises(ValueError, match=f"of another network: .*{named}"):
        require_same_network(shapes_of(saved), shapes_of(own))


def test_only_what_has_a_shape_is_compared():
    assert shapes_of({"a": np.zeros((2, 3)), "b": 5, "c": {}}) == {"a": (2, 3)}


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


# -- images and trees ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int16])
@pytest.mark.parametrize(
    ("shape", "moved"), [((40, 48, 3), (3, 40, 48)), ((44, 40, 1), (1, 44, 40))]
)
def test_channels_last_images_are_those_with_channels_first(shape, moved, dtype):
    last, first = module(images(*shape, dtype=dtype)), module(images(*moved, dtype=dtype))
    first.set_state(last.get_state())
    obs = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (5, *shape)).astype(dtype))
    torch.testing.assert_close(last.q_network(obs).q, first.q_network(obs.movedim(-1, 1)).q)


def test_channels_are_moved_without_a_copy():
    encoder = module(images(40, 48, 3, dtype=np.float32)).q_network.encoder
    obs = torch.rand(2, 40, 48, 3)
    assert encoder._inputs(obs).data_ptr() == obs.data_ptr()


def test_stacks_of_colour_images_are_joined_frame_by_frame():
    last, first = module(images(2, 40, 48, 3)), module(images(2, 3, 40, 48))
    joined = module(images(6, 40, 48))
    obs = observations(images(2, 3, 40, 48))
    for each in (first, last):
        each.set_state(joined.get_state())
    expected = joined.q_network(obs.reshape(5, 6, 40, 48)).q
    torch.testing.assert_close(first.q_network(obs).q, expected)
    torch.testing.assert_close(last.q_network(obs.movedim(2, -1)).q, expected)


def test_a_guess_of_the_format_is_overruled():
    def channels(space, **model_config):
        network = module(space, model_config).q_network
        return next(m for m in network.modules() if isinstance(m, torch.nn.Conv2d)).in_channels

    assert channels(images(40, 44, 36)) == 36
    assert channels(images(40, 44, 36), image_format="CHW") == 40
    assert channels(images(40, 44, 48)) == 40
    assert channels(images(40, 44, 48), image_format="HWC") == 48


@pytest.mark.parametrize(
    ("space", "model_config", "scaled"),
    [
        (images(7, 7, 3), {}, False),  # MiniGrid's codes.
        (images(128), {}, False),
        (images(4, 84, 84), {"network": "mlp"}, True),
        (images(7, 7, 3), {"scale_bytes": True}, True),
        (images(4, 36, 36), {"scale_bytes": False}, False),
        (images(4, 10, 10), {"conv_filters": [[16, 3, 1]]}, True),
        (gym.spaces.Box(0, 255, (4,), np.float32), {"scale_bytes": True}, False),
    ],
    ids=str,
)
def test_only_the_bytes_of_images_are_scaled(space, model_config, scaled):
    obs = observations(space)
    inputs = module(space, model_config).q_network.encoder._inputs(obs)
    expected = obs.float().movedim(-1, -3) if inputs.shape != obs.shape else obs.float()
    torch.testing.assert_close(inputs, expected / 255 if scaled else expected)


def test_a_single_number_is_an_input():
    numbers = torch.tensor([3, 5], dtype=torch.uint8)
    space = gym.spaces.Box(0, 9, (), np.uint8)
    each = module(space)
    assert each.q_network.encoder._inputs(numbers).tolist() == [[3], [5]]
    assert each.compute_q_values({"obs": numbers})["qf_preds"].shape == (2, 3)
    beside = module(gym.spaces.Dict(a=space, b=VECTOR))
    obs = {"a": numbers, "b": observations(VECTOR)[:2]}
    assert beside.compute_q_values({"obs": obs})["qf_preds"].shape == (2, 3)


def test_categories_become_ones_among_zeros():
    encoder = module(gym.spaces.Discrete(4, start=2)).q_network.encoder
    assert encoder._inputs(torch.tensor([2, 5])).tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]
    encoder = module(gym.spaces.MultiDiscrete([2, 3], start=[0, 5])).q_network.encoder
    given = torch.tensor([[1, 5], [0, 7]], dtype=torch.int16)
    assert encoder._inputs(given).tolist() == [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]
    assert encoder._inputs(given.to(torch.uint16)).equal(encoder._inputs(given))
    grid = module(gym.spaces.MultiDiscrete([[2, 2], [2, 2]])).q_network.encoder
    assert grid._inputs(torch.tensor([[[0, 1], [1, 0]]])).shape == (1, 8)
    bits = module(gym.spaces.MultiBinary(3)).q_network.encoder
    assert bits._inputs(torch.tensor([[0, 1, 1]], dtype=torch.int8)).tolist() == [[0, 1, 1]]


TREE = gym.spaces.Dict(
    camera=images(36, 40, 3),
    items=gym.spaces.Tuple([VECTOR, gym.spaces.Discrete(3)]),
)


def test_every_leaf_is_encoded_as_if_it_was_alone():
    sizes = {"fcnet_hiddens": [6], "conv_filters": [[4, 8, 4]], "hiddens": [5]}
    network = module(TREE, sizes).q_network
    assert sorted(network.encoder) == ["obs/camera", "obs/items/0", "obs/items/1"]
    for path, space in (("camera", TREE["camera"]), ("items/0", VECTOR)):
        keys = {"conv_filters"} if path == "camera" else {"fcnet_hiddens"}
        alone = module(space, {key: sizes[key] for key in keys} | {"hiddens": [5]}).q_network
        assert str(alone.encoder) == str(network.encoder[f"obs/{path}"])
    assert linear_shapes(network.encoder["obs/items/1"]) == [(6, 3)]
    num_features = sum(encoder.num_features for encoder in network.encoder.values())
    assert num_features == 4 * 8 * 9 + 6 + 6
    assert linear_shapes(network.head.value)[0] == (5, num_features)


@pytest.mark.parametrize("leaf", ["camera", "items/0", "items/1"])
def test_every_leaf_reaches_the_q_values(leaf):
    each = module(TREE)
    TREE.seed(3)
    obs = tree.map_structure(
        lambda *parts: torch.from_numpy(np.stack(parts)), *[TREE.sample() for _ in range(2)]
    )
    q_values = each.compute_q_values({"obs": obs})["qf_preds"]
    columns = leaves_of(obs)
    assert torch.equal(each.q_network(columns).q, q_values)
    changed = columns | {leaf: columns[leaf].flip(0)}
    assert not torch.allclose(each.q_network(changed).q, q_values)


def test_the_heads_sizes_are_an_images_where_there_is_one():
    assert module(TREE).q_network.head.value[0].out_features == 512
    assert module(gym.spaces.Tuple([VECTOR, VECTOR])).q_network.head.value[0].out_features == 256


@pytest.mark.parametrize(
    ("space", "model_config", "message"),
    [
        (gym.spaces.Dict(a=VECTOR), {"conv_filters": [[16, 4, 2]]}, "no effect on .* 'mlp'"),
        (gym.spaces.Dict(a=VECTOR), {"network": "nature"}, r"the leaf 'a' has the shape \(4,\)"),
        (TREE, {"network": "nature", "fcnet_hidden": [7]}, "did you mean 'fcnet_hiddens'"),
        (
            gym.spaces.Dict(a=images(40, 40), b=gym.spaces.Text(4)),
            {},
            r"leaf 'b' of .* got the Text .*drop_leaves=\['b'\]",
        ),
        (
            gym.spaces.Dict(a=VECTOR, b=images(20, 24, 3)),
            {},
            "images of 36×36 at least: got 20×24 of the leaf 'b'",
        ),
        (
            gym.spaces.Dict(a=images(3, 2, 4), b=VECTOR),
            {"conv_filters": [[4, 3, 1]]},
            "images of 3×3 at least: got 2×4 of the leaf 'a'",
        ),
    ],
)
def test_a_tree_that_cannot_be_encoded_is_refused_with_the_fix(space, model_config, message):
    with pytest.raises(ValueError, match=message):
        module(space, model_config)


def test_beside_an_image_what_is_too_small_for_its_convolutions_is_a_vector():
    space = gym.spaces.Dict(
        camera=images(20, 24, 3), frames=gym.spaces.Box(-1, 1, (4, 2, 3)), map=images(7, 7, 3)
    )
    encoder = module(space, {"conv_filters": [[4, 5, 2]], "fcnet_hiddens": [6]}).q_network.encoder
    assert linear_shapes(encoder["obs/frames"]) == [(6, 24)]
    assert [encoder[f"obs/{path}"].num_features for path in ("camera", "map")] == [320, 16]


@pytest.mark.parametrize("name", ["items", "keys", "values", "pop", "encoder", "0"])
def test_a_leaf_may_have_any_name(name):
    space = gym.spaces.Dict({name: VECTOR})
    each = module(space)
    each.make_target_networks()
    other = module(space)
    other.make_target_networks()
    other.set_state(each.get_state())
    assert each.compute_q_values({"obs": {name: observations(VECTOR)}})["qf_preds"].shape == (5, 3)


def test_noise_of_every_row_also_where_observations_are_dicts():
    space = gym.spaces.Dict({"a": gym.spaces.Box(-1, 1, (3,)), "b": gym.spaces.Box(-1, 1, (2,))})
    module = ApexDQNModule(
        observation_space=space,
        action_space=gym.spaces.Discrete(2),
        model_config={"noisy": True, "hiddens": [8]},
    )
    obs = {"a": torch.rand(5, 3), "b": torch.rand(5, 2)}
    assert module.forward_exploration({"obs": obs}, t=0)["actions"].shape == (5,)
