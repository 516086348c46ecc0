#!/usr/bin/env bash
# The whole way on a generated data set: data, training, evaluation, pictures.
#
#   tools/demo.sh [--fresh]
#
# Run again after an interruption, it resumes the training; run again after the end, it evaluates
# and draws again. --fresh starts from the beginning. PYTHON names the Python of an environment in
# which this package is installed; CONFIG, DATA and WORK_DIR replace what is trained, on what data
# (DATA= makes none) and where the results go.
set -euo pipefail

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
cd -- "$root"

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

config="${CONFIG:-configs/contrast/retina_contrast_shapes.py}"
data="${DATA-data/shapes}"
work="${WORK_DIR:-work_dirs/demo}"
[[ "${1:-}" != --fresh ]] || rm -rf -- "$work"
mkdir -p -- "$work"
work_abs="$(cd -- "$work" && pwd)"
# Resuming another config's run, or calling it finished, would give results of neither.
if [[ -e "$work/config" && "$(cat -- "$work/config")" != "$config" ]]; then
    echo "demo: $work holds a run of $(cat -- "$work/config"), not of $config: add --fresh, or set WORK_DIR" >&2
    exit 1
fi
printf '%s\n' "$config" > "$work/config"
log="$work/demo.log"
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
    local start status=0
    start=$(($(wc -l < "$log") + 1))
    "$@" 2>&1 | tee -a -- "$log" | progress || status=$?
    if [[ $status -ne 0 ]]; then
        {
            echo "demo: failed (status $status): $*"
            echo "demo: the end of $log:"
            # mim ends with a traceback of its own; the real error stands above it.
            tail -n "+$start" -- "$log" | awk '
                { line[NR] = $0 }
                /^Traceback/ { begin = NR }
                /mim\/commands\// && !own && begin { own = begin }
                END {
                    last = NR
                    if (own > 1 && line[NR] ~ /returned non-zero exit status/) last = own - 1
                    for (i = (last > 25 ? last - 24 : 1); i <= last; i++) print line[i]
                }'
        } >&2
        exit "$status"
    fi
}

trap 'echo; echo "demo: interrupted; run it again to go on from the last checkpoint" >&2; exit 130' INT

if [[ -n "$data" ]]; then
    say "generating the data set in $data"
    quietly "$python" projects/shapes/make_shapes.py "$data"
fi

if [[ -e "$work/finished" ]]; then
    say "trained already (--fresh trains anew)"
else
    if [[ -e "$work/last_checkpoint" ]]; then
        say "resuming: mim train mmdet $config"
    else
        say "training: mim train mmdet $config"
    fi
    quietly "$mim" train mmdet "$config" --work-dir "$work" --resume auto
    touch -- "$work/finished"
fi

checkpoint="$(cat -- "$work/last_checkpoint")"
if [[ ! -f "$checkpoint" ]]; then
    # The file holds an absolute path, which is stale in a folder that was moved.
    checkpoint="$work/$(basename -- "$checkpoint")"
fi

say "evaluating: mim test mmdet $config"
before=$(($(wc -l < "$log") + 1))
quietly "$mim" test mmdet "$config" --checkpoint "$checkpoint" --work-dir "$work/test" \
    --out "$work/test/predictions.pkl" --show-dir "$work_abs/test/pictures"
table="$(tail -n "+$before" -- "$log" | grep -E '^[|+]' || true)"
summary="$(tail -n "+$before" -- "$log" | grep -oE 'Average Precision .*' || true)"

say "drawing"
quietly "$python" tools/analysis_tools/draw_detections.py "$config" "$work/test/predictions.pkl" \
    --out "$work/detections.png"
quietly "$python" tools/analysis_tools/browse_views.py "$config" --out-dir "$work/views"
quietly "$python" tools/analysis_tools/plot_losses.py "$work" --out "$work/losses.png" --smooth 5

say "done"
echo
if [[ -n "$table" ]]; then
    echo "AP on the test set, per class:"
    echo "$table"
fi
echo "$summary"
cat <<END

checkpoint          $checkpoint
detections          $work/detections.png (ground truth purple, correct green, wrong yellow)
every test picture  $work/test/pictures (MMDetection's drawing)
view pairs          $work/views (original | contrastive view)
loss curves         $work/losses.png
full log            $log
END
