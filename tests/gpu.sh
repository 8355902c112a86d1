#!/usr/bin/env bash
# One command for a GPU machine without network: correctness, then figures, in under ten minutes. See tests/gpu/main.py.
#   tests/gpu.sh [PART …]     tests/gpu.sh --simulate     tests/gpu.sh --compile sm_90a
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
python=${PYTHON:-}
if [ -z "$python" ]; then
  if [ -x "$root/.venv/bin/python" ]; then python=$root/.venv/bin/python; else python=python3; fi
fi
# libnvvm is not a wheel on every GPU machine, but always in the toolkit
if [ -z "${CUDA_HOME:-}" ] && [ -d /usr/local/cuda ]; then export CUDA_HOME=/usr/local/cuda; fi
export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 TOKENIZERS_PARALLELISM=false
compiled=$root/build/gpu-cubins
if [ "${1:-}" = --compile ]; then
  mkdir -p "$compiled"
  export VSRV_CACHE_DIR=$compiled
elif [ -z "${VSRV_CACHE_DIR:-}" ] && [ -d "$compiled" ]; then
  # carried here: vsrv trusts only files that this user owns and nobody else can write
  VSRV_CACHE_DIR=$(mktemp -d)
  trap 'rm -rf "$VSRV_CACHE_DIR"' EXIT
  cp -r "$compiled/." "$VSRV_CACHE_DIR/"
  chmod -R go-w "$VSRV_CACHE_DIR"
  export VSRV_CACHE_DIR VSRV_GPU_CARRIED=1
fi
status=0
if [ -n "${OUT:-}" ] && [ -d "$OUT" ]; then
  "$python" tests/gpu/main.py "$@" 2>&1 | tee "$OUT/gpu.log" || status=$?
else
  "$python" tests/gpu/main.py "$@" || status=$?
fi
exit "$status"
