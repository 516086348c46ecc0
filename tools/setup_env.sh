#!/usr/bin/env bash
# Sets up an environment in which mmdet_contrast trains.
#
#   bash tools/setup_env.sh [--python PYTHON] [--venv DIR] [--stack STACK] [--use-current] [--dev]
#
#   --python PYTHON  the Python to make the environment from. If MMDetection already works in it, the
#                    environment of that Python is used as it is, unless --venv is given.
#   --venv DIR       the environment's folder; made if it is not there. Default: .venv beside this
#                    repository's setup.py.
#   --stack STACK    the pinned versions of a new environment, whichever one is active: modern
#                    (requirements/stack.txt, in .venv) or classic (requirements/classic.txt with
#                    torch 2.1 and numpy 1.26, in .venv-classic; Python 3.11 only).
#   --use-current    never make an environment: use that of --python (default: `python`), and stop
#                    if MMDetection does not work in it.
#   --dev            also install what the tests need (requirements/tests*.txt).
#
# Without --venv, --python and --stack, an active virtual or conda environment in which torch, mmcv's
# ops and mmdet import is used as it is. An environment that works gets the package itself (editable),
# with --dev the test tools that are missing, and nothing else: torch, mmcv and the rest stay as they
# are.
#
# Without --stack, a new environment uses the torch of the Python that it is made from, if that torch
# sees a GPU. With a GPU mmcv's ops are built for it, which needs nvcc.
#
# Progress goes to standard error. Standard output is one line: the Python to use.
# mmcv's ops are built once; the wheel is kept in MMDET_CONTRAST_CACHE, by default
# ${XDG_CACHE_HOME:-~/.cache}/mmdet_contrast.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
CACHE="${MMDET_CONTRAST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mmdet_contrast}"
REQUIREMENTS="$ROOT/requirements"
# Left in an environment that this script made, and in one that was there and works.
OWN_STAMP='.mmdet_contrast_stamp'
USER_STAMP='.mmdet_contrast_user_stamp'
# Names the folder that has the torch of the Python from which the environment was made.
BASE_TORCH='zz_base_torch.pth'
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '%s\n' "$*" >&2; }
die() {
  say "setup_env.sh: $*"
  exit 1
}
usage() { sed -n '2,/^set -euo/p' "${BASH_SOURCE[0]}" | sed -e '/^set -euo/d' -e 's/^# \{0,1\}//' >&2; }

PYTHON_ARG='' VENV='' STACK='' USE_CURRENT=0 DEV=0
while [ "$#" -gt 0 ]; do
  case "$1" in
    --python | --venv | --stack)
      [ "$#" -ge 2 ] || die "$1 needs a value"
      case "$1" in
        --python) PYTHON_ARG="$2" ;;
        --venv) VENV="$2" ;;
        --stack) STACK="$2" ;;
      esac
      shift 2
      ;;
    --use-current) USE_CURRENT=1 && shift ;;
    --dev) DEV=1 && shift ;;
    -h | --help) usage && exit 0 ;;
    *) die "unknown argument '$1'; see --help" ;;
  esac
done
PINS="$REQUIREMENTS/stack.txt"
case "$STACK" in
  '') ;;
  modern) VENV="${VENV:-$ROOT/.venv}" ;;
  classic)
    VENV="${VENV:-$ROOT/.venv-classic}"
    PINS="$REQUIREMENTS/classic.txt"
    ;;
  *) die "unknown stack '$STACK': give modern or classic" ;;
esac
if [ "$USE_CURRENT" -eq 1 ] && [ -n "$VENV" ]; then
  die '--use-current excludes --venv and --stack: give one of them'
fi
[ -f "$ROOT/setup.py" ] || die "$ROOT has no setup.py: run the script from a source tree"

# Prints the absolute path of a Python, or nothing if it does not run (pyenv's shims exist even for
# versions that are not there).
resolve() { "$1" -c 'import sys; print(sys.executable)' 2>/dev/null || true; }

# True if torch, mmcv with its ops and mmdet work in that Python, whatever their versions are.
works() { PYTHONPATH="$ROOT" "$1" -m mmdet_contrast.doctor --stack --quiet >/dev/null 2>&1; }

# What an installation depends on; without mim's links (.mim) there is none.
fingerprint() { # PYTHON DEV
  [ -e "$ROOT/mmdet_contrast/.mim/tools" ] || printf 'no links\n'
  {
    cat "$REQUIREMENTS"/*.txt "$ROOT/setup.py" "$ROOT/pyproject.toml" "$ROOT/mmdet_contrast/version.py"
    printf '%s %s %s dev=%s\n' "$ROOT" "$PINS" "$("$1" -V 2>&1)" "$2"
  } | cksum
}

sees_gpu() { "$1" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; }

prefix_of() { "$1" -c 'import sys; print(sys.prefix)'; }

purelib_of() { "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }

# True if the stamp was written for what is installed now. The test tools do no harm to a user, so an
# environment that has them serves both.
is_done() { # PYTHON STAMP
  local dev
  [ -f "$2" ] || return 1
  for dev in "$DEV" 1; do
    if [ "$(cat "$2")" = "$(fingerprint "$1" "$dev")" ]; then return 0; fi
  done
  return 1
}

# Prints the Python and ends if its environment, one that is used as it is, needs nothing more.
finish_if_done() { # PYTHON
  if is_done "$1" "$(prefix_of "$1")/$USER_STAMP"; then
    printf '%s\n' "$1"
    exit 0
  fi
}

compile() { # FOLDER...
  # pip would compile one file after the other; here all cores do, and the packages' own tests stay
  # out. Left to the first import, it would slow down every start where PYTHONDONTWRITEBYTECODE is
  # set. A file that does not compile (a template, say) is none that is imported.
  "$python" -m compileall -q -q -j 0 -x '/(tests?|testing/_internal)/' "$@" >&2 || true
}

install_test_tools() { # PYTHON: adds what is missing, and changes nothing that is there
  local python="$1" constraints
  constraints="$(mktemp)"
  # A constraint on ruff would fight with its pin.
  "$python" -m pip freeze --exclude-editable | grep -E '^[A-Za-z0-9._-]+==' |
    grep -v '^ruff==' >"$constraints"
  "$python" -m pip install -qq -c "$constraints" -r "$REQUIREMENTS/tests.txt" >&2
  "$python" -m pip install -qq --no-deps -r "$REQUIREMENTS/tests_no_deps.txt" >&2
  rm -f "$constraints"
}

# Installs the package, and nothing else, into an environment that works.
use_as_it_is() { # PYTHON REASON
  local python="$1"
  say "using the environment of $python as it is ($2): installing only the package"
  "$python" -m pip install -qq --no-deps --no-build-isolation -e "$ROOT" >&2
  if [ "$DEV" -eq 1 ]; then
    say 'installing the test tools that are missing'
    install_test_tools "$python"
  fi
  # An environment may be read-only for its user; then the next call looks again.
  { fingerprint "$python" "$DEV" >"$(prefix_of "$python")/$USER_STAMP"; } 2>/dev/null || true
  printf '%s\n' "$python"
  exit 0
}

if [ "$USE_CURRENT" -eq 1 ]; then
  python="$(resolve "${PYTHON_ARG:-python}")"
  [ -n "$python" ] || die "'${PYTHON_ARG:-python}' does not run: name the Python to use with --python"
  finish_if_done "$python"
  if ! works "$python"; then
    PYTHONPATH="$ROOT" "$python" -m mmdet_contrast.doctor --stack >&2 || true
    die "MMDetection does not work with $python (see above), and --use-current forbids another"
  fi
  use_as_it_is "$python" '--use-current'
fi

if [ -z "$VENV" ]; then
  if [ -n "$PYTHON_ARG" ]; then
    candidate="$(resolve "$PYTHON_ARG")"
    [ -n "$candidate" ] || die "'$PYTHON_ARG' does not run: give the path of a Python 3.11 or newer"
  elif [ -n "${VIRTUAL_ENV:-}" ]; then
    candidate="$(resolve "$VIRTUAL_ENV/bin/python")"
  elif [ -n "${CONDA_PREFIX:-}" ]; then
    candidate="$(resolve "$CONDA_PREFIX/bin/python")"
  else
    candidate=''
  fi
  # The environment that this script made itself is brought up to date below instead.
  if [ -n "$candidate" ] && [ ! -e "$(dirname "$candidate")/../$OWN_STAMP" ]; then
    finish_if_done "$candidate"
    if works "$candidate"; then use_as_it_is "$candidate" 'MMDetection works in it'; fi
  fi
  VENV="$ROOT/.venv"
fi

python="$VENV/bin/python"
stamp="$VENV/$OWN_STAMP"
if [ -x "$python" ]; then
  python="$(cd "$VENV/bin" && pwd -P)/python"
  if [ -f "$stamp" ]; then
    if is_done "$python" "$stamp"; then
      printf '%s\n' "$python"
      exit 0
    fi
  else
    finish_if_done "$python"
    if works "$python"; then use_as_it_is "$python" 'MMDetection works in it'; fi
  fi
fi

if [ ! -x "$python" ]; then
  base='' gpu=''
  names=(python3.11 python3.12 python3.13 python3 python)
  if [ -n "$PYTHON_ARG" ]; then names=("$PYTHON_ARG"); fi
  # The first one, or, where no stack is asked for, the first whose torch sees a GPU.
  for name in "${names[@]}"; do
    found="$(resolve "$name")"
    if [ -n "$found" ] && "$found" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      base="${base:-$found}"
      if [ -z "$STACK" ] && sees_gpu "$found"; then
        base="$found" gpu=1
        break
      fi
    elif [ -n "$PYTHON_ARG" ]; then
      die "'$PYTHON_ARG' is no Python 3.11 or newer, which the pinned stack needs; with an older" \
        'Python install torch, mmcv with ops and mmdet yourself and use --use-current'
    fi
  done
  [ -n "$base" ] || die 'no Python 3.11 or newer found: install one, or name it with --python'
  "$base" -c 'import ensurepip, venv' 2>/dev/null ||
    die "$base cannot make virtual environments: install its venv module (Debian: apt-get install python3-venv)"
  say "making the environment $VENV from $base"
  "$base" -m venv "$VENV"
  python="$(cd "$VENV/bin" && pwd -P)/python"
  if [ -n "$gpu" ]; then
    say "using the torch of $base, which sees a GPU"
    "$base" -c 'import os, torch; print(os.path.dirname(os.path.dirname(torch.__file__)))' \
      >"$(purelib_of "$python")/$BASE_TORCH"
  fi
fi

# Until the end, so that an interrupted set-up is not taken for a finished one, or for a user's own.
printf 'incomplete\n' >"$stamp"
say 'installing the pinned stack (torch and others): a minute or so, longer if it has to be downloaded'
"$python" -m pip install -qq --no-compile -r <(grep -v '^torch==' "$PINS") >&2
# While torch, by far the largest, is unpacked.
compile "$VENV/lib" &
compiling=$!
files=()
if [ ! -f "$(purelib_of "$python")/$BASE_TORCH" ]; then files+=(-r "$PINS"); fi
if [ "$DEV" -eq 1 ]; then files+=(-r "$REQUIREMENTS/tests.txt"); fi
if [ "${#files[@]}" -gt 0 ]; then "$python" -m pip install -qq --no-compile "${files[@]}" >&2; fi
wait "$compiling"

# --- mmcv's ops: built once for each version of torch and Python and each kind of GPU, kept outside
# of the repository.
mmcv="$(sed -n 's/^mmcv==\([0-9.]*\).*/\1/p' "$REQUIREMENTS/no_deps.txt")"
key="$("$python" - "$mmcv" <<'PY'
import os
import platform
import sys

import torch

tag = f'cp{sys.version_info[0]}{sys.version_info[1]}'
key = f'mmcv-{sys.argv[1]}-{tag}-torch-{torch.__version__}-{platform.machine()}'
if torch.cuda.is_available():
    gpus = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
    key += ''.join(f'-sm_{major}{minor}' for major, minor in sorted(gpus))
# A torch for CUDA on a machine without a GPU makes mmcv build its CPU ops alone, unless told to.
elif torch.version.cuda:
    key += '-cuda' if os.environ.get('FORCE_CUDA') == '1' else '-nogpu'
print(key)
PY
)"
wheels="$CACHE/wheels/$key"

has_ops() { # WHEEL
  "$python" -c 'import sys, zipfile
names = zipfile.ZipFile(sys.argv[1]).namelist()
sys.exit(not any(name.startswith("mmcv/_ext.") for name in names))' "$1" 2>/dev/null
}

find_wheel() {
  local path
  for path in "$wheels"/mmcv-*.whl; do
    if [ -f "$path" ] && has_ops "$path"; then
      printf '%s\n' "$path"
      return
    fi
  done
}

build_wheel() {
  local work log source="mmcv==$mmcv"
  command -v "${CXX:-c++}" >/dev/null || command -v g++ >/dev/null ||
    die "no C++ compiler found, and mmcv's ops have to be built: install one (Debian: apt-get install g++)"
  if sees_gpu "$python"; then
    "$python" -c 'import os, sys
from torch.utils.cpp_extension import CUDA_HOME
sys.exit(not os.path.exists(f"{CUDA_HOME}/bin/nvcc"))' ||
      die "torch sees a GPU but there is no nvcc to build mmcv's ops for it: install the CUDA toolkit" \
        'and set CUDA_HOME, or use an environment that has mmcv (--use-current)'
    # Images of CUDA name every GPU there is; without the list torch builds for those it sees.
    unset TORCH_CUDA_ARCH_LIST
  fi
  mkdir -p "$CACHE/wheels"
  # On the same file system as its final place, so that the move at the end is atomic.
  work="$(mktemp -d "$CACHE/wheels/.build-XXXXXX")"
  trap 'rm -rf "$work"' EXIT
  log="$CACHE/mmcv_build.log"
  say "building mmcv's ops: 10 to 25 minutes on two cores, once (log: $log)"
  if "$python" -c 'import sys, torch
sys.exit(tuple(int(n) for n in torch.__version__.split(".")[:2]) < (2, 14))'; then
    # torch's headers need C++20 from 2.14 on, and mmcv asks for C++17.
    "$python" -m pip download -qq --no-deps --no-build-isolation --no-binary mmcv -d "$work" "$source" >&2
    tar -xzf "$work/mmcv-$mmcv.tar.gz" -C "$work"
    sed -i.bak 's/c++17/c++20/g' "$work/mmcv-$mmcv/setup.py"
    source="$work/mmcv-$mmcv"
  fi
  # Build isolation would bring another torch, or build without ops and say nothing.
  MMCV_WITH_OPS=1 "$python" -m pip wheel --no-build-isolation --no-deps --no-cache-dir \
    -w "$work/out" "$source" >"$log" 2>&1 || {
    tail -n 30 "$log" >&2
    die "mmcv's ops did not build; the whole log is in $log"
  }
  has_ops "$work"/out/mmcv-*.whl || die "the built mmcv has no ops; the log is in $log"
  mkdir -p "$wheels"
  mv -f "$work"/out/mmcv-*.whl "$wheels/"
  rm -rf "$work"
  trap - EXIT
}

wheel="$(find_wheel)"
if [ -z "$wheel" ]; then
  build_wheel
  wheel="$(find_wheel)"
else
  say "taking mmcv with its ops from $wheels"
fi

say 'installing mmcv, mmdet, openmim and the package'
files=(-r "$REQUIREMENTS/no_deps.txt")
if [ "$DEV" -eq 1 ]; then files+=(-r "$REQUIREMENTS/tests_no_deps.txt"); fi
# pip would keep another build of the same version, and an index or a cache may hold one.
"$python" -m pip install -qq --no-compile --no-deps --force-reinstall "$wheel" >&2
"$python" -m pip install -qq --no-compile --no-deps --no-build-isolation \
  "${files[@]}" -e "$ROOT" >&2
compile "$VENV/lib"

works "$python" || {
  PYTHONPATH="$ROOT" "$python" -m mmdet_contrast.doctor --stack >&2 || true
  die 'the environment is set up but training cannot run; see above'
}
fingerprint "$python" "$DEV" >"$stamp"
say "ready: $python"
printf '%s\n' "$python"
