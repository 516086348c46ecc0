#!/usr/bin/env bash
# The whole way on a generated data set: data, training, evaluation, pictures.
#
#   tools/demo.sh [--fresh]
#
# Run again after an interruption, it resumes the training; run again after the end, it evaluates
# and draws again. --fresh starts from the beginning. PYTHON names the Python of an environment in
# which this package is installed.
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
config='configs/contrast/retina_contrast_shapes.py'
data='data/shapes'
work='work_dirs/demo'
log="$work/demo.log"

case "${1:-}" in
    '' | --fresh) ;;
    *)
        echo "usage: demo.sh [--fresh]" >&2
        exit 2
        ;;
esac
python="$(command -v -- "${PYTHON:-python}")" || {
    echo "demo: there is no Python called '${PYTHON:-python}': set PYTHON" >&2
    exit 1
}
mim="$(dirname -- "$python")/mim"
if [[ ! -x "$mim" ]]; then
    echo "demo: no 'mim' beside $python: install openmim there, or set PYTHON" >&2
    exit 1
fi
[[ "${1:-}" != --fresh ]] || rm -rf -- "$work"
mkdir -p -- "$work"
: > "$log"
# Warnings of third-party packages would bury what the demo has to say.
export PYTHONWARNINGS="${PYTHONWARNINGS:-ignore}"

say() { printf '[%4ds] %s\n' "$SECONDS" "$*"; }

# One line per epoch and one per validation, from MMEngine's log on standard input.
progress() {
    awk 'function after(name) {
             return match($0, name ": +[-0-9.:]+") \
                 ? substr($0, RSTART + length(name) + 1, RLENGTH - length(name) - 1) : ""
         }
         /Epoch\(train\)/ && match($0, /Epoch\(train\) *\[ *[0-9]+\]/) {
             now = substr($0, RSTART, RLENGTH); gsub(/[^0-9]/, "", now)
             if (epoch != "" && now != epoch) {
                 printf "        epoch %d: loss %.3f,%s left\n", epoch, loss, eta; fflush()
             }
             epoch = now; loss = after(" loss"); eta = after("eta")
         }
         /Epoch\(val\).*bbox_mAP_50:/ {
             printf "        after epoch %d: AP50 %.3f on the validation set\n", epoch,
                 after("bbox_mAP_50"); fflush()
         }'
}

# Run a command with its output in the log; show the log's end when it fails.
quietly() {
    local status=0
    "$@" 2>&1 | tee -a -- "$log" | progress || status=$?
    if [[ $status -ne 0 ]]; then
        # mim ends with a traceback of its own; the real error stands above it
        tail -n 50 -- "$log" >&2
        echo "demo: failed (status $status): $*; the whole log is $log" >&2
        exit "$status"
    fi
}

trap 'echo; echo "demo: interrupted; run it again to go on from the last checkpoint" >&2; exit 130' INT

say "generating the data set in $data"
quietly "$python" projects/shapes/make_shapes.py "$data"

if [[ -e "$work/finished" ]]; then
    say "trained already (--fresh trains anew)"
else
    say "training, or resuming: mim train mmdet $config"
    quietly "$mim" train mmdet "$config" --work-dir "$work" --resume auto
    touch -- "$work/finished"
fi

# The file holds an absolute path, which is stale in a folder that was moved.
checkpoint="$work/$(basename -- "$(cat -- "$work/last_checkpoint")")"

say "evaluating: mim test mmdet $config"
before=$(($(wc -l < "$log") + 1))
quietly "$mim" test mmdet "$config" --checkpoint "$checkpoint" --work-dir "$work/test" \
    --out "$work/test/predictions.pkl" --show-dir "$PWD/$work/test/pictures"
table="$(tail -n "+$before" -- "$log" | grep -E '^[|+]' || true)"
summary="$(tail -n "+$before" -- "$log" | grep -oE 'Average Precision .*' || true)"

say "drawing"
quietly "$python" tools/analysis_tools/draw_detections.py "$config" "$work/test/predictions.pkl" \
    --out "$work/detections.png"
quietly "$python" tools/analysis_tools/browse_views.py "$config" --out-dir "$work/views"
quietly "$python" tools/analysis_tools/plot_losses.py "$work" --out "$work/losses.png" --smooth 5

say "done"
cat <<END

AP on the test set, per class:
$table
$summary

checkpoint          $checkpoint
detections          $work/detections.png (ground truth purple, correct green, wrong yellow)
every test picture  $work/test/pictures (MMDetection's drawing)
view pairs          $work/views (original | contrastive view)
loss curves         $work/losses.png
full log            $log
END
