#!/usr/bin/env bash
# Evaluate a checkpoint on several processes: one per GPU, or CPU processes where there is no GPU.
#
#   tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]
#
# Several machines: run it on each of them with NNODES, NODE_RANK, MASTER_ADDR and PORT set.
set -euo pipefail

if [[ $# -lt 3 || ! "$3" =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: dist_test.sh CONFIG CHECKPOINT GPUS [arguments of test.py], GPUS a number of processes" >&2
    exit 2
fi

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$3" \
    "$root/tools/test.py" "$1" "$2" --launcher pytorch "${@:4}"
