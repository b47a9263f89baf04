#!/usr/bin/env bash
# Breaks training runs in N ways drawn at random and checks after each that running again gives the uninterrupted run.
#
#   scripts/crash_campaign.sh N [--seed S] [--dir DIR] [--no-setup]
#
#   N            cases: kill -9, crashes, stops, failpoints in every phase, full disks, I/O errors, torn and flipped files, …
#   --seed S     draws other cases (default 1); the same seed draws the same ones
#   --dir DIR    where runs and result.json are written (default build/crash_campaign; emptied first if made by this)
#   --no-setup   takes build/release (or $OSLER_BIN) as it is
#
# Exit code 1 when a case ends otherwise than it must, or when a phase was never the place of a crash.
set -euo pipefail
cd "$(dirname "$0")/.."
repo=$PWD
source scripts/own_directory.sh

cases= seed=1 dir=build/crash_campaign setup=yes
while [ $# -gt 0 ]; do
  case $1 in
    --seed) seed=$2; shift 2 ;;
    --dir) dir=$2; shift 2 ;;
    --no-setup) setup=; shift ;;
    -h|--help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;;
    [0-9]*) cases=$1; shift ;;
    *) echo "crash_campaign: unknown option $1 (see --help)" >&2; exit 2 ;;
  esac
done
[ -n "$cases" ] || { echo "crash_campaign: how many cases? (see --help)" >&2; exit 2; }

[ -z "$setup" ] || scripts/setup.sh release osler
own_directory "$dir"
export OSLER_BIN=${OSLER_BIN:-$repo/build/release/osler} OMP_NUM_THREADS=1
exec "$repo/.venv/bin/python" "$repo/scripts/crash_campaign/campaign.py" --cases "$cases" --seed "$seed" --dir "$dir"
