#!/usr/bin/env bash
# Formats the C++ files as .clang-format says: scripts/format.sh [--check]
# clang-format 14 (Debian 12's) is the one that counts: other versions break lines elsewhere. OSLER_CLANG_FORMAT
# names another binary. With --check nothing is written, and without clang-format 14 the check is skipped aloud.
set -euo pipefail
cd "$(dirname "$0")/.."
tool=${OSLER_CLANG_FORMAT:-$(command -v clang-format-14 || command -v clang-format || true)}
version=$([ -z "$tool" ] || "$tool" --version | sed -n 's/.*version \([0-9]*\).*/\1/p')
if [ "$version" != 14 ]; then
  echo "format: skipped, clang-format 14 is not installed (found: ${version:-none}; apt-get install clang-format-14)"
  [ "${1:-}" = --check ] && exit 0 || exit 1
fi
mapfile -t files < <(git ls-files -c -o --exclude-standard -- '*.h' '*.cc' '*.cu' '*.cuh')
[ ${#files[@]} -gt 0 ] || exit 0
if [ "${1:-}" = --check ]; then
  "$tool" --dry-run -Werror "${files[@]}" 2>&1 | sed -n 's/:[0-9]*:[0-9]*: error: code should be.*//p' | sort | uniq -c \
    | sed 's/^ *\([0-9]*\) \(.*\)/format: \2 (\1 places)/' >&2 && [ "${PIPESTATUS[0]}" = 0 ] \
    || { echo "format: run scripts/format.sh" >&2; exit 1; }
  echo "format: ok (${#files[@]} files)"
else
  "$tool" -i "${files[@]}"
fi
