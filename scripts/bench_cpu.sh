#!/usr/bin/env bash
# Osler against transformers' Trainer on this machine's CPU: the same 20M-parameter Gemma 3-style model on PubMedQA.
#
#   scripts/bench_cpu.sh [--dir DIR] [--samples DIR] [--no-setup] [--steps 8] [--rounds 2] [--batch 4] [--micro-batch 1]
#                        [--sequence-length 768] [--precision fp32 bf16] [--threads N] [--variants …]
#
# Runs take turns, so that a machine that slows down slows all of them. scripts/bench/compare.py says how it measures,
# scripts/bench/hf_trainer.py what the peer runs; docs/benchmarks.md holds figures.
set -euo pipefail
cd "$(dirname "$0")/.."
repo=$PWD
source scripts/own_directory.sh
dir=build/bench_cpu samples=../shared/samples setup=yes
while [ $# -gt 0 ]; do
  case $1 in
    --dir) dir=$2; shift 2 ;;
    --samples) samples=$2; shift 2 ;;
    --no-setup) setup=; shift ;;
    -h|--help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) break ;;
  esac
done
text=$(realpath -m "$samples")/text_qa/ori_pqal.json
if [ ! -f "$text" ]; then
  echo "bench: skipped, $text is not there (PubMedQA's ori_pqal.json; name its folder with --samples)"
  exit 0
fi
[ -z "$setup" ] || scripts/setup.sh release osler
osler=${OSLER_BIN:-$repo/build/release/osler}
python=$repo/.venv/bin/python
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

own_directory "$dir"
cd "$dir"
# Both sides read the same text: what the gate let through.
python3 "$repo/scripts/bench/make_pubmedqa.py" "$text" pubmedqa.jsonl
cat >shards.yaml <<YAML
deid: {profile: safe_harbor}
sources:
  - {name: pubmedqa, format: chat_jsonl, path: pubmedqa.jsonl}
output: {path: shards, shard_mb: 64}
YAML
"$osler" data build --config shards.yaml >&2
"$osler" data inspect shards/train --records >clean.jsonl
"$python" "$repo/scripts/demo/make_tokenizer.py" --input clean.jsonl --output tokenizer --vocab-size 12000 >&2
"$osler" init --output model --tokenizer tokenizer --hidden-size 384 --layers 7 --heads 6 \
  --kv-heads 2 --head-dim 64 --intermediate-size 1536 --sliding-window 512 --seed 1 >&2
python3 "$repo/scripts/bench/compare.py" --dir . --osler "$osler" "$@"
