#!/bin/bash
# Ray over the nodes of one Slurm job, for one experiment:
#
#     sbatch --nodes=4 configs/cluster/slurm.sh configs/cartpole_apex.yaml
#
# Submit it from this folder, on a file system that all nodes share, with a .venv that holds
# rllib-per[cluster]. `ray symmetric-run` starts Ray on every node, runs the experiment on the first,
# and ends Ray; the job's exit code is the experiment's. Two minutes before its time is up, the run is
# saved, and the job goes back into the queue, where it goes on from there. So it does after
# `scancel --batch --signal=TERM JOB`; a plain `scancel JOB` ends it without saving.
#
#SBATCH --job-name=rllib-per
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --exclusive  # symmetric-run ends with `ray stop`: every Ray of yours on the node.
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@120  # To this script alone, which tells the driver.
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

config=${1:?"usage: sbatch $0 CONFIG [OPTION...], with options of rllib-per train but --runs"}
shift
runs="runs/slurm-$SLURM_JOB_ID"  # A job keeps its number in the queue.
name=$(basename "$config")
run="$runs/${name%.*}/latest"
export PATH="$PWD/.venv/bin:$PATH"

# The driver is on this node; its number is in the lock that it holds, or that one before it left. It
# is told once, for a second signal would end it at once; Ray lives on while it saves.
time_is_up= driver_is_told=
tell_driver() {
    local driver
    if read -r _ driver _ && grep -qaF "$runs" "/proc/$driver/cmdline" && kill -TERM "$driver"; then
        driver_is_told=1
    fi
} 2> /dev/null < "$run/checkpoints/.lock"
trap 'time_is_up=1' TERM INT HUP USR1 USR2

# A token for this job alone, which nobody else can read. It travels as a file, never on a command
# line or in the environment, where `ps` and Slurm's records would show it.
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH="$HOME/.ray/slurm-$SLURM_JOB_ID.token"
ended=$(mktemp)
trap 'rm -f "$RAY_AUTH_TOKEN_PATH" "$ended"' EXIT
(
    umask 077
    mkdir -p "$HOME/.ray"
    python3 -c 'import secrets; print(secrets.token_hex(32), end="")' > "$RAY_AUTH_TOKEN_PATH"
)

# Large jobs take more than the 30 s that symmetric-run gives them.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")

experiment=(rllib-per train "$config" --runs "$runs" --address auto "$@")
if compgen -G "$run/checkpoints/step-*" > /dev/null; then
    experiment=(rllib-per resume "$run" --address auto)
    while (($#)); do  # What is no setting of the experiment is not saved with the run.
        case $1 in
            --allow-custom-classes | --quiet | --json-lines | --track=*) experiment+=("$1") ;;
            --track) experiment+=("$1" "$2") ;;
        esac
        [[ $1 != --@(set|seed|track) ]] || shift
        shift
    done
fi

# Bash may forget how a command ended that ends while a signal is handled: a file remembers it.
# The dashboard listens on the first node's loopback only, as it does by default.
(
    trap : TERM INT HUP USR1 USR2
    status=0
    srun --cpus-per-task "${SLURM_CPUS_PER_TASK:-1}" ray symmetric-run \
        --address "${nodes[0]}:6379" \
        --min-nodes "$SLURM_JOB_NUM_NODES" \
        --num-cpus "${SLURM_CPUS_PER_TASK:-1}" \
        --dashboard-host 127.0.0.1 \
        --disable-usage-stats \
        -- "${experiment[@]}" || status=$?
    echo "$status" > "$ended"
) &
while kill -0 $! 2> /dev/null; do
    [[ -z $time_is_up || -n $driver_is_told ]] || tell_driver || true
    sleep 1 || true
done
read -r status < "$ended" || status=1

# 130: interrupted, after a checkpoint. A job that was cancelled is not running any more.
is_running() { [[ $(squeue --noheader --jobs "$SLURM_JOB_ID" --format %T) == RUNNING ]]; }
if [[ -n $time_is_up && $status == 130 ]] && is_running; then
    scontrol requeue "$SLURM_JOB_ID" || echo "not queued again: sbatch it, or resume $run" >&2
fi
exit "$status"
