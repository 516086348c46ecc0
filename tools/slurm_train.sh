#!/usr/bin/env bash
# Train on a Slurm cluster.
#
#   tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of tools/train.py]
#
# GPUS (8), GPUS_PER_NODE (8, at most GPUS) and CPUS_PER_TASK (5) size the job; its processes meet at
# PORT (29500); SRUN_ARGS holds further arguments of srun, separated by blanks.
set -euo pipefail

if [[ $# -lt 4 ]]; then
    echo "usage: slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of train.py]" >&2
    exit 2
fi

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
# the name that MMEngine reads
export MASTER_PORT="${PORT:-${MASTER_PORT:-29500}}"
gpus="${GPUS:-8}"
gpus_per_node="${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}"
# Split on blanks, without the shell's expansion of wildcards.
srun_args=()
if [[ -n "${SRUN_ARGS:-}" ]]; then
    read -r -a srun_args <<< "$SRUN_ARGS"
fi

exec srun -p "$1" \
    --job-name="$2" \
    --gres="gpu:$gpus_per_node" \
    --ntasks="$gpus" \
    --ntasks-per-node="$gpus_per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    ${srun_args[@]+"${srun_args[@]}"} \
    "${PYTHON:-python}" -u "$root/tools/train.py" "$3" --work-dir "$4" --launcher slurm "${@:5}"
