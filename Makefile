# Every target sets up what it needs; `make` alone lists them.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
CYTHON := $(shell find cython_tree rllib_per -name '*.pyx' -o -name '*.pxd' -o -name '*.h')
CONFIG ?= configs/cartpole.yaml

.DEFAULT_GOAL := help
.PHONY: $(shell sed -n "s,^\([a-z-]*\):.*\#\#.*,\1,p" $(MAKEFILE_LIST))

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: $(VENV)/.extensions  ## create .venv, install the versions of constraints.txt, build the extensions

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt "setuptools>=77" wheel cython
	$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e ".[dev]"
	touch $@

$(VENV)/.extensions: $(VENV)/.installed setup.py $(CYTHON)
	$(BIN)/python setup.py -q build_ext --inplace
	touch $@

train: setup  ## train on CartPole-v1 until it is solved (CONFIG=... for another experiment)
	$(BIN)/rllib-per train $(CONFIG)

test: setup lint  ## the test suite, in two processes
	$(BIN)/python -m pytest -m "not slow and not gpu and not cluster" -n 2 --dist loadfile

test-slow: setup  ## what takes longer: trials of Ray Tune, searches cut off and resumed
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[wandb,mlflow]" --no-build-isolation
	$(BIN)/python -m pytest -m "slow and not faults and not gpu and not cluster" --durations 30

test-cluster: setup  ## the tests that need ray[default]: metrics, jobs and a cluster's own door
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[cluster]" --no-build-isolation
	$(BIN)/python -m pytest -m cluster

test-faults: setup  ## what happens when processes and nodes die, calls get lost, learners are slow
	$(BIN)/python -m pytest -m faults --durations 15

lint: setup  ## ruff, mypy and cython-lint; a warning is an error
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(BIN):$$PATH" cython-lint cython_tree rllib_per  # It calls pycodestyle from PATH.

debug: setup  ## the compiled modules' tests on a build with bounds checks
	CYTHON_TREE_DEBUG=1 $(BIN)/python setup.py -q build_ext --inplace --force
	$(BIN)/python -m pytest tests/cython_tree tests/replay; status=$$?; \
	$(BIN)/python setup.py -q build_ext --inplace --force; exit $$status

bench-train: setup  ## end to end on CartPole and Pong against RLlib's DQN
	$(BIN)/python -m benchmarks.bench_train
	$(BIN)/python -m benchmarks.bench_train --pong --envs 1 --steps 200 --repeats 4

bench-equal-time: setup  ## what RLlib's DQN learns on MinAtar's Breakout in the time that ApexDQN takes
	$(BIN)/python -m benchmarks.bench_equal_time

bench-apex: setup  ## asynchronous Ape-X against RLlib's DQN, our local loop, eager priorities
	$(BIN)/python -m benchmarks.bench_apex

bench-feed: setup  ## batches a second from replay actors to a learner, against RLlib's buffer
	$(BIN)/python -m benchmarks.bench_feed

bench-curves: setup  ## learning curves on CartPole: lazy and eager priorities, asynchronous and local
	$(BIN)/python -m benchmarks.bench_curves

timeline: setup  ## who works when in asynchronous Ape-X, as two pictures
	$(BIN)/python -m benchmarks.timeline

bench-cliffwalk: setup  ## updates that prioritized and uniform replay need on Blind Cliffwalk
	$(BIN)/python -m benchmarks.bench_cliffwalk

evidence: setup  ## the learning runs behind the documentation, resumable (ONLY=... for some), and docs/scores.md
	$(BIN)/python -m benchmarks.evidence --only "$(ONLY)"; status=$$?; $(BIN)/python -m benchmarks.scores; exit $$status

tune: setup  ## search on CartPole, best against shipped on fresh seeds: configs/tune/RESULT.md
	$(BIN)/python -m benchmarks.tuning

bench-checkpoint: setup  ## what saving a large replay buffer costs; does a killed run learn on
	$(BIN)/python -m benchmarks.bench_checkpoint
	$(BIN)/python -m benchmarks.bench_resume

bench-drop-in: setup  ## RLlib's DQN with our replay buffer against its own
	$(BIN)/python -m benchmarks.bench_drop_in

bench-replay: setup  ## the replay buffer against those of RLlib, cpprb, torchrl and stable-baselines3
	$(BIN)/python -m pip install -q -c constraints.txt cpprb torchrl stable-baselines3
	$(BIN)/python -m benchmarks.bench_replay

bench-runner: setup  ## collecting experience against RLlib's env runner and the bare emulator
	$(BIN)/python -m benchmarks.bench_runner

bench-tree: setup  ## the tree against RLlib's, cpprb's, tianshou's and torchrl's
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[bench]" --no-build-isolation
	$(BIN)/python -m benchmarks.bench_tree

bench-learner: setup  ## a gradient step against a bare torch loop and RLlib's learner
	$(BIN)/python -m benchmarks.bench_learner

gpu: setup  ## on a machine with CUDA: the tests that need it, and Pong
	benchmarks/gpu.sh

reference: setup  ## write docs/configuration.md from the schema
	$(BIN)/python -m rllib_per.experiments.reference > docs/configuration.md

drawings: setup  ## draw the pictures of README.md and docs/replay.md
	$(BIN)/python -m benchmarks.learning
	$(BIN)/python -m benchmarks.drawings

screencast: setup  ## the moving pictures of README.md: a terminal (with tmux) and a game
	$(BIN)/python -m benchmarks.screencast

wheel: setup  ## build the wheel and the source distribution into dist/
	$(BIN)/python -m build

clean:  ## remove what was built
	rm -rf build dist *.egg-info $(VENV)/.extensions
	find cython_tree rllib_per -name '*.so' -o -name '*.c' | xargs rm -f
