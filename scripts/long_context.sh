#!/usr/bin/env bash
# A fact in a timeline of 32k tokens: a tiny Gemma 3 (one window layer, one global layer) learns on short timelines to
# say which device was implanted, then on long ones under context parallel 2, and answers for held-out long timelines.
# The first long steps are run on one rank too: their losses must agree within 1e-5.
#
#   scripts/long_context.sh [--dir DIR] [--tokens N] [--steps N] [--heldout N] [--seed N] [--no-setup]
#
#   --dir DIR      where everything is written (default build/long_context; emptied first if an earlier run made it)
#   --tokens N     length of the long timelines (default 32768)
#   --steps N      training steps on long timelines (default 10, two timelines each)
#   --heldout N    long timelines to answer for (default 8)
#   --seed N       of timelines, weights and their order (default 1)
#   --no-setup     take build/release (or $OSLER_BIN) as it is
set -euo pipefail
cd "$(dirname "$0")/.."
repo=$PWD
source scripts/own_directory.sh

dir=build/long_context tokens=32768 steps=10 heldout=8 seed=1 setup=yes
while [ $# -gt 0 ]; do
  case $1 in
    --dir) dir=$2; shift 2 ;;
    --tokens) tokens=$2; shift 2 ;;
    --steps) steps=$2; shift 2 ;;
    --heldout) heldout=$2; shift 2 ;;
    --seed) seed=$2; shift 2 ;;
    --no-setup) setup=; shift ;;
    -h|--help) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "long_context: unknown option $1 (see --help)" >&2; exit 2 ;;
  esac
done
[ "$steps" -ge 3 ] || { echo "long_context: --steps must be at least 3" >&2; exit 2; }

[ -z "$setup" ] || scripts/setup.sh release osler
osler=${OSLER_BIN:-$repo/build/release/osler}
python=$repo/.venv/bin/python
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

own_directory "$dir"
cd "$dir"
two=(mpirun -q -n 2 --oversubscribe --bind-to none --mca mpi_yield_when_idle 1)
step() { printf '\n%s\n' "$*" >&2; }

step "1. Synthetic timelines through the gate, a tokenizer, a tiny model"
python3 "$repo/scripts/long_context/make_timelines.py" --output data --tokens "$tokens" --long $((2 * steps)) \
  --heldout "$heldout" --seed "$seed"
for part in short long heldout; do
  cat >$part.yaml <<YAML
deid: {profile: safe_harbor}
sources:
  - {name: timelines, format: chat_jsonl, path: data/$part.jsonl}
output: {path: $part, shard_mb: 64}
YAML
  "$osler" data build --config $part.yaml >&2
done
"$osler" data inspect short/train --records >short-clean.jsonl
"$osler" data inspect heldout/train --records >heldout-clean.jsonl
"$python" "$repo/scripts/demo/make_tokenizer.py" --input short-clean.jsonl --output tokenizer >&2
"$osler" init --output model --tokenizer tokenizer --hidden-size 64 --layers 2 --heads 1 --kv-heads 1 --head-dim 32 \
  --intermediate-size 128 --sliding-window 32 --global-every 2 --max-positions $((2 * tokens)) --seed "$seed" >&2

# write_config NAME MODEL DATA LENGTH STEPS MESH SCHEDULE
write_config() {
  cat >"$1.yaml" <<YAML
model: {path: $2}
data: {train: [{path: $3/train}], sequence_length: $4}
mesh: {$6}
train: {steps: $5, global_batch: 2, precision: fp32, seed: $seed, output: $1}
optimizer: {lr: 1.0e-3, betas: [0.9, 0.95], weight_decay: 0, clip_norm: 1.0}
schedule: {type: $7, warmup_steps: 2, min_lr_ratio: 0.1}
YAML
}

step "2. Short timelines, on two data ranks"
write_config base model short 4096 300 "data: 2" cosine
"${two[@]}" "$osler" train --config base.yaml >&2
"$osler" export --run base --output base-model >&2

# Positions of long timelines as if they were those of short ones: linear RoPE scaling, as Gemma 3's own 8.
cp -r base-model extended-model
python3 - extended-model/config.json $((tokens / 128)) <<'PYTHON'
import json, sys
config = json.load(open(sys.argv[1]))
config["rope_parameters"]["full_attention"].update(rope_type="linear", factor=float(sys.argv[2]))
json.dump(config, open(sys.argv[1], "w"), indent=2)
PYTHON

step "3. Timelines of $tokens tokens: three steps on one rank, then $steps on two context ranks"
write_config one extended-model long $((tokens + 256)) 3 "" constant
"$osler" train --config one.yaml >&2
write_config context extended-model long $((tokens + 256)) "$steps" "context: 2" constant
"${two[@]}" "$osler" train --config context.yaml >&2
"$osler" export --run context --output context-model >&2

step "4. Answers for held-out timelines"
python3 "$repo/scripts/long_context/report.py" --prompts heldout-clean.jsonl prompts.jsonl
for model in base extended context; do
  "$osler" generate --model $model-model --input prompts.jsonl --output $model-answers.jsonl --max-new-tokens 2 >&2
done
python3 "$repo/scripts/long_context/report.py" --dir .
