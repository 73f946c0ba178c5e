#!/usr/bin/env bash
# On a machine with CUDA: the tests that need it, then Pong until it is learned or 15 minutes are over.
#
#     make gpu                          # with the project's own environment
#     PYTHON=python3 benchmarks/gpu.sh  # with any Python that has the dependencies and the extensions
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
"$PYTHON" -m pytest -q -m gpu
"$PYTHON" -c "from rllib_per.cli import main; main()" train configs/atari/pong.yaml \
    --set learners.num_gpus_per_learner=1 --set stop.time_s=900 --runs runs/gpu
