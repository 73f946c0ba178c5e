# SPDX-License-Identifier: MIT
"""An exported policy is the run's: the same Q-values and actions, in other hands."""

import operator
import os
import stat
import struct
import sys
import warnings
import zipfile

import gymnasium as gym
import numpy as np
import onnxruntime
import pytest
import torch
import tree
import yaml
from click.testing import CliRunner

from rllib_per.cli import main
from rllib_per.episodes import joined
from rllib_per.experiments import exporting
from rllib_per.experiments.evaluation import GreedyPolicy
from rllib_per.experiments.experiment import build_experiment, load_experiment
from rllib_per.experiments.policy_file import save_policy
from rllib_per.experiments.run_folder import RunFolder
from rllib_per.experiments.yaml_source import parse_yaml
from rllib_per.objectives.objective import map_leaves
from rllib_per.replay.leaves import ObservationTree, flat

SETTINGS = {
    "vector": {
        "environment": {"env": "CartPole-v1"},
        "model": {"hiddens": [32], "encoder_hiddens": [32]},
        "stop": {"env_steps": 100},
    },
    "atoms": {
        "environment": {"env": "CartPole-v1"},
        "training": {"num_atoms": 11, "v_min": -1.0, "v_max": 1.0},
        "stop": {"env_steps": 100},
    },
    "quantiles": {
        "environment": {"env": "CartPole-v1"},
        "training": {"distribution": {"type": "quantile", "num_quantiles": 8}},
        "stop": {"env_steps": 100},
    },
    "fractions": {
        "environment": {"env": "CartPole-v1"},
        "training": {"distribution": {"type": "implicit_quantile", "num_acting_taus": 8}},
        "model": {"hiddens": [32], "encoder_hiddens": [32]},
        "stop": {"env_steps": 100},
    },
    "images": {
        "environment": {
            "env": "rllib_per/Atari-v1",
            "env_config": {"game": "Pong", "frame_size": [42, 42]},
        },
        "env_runners": {"gym_env_vectorize_mode": "vector_entry_point"},
        "model": {"network": "nature", "conv_filters": [[8, 8, 4], [8, 3, 2]], "hiddens": [16]},
        "stop": {"env_steps": 100},
    },
}
SETTINGS["tree"] = {
    "environment": {"env": "rllib_per/LeafProbe-v1", "env_config": {"nested": True}},
    "model": {"conv_filters": [[4, 8, 4]], "hiddens": [16]},
    "stop": {"env_steps": 100},
}
SETTINGS["masked"] = {
    "environment": {"env": "Taxi-v3"},
    "model": {"hiddens": [32], "encoder_hiddens": [32]},
    "stop": {"env_steps": 100},
}
INPUTS = {
    "tree": ["image", "multi_binary", "multi_discrete", "pair/0", "pair/1"],
    "masked": ["action_mask", "observations"],
}
ARCHIVE = ["config.yaml", "policy.safetensors"]


def call(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def write_run(folder, settings):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    experiment = load_experiment(folder / "config.yaml")
    torch.manual_seed(0)
    state = GreedyPolicy(experiment).module.state_dict()
    # Larger than at first, so that what it sees decides what it does.
    scale = {name: 3.0 if value.ndim > 1 else 1.0 for name, value in state.items()}
    state = {n: np.ascontiguousarray(value.numpy() * scale[n]) for n, value in state.items()}
    save_policy(state, folder / "policy.safetensors", experiment)
    return folder


@pytest.fixture(scope="module", params=SETTINGS)
def run(tmp_path_factory, request):
    return write_run(
        tmp_path_factory.mktemp(request.param) / "game" / "run", SETTINGS[request.param]
    )


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("archives") / "cartpole" / "run", SETTINGS["vector"])


def expected_of(run, count=1000):
    """Observations, and the policy's Q-values and greedy actions of them."""
    policy = GreedyPolicy.load(RunFolder.open(run), RunFolder.open(run).experiment())
    env = policy.make_env(1)
    space = env.single_observation_space
    env.close()
    rng = np.random.default_rng(0)
    if isinstance(space, gym.spaces.Dict):
        space.seed(0)
        obs = flat(joined([space.sample() for _ in range(count)]))
        nested = tree.map_structure(torch.from_numpy, ObservationTree(space).nested(obs))
        with torch.inference_mode():
            q_values = policy.module.compute_q_values({"obs": nested})["qf_preds"]
        return obs, q_values.numpy(), policy.actions(ObservationTree(space).nested(obs))
    if space.dtype == np.uint8:
        blocks = rng.integers(256, size=(count, space.shape[0], 6, 6), dtype=np.uint8)
        obs = blocks.repeat(7, axis=2).repeat(7, axis=3)
    else:
        obs = rng.standard_normal((count, *space.shape)).astype(space.dtype)
    with torch.inference_mode():
        q_values = policy.module.compute_q_values({"obs": torch.from_numpy(obs)})["qf_preds"]
    return obs, q_values.numpy(), policy.actions(obs)


def check(run, answer):
    obs, q_values, actions = expected_of(run)
    for part in (slice(None), slice(0, 1), slice(5, 12)):
        given_q, given_actions = answer(map_leaves(operator.itemgetter(part), obs))
        np.testing.assert_allclose(given_q, q_values[part], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(given_actions, actions[part])
    assert len(set(actions.tolist())) > 1


def test_an_onnx_file_answers_as_the_policy_does(run, tmp_path):
    done = call("export", run, "--to", tmp_path / "policy.onnx")
    assert done.exit_code == 0, done.output
    assert len(done.output.splitlines()) == 1
    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx")
    kind = run.parent.parent.name.rstrip("0123456789")
    assert [value.name for value in session.get_inputs()] == INPUTS.get(kind, ["obs"])
    assert [value.name for value in session.get_outputs()] == ["q_values", "actions"]
    check(run, lambda obs: session.run(None, obs if isinstance(obs, dict) else {"obs": obs}))


class Named(gym.Env):
    """Its leaves have these names."""

    action_space = gym.spaces.Discrete(3)

    def __init__(self, names):
        leaf = gym.spaces.Box(-1, 1, (2,))
        self.observation_space = gym.spaces.Dict(dict.fromkeys(names, leaf))

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}


def test_a_leaf_may_have_the_name_of_an_operation_but_not_of_an_output():
    def inputs_of(*names):
        env = {"env": "tests.experiments.test_exporting.Named", "env_config": {"names": [*names]}}
        text = yaml.safe_dump({"environment": env, "stop": {"env_steps": 1}})
        source = parse_yaml(text, "x.yaml")
        policy = GreedyPolicy(build_experiment(source, allow_custom_classes=True))
        file = onnxruntime.InferenceSession(exporting._onnx(None, policy))
        return {value.name for value in file.get_inputs()}

    operations = {"linear", "relu_1", "mean", "argmax"}  # As torch names what they compute.
    assert inputs_of(*operations) == operations
    with pytest.raises(ValueError, match=r"got the leaf 'actions'.*as \.pt2"):
        inputs_of("actions", "other")


def test_a_pt2_file_answers_as_the_policy_does(run, tmp_path):
    assert call("export", run, "--to", tmp_path / "policy.pt2").exit_code == 0
    program = torch.export.load(tmp_path / "policy.pt2").module()

    def answer(obs):
        with torch.inference_mode():
            return [value.numpy() for value in program(map_leaves(torch.from_numpy, obs))]

    check(run, answer)


def test_an_archive_evaluates_as_the_run_does(cartpole, tmp_path):
    archive = tmp_path / "run.zip"
    assert call("export", cartpole, "--to", archive).exit_code == 0
    assert zipfile.ZipFile(archive).namelist() == ARCHIVE
    before = archive.read_bytes()
    results = [call("evaluate", p, "--episodes", 3, "--json").output for p in (cartpole, archive)]
    assert results[0] == results[1] != ""
    assert "run.zip" in call("evaluate", archive, "--episodes", 1).output.partition("┏")[0]
    assert call("export", cartpole, "--to", archive).exit_code == 0
    assert archive.read_bytes() == before


# -- what cannot be exported ---------------------------------------------------------------------


def refused(done, text):
    assert done.exit_code == 2, done.output
    assert done.output.startswith("error: ")
    assert len(done.output.splitlines()) == 1
    assert text in done.output


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("policy.pt", "must end in one of .onnx, .pt2, .zip"),
        ("policy", "must end in one of"),
        ("missing/policy.onnx", "missing is no folder"),
    ],
)
def test_a_target_that_cannot_be_is_refused_before_the_policy_is_loaded(
    cartpole, tmp_path, name, text, monkeypatch
):
    monkeypatch.setattr(GreedyPolicy, "load", None)
    refused(call("export", cartpole, "--to", tmp_path / name), text)
    assert list(tmp_path.iterdir()) == []


def test_without_onnxscript_the_extra_is_named(cartpole, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    refused(
        call("export", cartpole, "--to", tmp_path / "p.onnx"), "pip install 'rllib-per[export]'"
    )


def test_a_run_without_a_policy_is_refused_and_the_old_file_stays(cartpole, tmp_path):
    settings = (cartpole / "config.yaml").read_text()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(settings)
    (tmp_path / "run.zip").write_text("old")
    refused(call("export", tmp_path / "run", "--to", tmp_path / "run.zip"), "has not ended yet")
    assert (tmp_path / "run.zip").read_text() == "old"


def test_a_full_disk_leaves_the_old_file(cartpole, tmp_path, monkeypatch):
    def fail(_):
        raise OSError(28, "No space left on device")

    to = tmp_path / "run.zip"
    to.write_text("old")
    monkeypatch.setattr(os, "fsync", fail)
    refused(call("export", cartpole, "--to", to), "No space left")
    assert to.read_text() == "old"
    assert list(tmp_path.iterdir()) == [to]


def test_a_network_that_cannot_be_traced_is_one_line(cartpole, tmp_path, monkeypatch):
    def branching(head, features, mask=None, taus=None):
        return head.advantage(features) if features.sum() > 0 else head.advantage(-features)

    monkeypatch.setattr("rllib_per.objectives.heads.DuelingHead.forward", branching)
    for name in ("p.pt2", "p.onnx"):
        refused(call("export", cartpole, "--to", tmp_path / name), "torch.export cannot trace")
    assert list(tmp_path.iterdir()) == []
    assert call("export", cartpole, "--to", tmp_path / "run.zip").exit_code == 0


# -- archives from elsewhere ---------------------------------------------------------------------


def zipped(members, compression=zipfile.ZIP_STORED, **attributes):
    def write(path, good):
        with warnings.catch_warnings(), zipfile.ZipFile(path, "w", compression) as archive:
            warnings.simplefilter("ignore")  # That a name is there twice.
            for name in members:
                info = zipfile.ZipInfo(name)
                info.compress_type = compression
                for attribute, value in attributes.items():
                    setattr(info, attribute, value)
                archive.writestr(info, good.get(name, b"x"))

    return write


def changed(change):
    """The good archive with other bytes."""

    def write(path, good):
        zipped(ARCHIVE)(path, good)
        data = bytearray(path.read_bytes())
        change(data)
        path.write_bytes(data)

    return write


def promises(num_bytes):
    """The sizes of the policy in the list of members."""

    def change(data):
        at = data.rindex(b"PK\1\2")
        struct.pack_into("<2L", data, at + 20, num_bytes, num_bytes)

    return changed(change)


def flips(name):
    def change(data):
        at = data.index(name) + len(name) + 100
        data[at] ^= 255

    return changed(change)


def long_list(data):
    struct.pack_into("<L", data, len(data) - 10, 4_000_000_000)


def encrypted(data):
    data[data.index(b"PK\1\2") + 8] |= 1


def cut(data):
    del data[200:]


def bomb(path, good):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.yaml", good["config.yaml"])
        archive.writestr("policy.safetensors", bytes(50_000_000))


HOSTILE = {
    "a path that leads elsewhere": (zipped([*ARCHIVE, "../evil"]), "and nothing else"),
    "an absolute path": (zipped(["/tmp/evil", "policy.safetensors"]), "and nothing else"),
    "the same file twice": (zipped(["config.yaml", "config.yaml"]), "and nothing else"),
    "no policy": (zipped(["config.yaml"]), "and nothing else"),
    "nothing": (zipped([]), "got nothing"),
    "a name with an escape": (zipped(["\x1b[31m", *ARCHIVE]), "and nothing else"),
    "a thousand files": (zipped([f"f{n}" for n in range(1000)]), "the list of what"),
    "a bomb": (bomb, "stored, not compressed"),
    "a link": (zipped(ARCHIVE, external_attr=(stat.S_IFLNK | 0o777) << 16), "must be a file"),
    "a list of gigabytes": (changed(long_list), "the list of what"),
    "more than there is": (promises(3_000_000_000), "or damaged"),
    "more than is read": (promises(4_200_000_000), "4,000,000,000 bytes at most"),
    "encrypted files": (changed(encrypted), "or damaged"),
    "another configuration than its sum says": (flips(b"config.yaml"), "or damaged"),
    "another policy than its sum says": (flips(b"policy.safetensors"), "or damaged"),
    "the beginning of an archive": (changed(cut), "or damaged"),
    "no archive": (lambda path, _: path.write_bytes(b"hello"), "or damaged"),
    "an empty file": (lambda path, _: path.write_bytes(b""), "or damaged"),
    "a pipe": (lambda path, _: os.mkfifo(path), "it is not a file"),
    "a device": (lambda path, _: path.symlink_to("/dev/zero"), "it is not a file"),
    "a folder": (lambda path, _: path.mkdir(), "is no run"),
}  # fmt: skip


@pytest.mark.parametrize(("write", "text"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_archive_is_one_line_and_writes_nothing(
    cartpole, tmp_path, monkeypatch, write, text
):
    good = {name: (cartpole / name).read_bytes() for name in ARCHIVE}
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(inside))
    write(tmp_path / "run.zip", good)
    done = call("evaluate", tmp_path / "run.zip", "--episodes", 1)
    refused(done, text)
    assert "\x1b" not in done.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["inside", "run.zip"]
    assert list(inside.iterdir()) == []


def test_a_policy_of_another_network_in_an_archive_is_one_line(cartpole, tmp_path):
    config = yaml.safe_dump(SETTINGS["vector"] | {"model": {"hiddens": [9]}}).encode()
    policy = (cartpole / "policy.safetensors").read_bytes()
    zipped(ARCHIVE)(tmp_path / "run.zip", {"config.yaml": config, "policy.safetensors": policy})
    refused(call("evaluate", tmp_path / "run.zip"), "of another network")
