#!/bin/bash
# Ray over the nodes of one Slurm job, for one experiment:
#
#     sbatch --nodes=4 configs/cluster/slurm.sh configs/cartpole_apex.yaml
#
# Submit it from this folder, on a file system that all nodes share, with a .venv that holds
# rllib-per[cluster]. `ray symmetric-run` starts Ray on every node, runs the experiment on the first,
# and ends Ray; the job's exit code is the experiment's. Two minutes before its time is up, the run is
# saved, and the job goes back into the queue, where it goes on from there.
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

# A token for this job alone, which nobody else can read. It travels as a file, never on a command
# line or in the environment, where `ps` and Slurm's records would show it.
umask 077
token_folder="$HOME/.ray"
mkdir -p "$token_folder"
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH="$token_folder/slurm-$SLURM_JOB_ID.token"
ended=$(mktemp)
trap 'rm -f "$RAY_AUTH_TOKEN_PATH" "$ended"' EXIT
python3 -c 'import secrets; print(secrets.token_hex(32), end="")' > "$RAY_AUTH_TOKEN_PATH"

# Large jobs take more than the 30 s that symmetric-run gives them.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")

experiment=(rllib-per train "$config" --runs "$runs" --address auto "$@")
if [[ -e $run ]]; then
    experiment=(rllib-per resume "$run" --address auto)
    [[ " $* " != *" --allow-custom-classes "* ]] || experiment+=(--allow-custom-classes)
fi

# The driver is on this node; its number is in the lock that it holds. Ray lives on while it saves.
time_is_up=
save() {
    time_is_up=1
    local driver=
    read -r _ driver _ < "$run/checkpoints/.lock" && kill -TERM "$driver" ||
        scancel --signal=TERM "$SLURM_JOB_ID" || true
}
trap save TERM

# Bash may forget how a command ended that ends while a signal is handled: a file remembers it.
# The dashboard listens on the first node's loopback only, as it does by default.
(
    status=0
    srun ray symmetric-run \
        --address "${nodes[0]}:6379" \
        --min-nodes "$SLURM_JOB_NUM_NODES" \
        --num-cpus "${SLURM_CPUS_PER_TASK:-1}" \
        --dashboard-host 127.0.0.1 \
        --disable-usage-stats \
        -- "${experiment[@]}" || status=$?
    echo "$status" > "$ended"
) &
while kill -0 $! 2> /dev/null; do
    sleep 1
done
if [[ -n $time_is_up && -e $run ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$(< "$ended")"
