#!/usr/bin/env bash
# Installs what is missing, builds everything and runs the tests; the last line is the summary.
#
#   scripts/test.sh [--fast | --asan | --tsan] [-R REGEX]
#
#   (nothing)   all tests: the fast ones, then the slow ones
#   --fast      only tests labelled fast
#   --asan      the C++ tests of base, configs, data and checkpoint, fuzzers included, under address and UB sanitizers
#   --tsan      the C++ tests of base, data and parallel under the thread sanitizer
#   -R REGEX    only tests whose name matches
set -euo pipefail
cd "$(dirname "$0")/.."

preset=release labels=(fast slow) folders= regex=.
while [ $# -gt 0 ]; do
  case $1 in
    --fast) labels=(fast); shift ;;
    --asan) preset=asan folders="base configs data checkpoint"; shift ;;
    --tsan) preset=tsan folders="base data parallel"; shift ;;
    -R) regex=$2; shift 2 ;;
    -h|--help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "test: unknown option $1 (see --help)" >&2; exit 2 ;;
  esac
done
# A skipped check is a check not made: each is listed at the end, and more than this many fail the run.
# Without ../shared/samples every test on real files skips, so that many more are allowed then.
max_skips=${OSLER_MAX_SKIPS:-$([ -d ../shared/samples ] && echo 7 || echo 62)}

targets=()
for folder in $folders; do
  for file in $(cd tests && find "$folder" -name '*_test.cc' | sort); do
    targets+=("${folder}_$(basename "$file" .cc)")
  done
done
if [ -n "$folders" ]; then
  [ "$regex" != . ] || regex="^(($(echo $folders | tr ' ' '|'))/[a-z0-9_]*_test|fuzz/[a-z0-9_]*)\$"
  for file in tests/fuzz/*_fuzz.cc; do targets+=("$(basename "$file" .cc)"); done
fi
scripts/setup.sh "$preset" ${targets[@]+"${targets[@]}"}

failed=0 also_failed=
scripts/format.sh --check || also_failed=format

logs=build/$preset/test_logs
rm -rf "$logs" && mkdir -p "$logs"
cores=$(nproc); [ "$cores" -le 16 ] || cores=16
for label in "${labels[@]}"; do
  # Many fast tests wait, for a rank that is to be given up for example; the slow ones compute.
  jobs=$cores; [ "$label" != fast ] || jobs=$((cores + (cores + 1) / 2))
  echo "test: $label tests, $jobs at a time"
  ctest --test-dir "build/$preset" -L "^$label\$" -R "$regex" -j "$jobs" --output-on-failure --no-tests=ignore \
    --output-junit "$PWD/$logs/$label.xml" </dev/null || failed=1
  cp "build/$preset/Testing/Temporary/LastTest.log" "$logs/$label.log" 2>/dev/null || true
done

python3 scripts/test_summary.py --max-skips "$max_skips" ${also_failed:+--also-failed "$also_failed"} "$logs" || failed=1
exit $failed
