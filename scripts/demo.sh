#!/usr/bin/env bash
# The whole way in three minutes: synthetic clinic → de-identified shards → training on two ranks, killed half way
# and resumed → export → scored in transformers on patients never seen.
#
#   scripts/demo.sh [--dir DIR] [--steps N] [--shuffle-labels] [--no-setup]
#
#   --dir DIR         where everything is written (default build/demo; emptied first if an earlier demo made it)
#   --steps N         training steps (default 300)
#   --shuffle-labels  permute the training answers over the notes: accuracy must stay at chance
#   --no-setup        take build/release (or $OSLER_BIN) as it is
set -euo pipefail
cd "$(dirname "$0")/.."
repo=$PWD
source scripts/own_directory.sh

dir=build/demo steps=300 setup=yes shuffle=
while [ $# -gt 0 ]; do
  case $1 in
    --dir) dir=$2; shift 2 ;;
    --steps) steps=$2; shift 2 ;;
    --shuffle-labels) shuffle=--shuffle-labels; shift ;;
    --no-setup) setup=; shift ;;
    -h|--help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "demo: unknown option $1 (see --help)" >&2; exit 2 ;;
  esac
done
[ "$steps" -ge 20 ] || { echo "demo: --steps must be at least 20" >&2; exit 2; }

[ -z "$setup" ] || scripts/setup.sh release osler
osler=${OSLER_BIN:-$repo/build/release/osler}
python=$repo/.venv/bin/python
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

own_directory "$dir"
cd "$dir"
began=$SECONDS

bold=$([ -t 2 ] && printf '\033[1m' || true) plain=$([ -t 2 ] && printf '\033[0m' || true)
step() { printf '\n%s%s%s\n' "$bold" "$*" "$plain" >&2; }
show() { printf '  $ %s\n' "$*" >&2; }

# ---- 1. the clinic, and its records through the gate
step "1. A synthetic clinic, de-identified"
python3 "$repo/scripts/demo/make_clinic.py" --output clinic $shuffle >&2
for part in shards:visits heldout:heldout; do
  cat >"${part%:*}.yaml" <<YAML
deid: {profile: safe_harbor}
sources:
  - {name: visits, format: chat_jsonl, path: clinic/${part#*:}.jsonl}
output: {path: ${part%:*}, shard_mb: 64}
YAML
  show "osler data build --config ${part%:*}.yaml"
  "$osler" data build --config "${part%:*}.yaml" >&2
done
"$osler" data inspect shards/train --records >clean.jsonl
"$osler" data inspect heldout/train --records >clean_heldout.jsonl
python3 "$repo/scripts/demo/before_after.py" clinic/visits.jsonl clinic/planted.jsonl clean.jsonl >&2

# ---- 2. a tiny Gemma 3 with random weights
step "2. A tiny Gemma 3 model with random weights"
"$python" "$repo/scripts/demo/make_tokenizer.py" --input clean.jsonl --output tokenizer >&2
show "osler init --output model --tokenizer tokenizer --hidden-size 128 --layers 4 …"
"$osler" init --output model --tokenizer tokenizer --hidden-size 128 --layers 4 --heads 4 \
  --kv-heads 2 --head-dim 32 --intermediate-size 256 --sliding-window 64 --global-every 4 --seed 1 >&2

# ---- 3. training on two ranks, killed half way, between two checkpoints
every=$((steps / 10))
cat >train.yaml <<YAML
model: {path: model}
data: {train: [{path: shards/train, weight: 1.0}], sequence_length: 512, packing: true, shuffle: true}
mesh: {data: 2}
train: {steps: $steps, global_batch: 4, micro_batch: 1, precision: fp32, seed: 7, recompute: none, output: run}
optimizer: {type: adamw, lr: 2.0e-3, betas: [0.9, 0.95], eps: 1.0e-8, weight_decay: 0.1, clip_norm: 1.0}
schedule: {type: cosine, warmup_steps: 10, min_lr_ratio: 0.1}
checkpoint: {every_steps: $every, keep: 2}
YAML
# Open MPI hands the ranks a pipe as stderr; rank 0 gets the terminal itself, if there is one, for its progress bar.
terminal=$([ -t 2 ] && tty <&2 || true)
train=(mpirun -q -n 2 --oversubscribe --bind-to none --mca mpi_yield_when_idle 1
  bash -c '[ -z "$1" ] || [ "$OMPI_COMM_WORLD_RANK" != 0 ] || exec 2>"$1"; exec "$0" train --config train.yaml'
  "$osler" "$terminal")
shown="mpirun -n 2 osler train --config train.yaml"
metrics=run/log/metrics.jsonl
steps_done() { [ -f "$metrics" ] && wc -l <"$metrics" || echo 0; }

step "3. Training on two ranks, kill -9 half way"
show "$shown"
"${train[@]}" </dev/null >&2 &
job=$!
trap 'kill -TERM $job 2>/dev/null || true' EXIT
while [ "$(steps_done)" -lt $((steps / 2 + every / 2)) ]; do
  kill -0 $job 2>/dev/null || { wait $job && code=0 || code=$?; echo "demo: training ended early ($code)" >&2; exit 1; }
  sleep 0.1
done
pkill -9 -P $job || { echo "demo: no rank was left to kill" >&2; exit 1; }
wait $job 2>/dev/null && code=0 || code=$?
trap - EXIT
killed_after=$(steps_done)
resumed_from=$(ls run/checkpoints | sed -n 's/^step-\([0-9]*\)$/\1/p' | sort -n | tail -1)
printf '\n  kill -9 of both ranks after step %s (mpirun: exit %s); newest checkpoint: step %s\n' \
  "$killed_after" "$code" "$resumed_from" >&2
[ "$code" != 0 ] && [ -n "$resumed_from" ] || { echo "demo: the kill did not come half way" >&2; exit 1; }
echo "{\"ranks\": 2, \"killed_after\": $killed_after, \"resumed_from\": $resumed_from}" >resume.json

step "4. The same command again resumes"
show "$shown"
"${train[@]}" </dev/null >&2

# ---- 5. export, and the judgement of transformers
step "5. Export, and transformers scores held-out patients"
show "osler export --run run --output exported"
"$osler" export --run run --output exported >&2
OMP_NUM_THREADS=$(nproc) "$python" "$repo/scripts/demo/score.py" --records clean_heldout.jsonl \
  --answers clinic/answers.json --output scores.jsonl model exported
verdict=0
python3 "$repo/scripts/demo/report.py" --dir . ${shuffle:+--expect-chance} || verdict=$?
echo "demo: $((SECONDS - began)) s; everything is in $dir"
exit $verdict
