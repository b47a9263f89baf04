#!/usr/bin/env bash
# What a checkpoint costs a run: a model of 119M parameters (1.4 GB a checkpoint) is saved while it trains, by Osler
# with one rank and with two; the same state by torch.distributed.checkpoint's async save and safetensors' save_file.
#
#   scripts/bench_checkpoint.sh [--dir DIR] [--no-setup] [--rounds 2] [--steps 80] [--every 20] [--wait 60]
#                               [--threads N] [--sides …]
#
#   --dir DIR      where everything is written, 8 GB at most (default build/bench_checkpoint; emptied first if an
#                  earlier run made it); the disk under it is the one that is measured
#   --no-setup     take build/release (or $OSLER_BIN) as it is
#
# The sides take turns. scripts/bench/checkpoint.py says how it measures and has the other options; docs/benchmarks.md
# holds figures.
set -euo pipefail
cd "$(dirname "$0")/.."
repo=$PWD
source scripts/own_directory.sh
dir=build/bench_checkpoint setup=yes
while [ $# -gt 0 ]; do
  case $1 in
    --dir) dir=$2; shift 2 ;;
    --no-setup) setup=; shift ;;
    -h|--help) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) break ;;
  esac
done
[ -z "$setup" ] || scripts/setup.sh release osler
osler=${OSLER_BIN:-$repo/build/release/osler}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

own_directory "$dir"
"$repo/.venv/bin/python" "$repo/scripts/bench/checkpoint.py" --dir "$dir" --osler "$osler" "$@"
