# SPDX-License-Identifier: MIT
import itertools
import string

import numpy as np
import pytest
from gymnasium import spaces

from rllib_per.replay import FrameSpec, PrioritizedReplayBuffer, RowSpec
from rllib_per.replay.leaves import ObservationTree, flat, leaves_of
from tests.support.tree_env import DTYPES, SPACE

ACTIONS = spaces.Discrete(3)


def test_leaves_are_named_by_their_way_through_the_space():
    tree = ObservationTree(SPACE)
    assert sorted(tree.paths) == sorted(DTYPES)
    assert {leaf.path: leaf.stored_dtype for leaf in tree.leaves} == DTYPES
    assert tree.single is None
    assert ObservationTree(spaces.Tuple([ACTIONS, ACTIONS])).paths == ["0", "1"]
    single = ObservationTree(spaces.Discrete(4, start=2)).single
    assert (single.path, single.shape, single.categories) == ("", (), (2, 4))


def test_observations_are_taken_apart_as_spaces_are_and_put_together_again():
    tree, observation = ObservationTree(SPACE), SPACE.sample()
    leaves = leaves_of(observation)
    assert leaves.keys() == DTYPES.keys()
    assert all(leaf.of(observation) is leaves[leaf.path] for leaf in tree.leaves)
    assert leaves_of(leaves) == leaves  # Paths stay paths.
    again = tree.nested(leaves)
    assert SPACE.contains(again)
    assert again["pair"][0] is observation["pair"][0]
    array = np.ones(3)
    assert flat(array) is array
    assert leaves_of(array) == {"": array}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Dict(), "has no leaves"),
        (spaces.Tuple([spaces.Tuple([])]), "has no leaves"),
        (spaces.Dict({"a": spaces.Dict(b=ACTIONS), "a/b": ACTIONS}), "a name of its own"),
        (spaces.Dict({"": ACTIONS}), "a key of an observation must be a name"),
        (spaces.Dict({"a//b": ACTIONS}), "names joined by /: got 'a//b'"),
        (spaces.Text(3), "got the Text"),
        (spaces.Box(0, 1, (0,)), r"must have numbers in it: got Box.* of shape \(0,\)"),
        (spaces.Dict(a=spaces.Box(0, 1, (3, 0)), b=ACTIONS), r"leaf 'a' .*drop_leaves=\['a'\]"),
        (spaces.Sequence(ACTIONS), "got the Sequence"),
        (spaces.OneOf([ACTIONS, ACTIONS]), "got the OneOf"),
        (spaces.Dict(a=spaces.Tuple([spaces.Text(3)])), r"leaf 'a/0' .*drop_leaves=\['a/0'\]"),
    ],
    ids=str,
)
def test_a_space_that_is_no_tree_of_arrays_is_refused(space, message):
    with pytest.raises(ValueError, match=message):
        ObservationTree(space)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            spaces.Dict(note=spaces.Text(9)),
            r"got the Text Text\(1, 9\); .*drop_leaves=\['note'\]\) "
            r"\(`environment.drop_leaves: \[note\]` in YAML\)",
        ),
        (
            spaces.Tuple([spaces.Sequence(spaces.Text(9))]),
            r"\(Text\(1, 9\), .*: \[\"0\"\]` in YAML",
        ),
        (spaces.Text(9, charset=string.printable), r"the Text Text\(1, 9\)$"),
    ],
    ids=["in a Dict", "in a Sequence", "of any characters"],
)
def test_a_text_is_refused_without_its_charset_in_python_and_yaml(space, message):
    with pytest.raises(ValueError, match=message):
        ObservationTree(space)


def test_a_buffer_is_made_for_a_tree():
    buffer = PrioritizedReplayBuffer.for_spaces(
        64, SPACE, ACTIONS, stack={"image": 3}, stack_padding="repeat"
    )
    assert buffer.rows.leaves["image"] == FrameSpec((4,), np.dtype(np.uint8), 3, "repeat")
    assert buffer.rows.leaves["pair/1"] == FrameSpec((9,), np.dtype(np.int8))
    with pytest.raises(ValueError, match="a number for each leaf that stacks"):
        RowSpec.for_spaces(SPACE, ACTIONS, stack=3)
    with pytest.raises(ValueError, match="first axis of the leaf 'image'"):
        RowSpec.for_spaces(SPACE, ACTIONS, stack={"image": 2})


def test_steps_of_nested_observations_go_into_a_buffer_as_they_come():
    buffer = PrioritizedReplayBuffer.for_spaces(64, SPACE, ACTIONS, seed=0)
    batch = spaces.Dict(SPACE.spaces)  # Without the other tests' generator.
    batch.seed(0)
    shown = [batch.sample() for _ in range(6)]
    rows = [ObservationTree(SPACE).nested(_batched(leaves_of(one))) for one in shown]
    no = np.zeros(1, np.bool_)
    for obs, next_obs in itertools.pairwise(rows):
        buffer.add_step(obs, [1], [0.5], next_obs, no, no)
    drawn = buffer.sample(32, 0.4)
    for i in range(32):
        number = [leaves_of(one)["pos/cell_id"] for one in shown].index(drawn.obs["pos/cell_id"][i])
        for path, leaf in leaves_of(shown[number]).items():
            np.testing.assert_array_equal(drawn.obs[path][i], leaf)


def _batched(leaves):
    return {path: np.asarray(leaf)[None] for path, leaf in leaves.items()}
