#!/usr/bin/env bash
# Generation beside transformers' generate on this machine's CPU: prefill and decode tokens/s, one sequence and eight,
# fp32 and bf16, on random Gemma 3-style models of 20M and 121M parameters.
#
#   scripts/bench_generate.sh [--dir DIR] [--no-setup] [--model 20M|121M] [options of scripts/bench/generate.py]
set -euo pipefail
cd "$(dirname "$0")/.."
repo=$PWD
source scripts/own_directory.sh
dir=build/bench_generate setup=yes models="20M 121M"
while [ $# -gt 0 ]; do
  case $1 in
    --dir) dir=$2; shift 2 ;;
    --model) models=$2; shift 2 ;;
    --no-setup) setup=; shift ;;
    -h|--help) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) break ;;
  esac
done
[ -z "$setup" ] || scripts/setup.sh release osler
osler=${OSLER_BIN:-$repo/build/release/osler}
own_directory "$dir"
for model in $models; do
  case $model in
    20M) shape="--vocab-size 12000 --hidden-size 384 --layers 7 --heads 6 --kv-heads 2 --head-dim 64 --intermediate-size 1536" ;;
    121M) shape="--vocab-size 32000 --hidden-size 640 --layers 18 --heads 4 --kv-heads 1 --head-dim 256 --intermediate-size 2048" ;;
    *) echo "bench: --model is 20M or 121M" >&2; exit 2 ;;
  esac
  # shellcheck disable=SC2086
  "$osler" init --output "$dir/$model" $shape --sliding-window 512 --seed 1 >&2
  echo "== $model"
  "$repo/.venv/bin/python" "$repo/scripts/bench/generate.py" --model "$dir/$model" --osler "$osler" --output "$dir/$model.json" "$@"
done
