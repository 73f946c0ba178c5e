#!/usr/bin/env bash
# On a machine with CUDA: the tests that need it, the learner and its feed against their rivals, then
# Pong until it is learned or its time is over, with the GPU's share of busy time beside it.
#
#     make gpu                                       # all of it, with the project's own environment
#     PYTHON=python3 benchmarks/gpu.sh tests feed    # some, with any Python that has what is needed
#     PONG_S=500 benchmarks/gpu.sh pong              # seconds; 900 by default
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
PONG_S=${PONG_S:-900}

tests() {
    "$PYTHON" -m pytest -q -m gpu tests/learning
}

learner() {
    "$PYTHON" -m benchmarks.bench_learner --device cuda --threads 1
    "$PYTHON" -m benchmarks.bench_learner --device cuda --threads 1 --batch-size 512
}

feed() {
    "$PYTHON" -m benchmarks.bench_feed
    "$PYTHON" -m benchmarks.bench_feed --learn
}

train() {  # CONFIG [SETTING...]
    local busy sampler config=$1
    shift
    busy=$(mktemp)
    nvidia-smi --query-gpu=utilization.gpu --format=csv,noheader,nounits --loop=1 >"$busy" &
    sampler=$!
    "$PYTHON" -c "from rllib_per.cli import main; main()" train "$config" \
        --set stop.time_s="$PONG_S" --runs runs/gpu "$@" || [ $? -eq 3 ]
    kill "$sampler"
    awk '{ sum += $1 } END { printf "the GPU was busy for %.0f %% of the time\n", sum / NR }' "$busy"
}

pong() {
    train configs/atari/pong.yaml --set learners.num_gpus_per_learner=1
}

apex() {
    train configs/atari/pong_apex.yaml
}

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
if [ $# -eq 0 ]; then
    set -- tests learner feed pong apex
fi
for stage in "$@"; do
    echo "== $stage"
    "$stage"
done
