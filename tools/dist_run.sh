#!/usr/bin/env bash
# Shared part of dist_train.sh and dist_test.sh: starts GPUS processes of a tool.
# Environment: NNODES, NODE_RANK, MASTER_ADDR, PORT, PYTHON, OMP_NUM_THREADS.
set -euo pipefail

SCRIPT=$1
GPUS=$2
PYTHON=${PYTHON:-python}

if ! [[ $GPUS =~ ^[1-9][0-9]*$ ]]; then
    echo "error: the number of GPUs (processes) must be a positive integer, got \"$GPUS\"" >&2
    exit 2
fi

# Share the cores among the processes; otherwise each would get one thread only.
CORES=$("$PYTHON" -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())')
THREADS=$((CORES / GPUS > 1 ? CORES / GPUS : 1))
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$THREADS}
export MKL_NUM_THREADS=${MKL_NUM_THREADS:-$OMP_NUM_THREADS}

exec "$PYTHON" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node-rank="${NODE_RANK:-0}" \
    --master-addr="${MASTER_ADDR:-127.0.0.1}" \
    --master-port="${PORT:-29500}" \
    --nproc-per-node="$GPUS" \
    "$(dirname "$0")/$SCRIPT" "${@:3}" --launcher pytorch
