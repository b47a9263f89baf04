#!/usr/bin/env bash
# How much of the time a run that is killed again and again spends on steps that count.
#
#   scripts/goodput.sh [--seconds S] [--kill-every K] [--dir DIR] [--no-setup]
#
# Trains a model of 19.8M parameters on this machine for S seconds (default 300) undisturbed, then as long with a kill -9 every
# K seconds (default 60) and a restart at once; goodput is the steps that remain, relative to the first. Then, from the measured
# times of a save, a restart and a step, what failures an hour apart would leave (docs/reliability.md has the formula).
set -euo pipefail
cd "$(dirname "$0")/.."
repo=$PWD
source scripts/own_directory.sh
seconds=300 every=60 dir=build/goodput setup=yes
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) seconds=$2; shift 2 ;;
    --kill-every) every=$2; shift 2 ;;
    --dir) dir=$2; shift 2 ;;
    --no-setup) setup=; shift ;;
    -h|--help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "goodput: unknown option $1 (see --help)" >&2; exit 2 ;;
  esac
done
[ -z "$setup" ] || scripts/setup.sh release osler
own_directory "$dir"
export OSLER_BIN=${OSLER_BIN:-$repo/build/release/osler}
exec python3 "$repo/scripts/crash_campaign/goodput.py" --dir "$dir" --seconds "$seconds" --kill-every "$every"
