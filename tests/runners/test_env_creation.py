# SPDX-License-Identifier: MIT
"""What env_config becomes, by the signature of what makes the environment."""

import functools
import re

import pytest
from ray.rllib.env.env_context import EnvContext

from rllib_per.runners.env_creation import create_env
from rllib_per.runners.vector_env import make_vector_env

CONTEXT = EnvContext({"size": 5, "goal": "b"}, worker_index=3)
EMPTY = EnvContext({}, worker_index=3)


def recording(parameters):
    """A class whose `__init__` has these parameters, and keeps what it is given."""
    scope = {}
    exec(f"class Grid:\n    def __init__(self{parameters}):\n        self.got = locals()", scope)
    return scope["Grid"]


@pytest.mark.parametrize(
    "parameters",
    [", config", ", config=None", ", env_config: dict", ", cfg, extra=3", ", _", ", _ctx={}",
     ", options", ", args, /", ", config: dict, **kwargs"],
)  # fmt: skip
@pytest.mark.parametrize("context", [CONTEXT, EMPTY])
def test_a_constructor_of_one_config_gets_rllibs_context(parameters, context):
    got = create_env(recording(parameters), context).got
    given = next(value for name, value in got.items() if name != "self")
    assert given is context
    assert given.worker_index == 3


@pytest.mark.parametrize(
    "parameters",
    [", size, goal", ", size=1, goal='a', render_mode=None", ", *, size, goal", ", **kwargs",
     ", size: int, goal='a'", ", *args, **kwargs"],
)  # fmt: skip
def test_a_constructor_of_keywords_gets_env_config_as_these(parameters):
    got = create_env(recording(parameters), CONTEXT).got
    assert {**got, **got.get("kwargs", {})}.items() >= {"size": 5, "goal": "b"}.items()


@pytest.mark.parametrize("parameters", ["", ", size=1", ", render_mode=None", ", **kwargs"])
def test_a_constructor_that_needs_nothing_is_given_nothing(parameters):
    got = create_env(recording(parameters), EMPTY).got
    assert not any(value is EMPTY for value in got.values())


def test_functions_are_called_alike_and_what_has_no_signature_as_rllib_does():
    assert create_env(lambda c: c, CONTEXT) is CONTEXT
    assert create_env(lambda size, goal="x": (size, goal), CONTEXT) == (5, "b")
    assert create_env(functools.partial(lambda size, goal: (size, goal), goal="x"), CONTEXT) == (
        5,
        "b",
    )
    assert create_env(dict, CONTEXT) == CONTEXT


@pytest.mark.parametrize(
    ("parameters", "context", "problem"),
    [
        (", sise=1, goal='a'", CONTEXT, "'size' is none of them; did you mean 'sise'"),
        ("", CONTEXT, r"keywords of Grid\(\): 'size' is none of them; 'goal' is none"),
        (", size, goal, wall", CONTEXT, "'wall' must be given"),
        (", size: int", EMPTY, "'size' must be given"),
        (", size, goal", EMPTY, "'size', 'goal' must be given"),
    ],
)
def test_other_keywords_are_refused_with_those_that_there_are(parameters, context, problem):
    with pytest.raises(ValueError, match=problem) as caught:
        create_env(recording(parameters), context)
    assert "takes `config` as its first" in str(caught.value)
    assert re.search(r"(\w['\w ]\.|'\?) A class that", str(caught.value)), "one mark before it"


@pytest.mark.parametrize("mode", ["sync", "vector_entry_point"])
def test_a_refusal_of_keywords_is_told_without_gymnasiums_words(mode):
    with pytest.raises(ValueError, match=r"takes `config` as its first argument$"):
        make_vector_env(recording(""), CONTEXT, num_envs=1, vectorize_mode=mode)


def test_an_error_of_the_constructor_is_its_own():
    def fail(config):
        raise TypeError("of its own")

    with pytest.raises(TypeError, match=r"^of its own$"):
        create_env(fail, CONTEXT)
