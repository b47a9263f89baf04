#!/usr/bin/env bash
# Osler's CUDA kernels beside their peers on this machine's GPU, in one process a kind, on the same tensors.
#
#   scripts/bench_gpu.sh [--dir build/bench_gpu] [--library FILE] [--budget-seconds 300] [--families 80,90]
#                        [--cases NAME,…] [--no-check] [--no-rows] [--no-step]
#
# 1. right or not: gpu_attention.py check --quick and gpu_rows.py check (a failure makes the exit code 1 in the end)
# 2. attention: gpu_attention.py bench: ATen's FA2, cuDNN, dense mask, the ceilings of products and copies
# 3. the row kernels: gpu_rows.py bench, and the output projection with the loss: gpu_head.py, where they are there
# 4. a training step of transformers + PEFT: gpu_step_peer.py
# The budget is for 2 to 4: three parts, one and two. Tables go to stdout, everything to DIR/result.json and table.md.
# Nothing is built: the library is build/release/libosler_cuda.so (target osler_cuda) or --library. docs/benchmarks.md
# holds figures.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=build/bench_gpu library=${OSLER_CUDA_LIBRARY:-} budget=300 families=80,90 cases= check=yes rows=yes step=yes
while [ $# -gt 0 ]; do
  case $1 in
    --dir) dir=$2; shift 2 ;;
    --library) library=$2; shift 2 ;;
    --budget-seconds) budget=$2; shift 2 ;;
    --families) families=$2; shift 2 ;;
    --cases) cases=$2; shift 2 ;;
    --no-check) check=; shift ;;
    --no-rows) rows=; shift ;;
    --no-step) step=; shift ;;
    -h|--help) sed -n '2,14s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "bench: unknown option $1 (see --help)" >&2; exit 2 ;;
  esac
done
python=$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)
if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
  echo "bench: skipped, $python has no torch that sees a GPU"
  exit 0
fi
[ -z "$library" ] || export OSLER_CUDA_LIBRARY=$library
export PYTHONDONTWRITEBYTECODE=1
mkdir -p "$dir"
rm -f "$dir"/{check,attention,step,result}.json "$dir"/{rows.txt,table.md}

rows=$([ -n "$rows" ] && [ -f scripts/bench/gpu_rows.py ] && echo yes || true)
parts=$((3 + ${#rows} / 3 + 2 * (${#step} / 3)))  # each is "yes" or empty
share() { echo $((budget * $1 / parts)); }

failed=0
if [ -n "$check" ]; then
  "$python" scripts/bench/gpu_attention.py check --quick --repeats 20 --families "$families" --seconds 90 \
    --json "$dir/check.json" || failed=1
  [ -z "$rows" ] || timeout 120 "$python" scripts/bench/gpu_rows.py check || failed=1
fi
"$python" scripts/bench/gpu_attention.py bench --families "$families" ${cases:+--cases "$cases"} \
  --budget-seconds "$(share 3)" --json "$dir/attention.json" || failed=1
if [ -n "$rows" ]; then
  timeout "$(share 1)" "$python" scripts/bench/gpu_rows.py bench | tee "$dir/rows.txt" || failed=1
  [ ! -f scripts/bench/gpu_head.py ] || timeout 60 "$python" scripts/bench/gpu_head.py | tee -a "$dir/rows.txt" || failed=1
fi
if [ -n "$step" ]; then
  "$python" scripts/bench/gpu_step_peer.py --budget-seconds "$(share 2)" --json "$dir/step.json" || failed=1
fi
"$python" scripts/bench/gpu_report.py "$dir"
exit $failed
