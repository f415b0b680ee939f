#!/usr/bin/env bash
# Shared part of slurm_train.sh and slurm_test.sh: starts a tool with srun.
# Environment: GPUS (total processes; 8), GPUS_PER_NODE (0 for a CPU partition; at
# most 8), NTASKS_PER_NODE, CPUS_PER_TASK (5), SRUN_ARGS, PYTHON.
set -euo pipefail

SCRIPT=$1
PARTITION=$2
JOB_NAME=$3

# Before Slurm queues the job, or bash takes a word for a variable that is 0.
for name in GPUS NTASKS_PER_NODE CPUS_PER_TASK; do
    if ! [[ ${!name:-1} =~ ^[1-9][0-9]*$ ]]; then
        echo "error: $name must be a positive integer, got \"${!name}\"" >&2
        exit 2
    fi
done
if ! [[ ${GPUS_PER_NODE:-0} =~ ^[0-9]+$ ]]; then
    echo "error: GPUS_PER_NODE must be an integer, 0 at least, got \"$GPUS_PER_NODE\"" >&2
    exit 2
fi
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
NTASKS_PER_NODE=${NTASKS_PER_NODE:-$((GPUS_PER_NODE > 0 ? GPUS_PER_NODE : GPUS))}

ARGS=(
    --partition="$PARTITION"
    --job-name="$JOB_NAME"
    --ntasks="$GPUS"
    --ntasks-per-node="$NTASKS_PER_NODE"
    --cpus-per-task="${CPUS_PER_TASK:-5}"
    --kill-on-bad-exit=1
)
if [ "$GPUS_PER_NODE" -gt 0 ]; then
    ARGS+=(--gres="gpu:$GPUS_PER_NODE")
fi

# SRUN_ARGS holds several arguments, so it is split on purpose.
# shellcheck disable=SC2086
exec srun "${ARGS[@]}" ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$(dirname "$0")/$SCRIPT" "${@:4}" --launcher slurm
