#!/usr/bin/env bash
# Train with several processes on this machine, one per GPU, or on CPU cores when
# there is no GPU. For several machines, run it on each with NNODES, NODE_RANK and
# MASTER_ADDR set.
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [options of train.py]" >&2
    exit 2
fi
exec bash "$(dirname "$0")/dist_run.sh" train.py "$2" "$1" "${@:3}"
