# SPDX-License-Identifier: MIT
"""Classes that stand beside the YAML are found: when it is read, and again by what a run left."""

import sys
from pathlib import Path

import pytest

from rllib_per.experiments.environment_check import check_environment
from rllib_per.experiments.evaluation import GreedyPolicy
from rllib_per.experiments.experiment import load_experiment
from rllib_per.experiments.import_path import worker_path
from rllib_per.experiments.run_archive import archive_bytes, opened
from rllib_per.experiments.run_folder import RunFolder
from rllib_per.experiments.starter import load_starter
from rllib_per.experiments.tuning.plan import load_plan
from rllib_per.experiments.yaml_source import ConfigError
from rllib_per.objectives import build_objective

YAML = "environment: {env: ENV, env_config: {length: 3}}\nstop: {env_steps: 1}\n"
OWN_ENV = """
import corridor_helper
import gymnasium as gym
import numpy as np

class Corridor(gym.Env):
    action_space = gym.spaces.Discrete(2)

    def __init__(self, length=9, render_mode=None):
        self.length = length
        self.observation_space = gym.spaces.Box(0, 1, (length,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return corridor_helper.seen(self.length), {}

    def step(self, action):
        return corridor_helper.seen(self.length), 1.0, bool(action), False, {}

class WithConfig(Corridor):
    def __init__(self, config):
        super().__init__(config["length"])

gym.register("Corridor-v0", entry_point=Corridor)
"""
HELPER = "import numpy as np\ndef seen(length):\n    return np.ones(length, np.float32)\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with modules and a YAML, which is not the current one."""
    folder, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    (folder / "envs").mkdir(parents=True)
    elsewhere.mkdir()
    for where in (folder, folder / "envs"):
        (where / "corridor_helper.py").write_text(HELPER)
    (folder / "corridor_env.py").write_text(OWN_ENV)
    (folder / "envs" / "corridor_within.py").write_text(OWN_ENV)
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield folder
    for name in ("corridor_env", "corridor_within", "corridor_helper"):
        sys.modules.pop(name, None)


def load(folder, env, load=load_experiment, **options):
    path = folder / "corridor.yaml"
    path.write_text(YAML.replace("ENV", env))
    return load(path, allow_custom_classes=True, **options)


@pytest.mark.parametrize(
    "env",
    ["corridor_env.Corridor", "corridor_env.WithConfig", "corridor_env.py:Corridor",
     "corridor_env:Corridor-v0", "envs/corridor_within.py:WithConfig"],
)  # fmt: skip
def test_an_environment_beside_the_yaml_is_found_also_by_workers(project, env):
    experiment = load(project, env)
    assert experiment.import_from == str(project)
    assert str(project) in worker_path()
    assert ("envs" in env) == (str(project / "envs") in worker_path())
    check_environment(experiment)
    env = GreedyPolicy(experiment).make_env(2)
    assert env.single_observation_space.shape == (3,)
    env.close()


OWN_CLASSES = """
from tests.support.objectives import ManyOutputs
from tests.support.own_buffer import NewestBuffer

class Newest(NewestBuffer):
    pass

class Mine(ManyOutputs):
    pass
"""
OWN_YAML = """
environment: {env: CartPole-v1}
training: {objective: {type: "corridor_env.py:Mine"}}
replay: {type: "corridor_env.py:Newest", capacity: 1000, options: {newest: 5}}
checkpoint: {buffer: false}
stop: {env_steps: 1}
"""


def test_an_objective_and_a_buffer_in_a_file_beside_the_yaml_are_found(project):
    (project / "corridor_env.py").write_text(OWN_CLASSES)
    (project / "own.yaml").write_text(OWN_YAML)
    with pytest.raises(ConfigError, match="allow-custom-classes"):
        load_experiment(project / "own.yaml")
    experiment = load_experiment(project / "own.yaml", allow_custom_classes=True)
    assert experiment.training.objective.type == "corridor_env.py:Mine"
    config = experiment.algorithm_config()
    assert config.objective["type"] == "corridor_env.Mine"
    assert config.replay_buffer_config["type"] == "corridor_env.Newest"
    config.validate()
    assert build_objective(config.objective).__class__.__name__ == "Mine"


WITH_KEYWORD = (
    OWN_CLASSES
    + """
    def __init__(self, settings, eps=0.1):
        super().__init__(settings)
        if eps > 1:
            raise RuntimeError("no share")
"""
)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("epsi: 0.2", r"{'epsi': 0.2}: Mine takes eps: got epsi; did you mean 'eps'\?$"),
        ("eps: 2", r"RuntimeError: no share \(corridor_env.py, line \d+\)$"),
    ],
)
def test_what_an_objective_does_not_take_is_told_with_its_line(project, given, told):
    (project / "corridor_env.py").write_text(WITH_KEYWORD)
    (project / "own.yaml").write_text(OWN_YAML.replace('Mine"', f'Mine", {given}'))
    with pytest.raises(ConfigError, match=rf"own\.yaml:3: training\.objective: .*{told}"):
        load_experiment(project / "own.yaml", allow_custom_classes=True)
    (project / "own.yaml").write_text(OWN_YAML.replace('Mine"', 'Mine", eps: 0.2'))
    load_experiment(project / "own.yaml", allow_custom_classes=True)


def test_what_is_no_objective_is_told_with_its_line(project):
    (project / "own.yaml").write_text(OWN_YAML.replace("corridor_env.py:Mine", "os.system"))
    with pytest.raises(ConfigError, match=r"own\.yaml:3: training\.objective: .* must be a subcla"):
        load_experiment(project / "own.yaml", allow_custom_classes=True)


def test_a_run_finds_its_classes_again_and_so_does_its_archive(project, monkeypatch):
    env = "corridor_env.py:WithConfig"
    run = RunFolder.create(Path("runs"), load(project, env), "corridor")
    run.policy.write_bytes(b"")
    for reopen in (run.path, Path("run.zip")):
        if reopen.suffix:
            reopen.write_bytes(archive_bytes(run))
        with opened(reopen) as again:
            check_environment(again.experiment(allow_custom_classes=True))
            with pytest.raises(ConfigError, match="give --allow-custom-classes"):
                again.experiment()


def test_a_run_whose_folder_of_modules_is_gone_finds_them_in_the_current_one(project, monkeypatch):
    run = RunFolder.create(Path("runs"), load(project, "corridor_env.py:Corridor"), "corridor")
    path = run.path.resolve()
    monkeypatch.chdir(project.rename(project.parent / "moved"))
    check_environment(RunFolder(path).experiment(allow_custom_classes=True))


def test_a_search_and_each_of_its_trials_find_them(project):
    grid = "training: {lr: {grid: [0.1, 0.2]}}\n"
    path = project / "search.yaml"
    path.write_text(YAML.replace("ENV", "corridor_env.Corridor").replace("1}", "9000}") + grid)
    plan = load_plan(path, ["tune={num_samples: 1}"], allow_custom_classes=True)
    assert {each.import_from for each in plan.variants} == {str(project)}


def test_import_from_names_another_folder_seen_from_the_file(project):
    other = project.parent / "configs"
    other.mkdir()
    experiment = load(other, "corridor_env.Corridor", overrides=["import_from=../project"])
    assert experiment.import_from == str(project)
    check_environment(experiment)


def test_an_environment_that_is_named_in_a_shell_is_found_from_where_it_stands(
    project, monkeypatch
):
    monkeypatch.chdir(project)
    length = ["environment.env_config={length: 3}"]
    env = "corridor_env.py:Corridor"
    experiment = load_starter(env, length, allow_custom_classes=True)
    assert experiment.import_from == str(project)
    assert experiment.environment.env == env


def test_what_is_found_says_nothing_of_its_place_where_no_class_is_named(project):
    assert load(project, "CartPole-v1").import_from is None


@pytest.mark.parametrize(
    ("env", "problem"),
    [
        (
            "gone.py:Corridor",
            "^environment.env: gone.py:Corridor cannot be imported: there is no file",
        ),
        (
            "corridor_env.py:Corider",
            "corridor_env.py has no class Corider: .* mean 'Corridor'?",
        ),
        ("json.py:Corridor", "Python has another module json, of .*; give .* another name"),
        ("gone_module.Corridor", "No module named 'gone_module'; it must be .* beside the YAML"),
    ],
)
def test_what_is_not_there_is_told(project, env, problem):
    (project / "json.py").write_text(OWN_ENV)
    with pytest.raises(ConfigError, match=problem):
        check_environment(load(project, env))


@pytest.mark.parametrize("override", ["import_from=.", "environment.env=corridor_env.py:Corridor"])
def test_nothing_is_imported_from_there_unasked(project, override):
    before = list(sys.path)
    path = project / "corridor.yaml"
    path.write_text(YAML.replace("ENV", "CartPole-v1").replace("length: 3", ""))
    with pytest.raises(ConfigError, match="give --allow-custom-classes"):
        load_experiment(path, [override])
    assert sys.path == before
