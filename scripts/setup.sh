#!/usr/bin/env bash
# Installs what is missing and builds Osler: scripts/setup.sh [PRESET [TARGET…]]   (default: release, everything)
#   1. Debian packages (as root, or through sudo)
#   2. the Python environment, shared by all clones: ${XDG_CACHE_HOME:-~/.cache}/osler/venv-<digest>, .venv links to it
#   3. configure and build build/<preset>
# Idempotent; safe to run from two clones at once.
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:-release}
[ $# -eq 0 ] || shift
cache=${XDG_CACHE_HOME:-$HOME/.cache}/osler
mkdir -p "$cache"

# What each package is for is listed in docs/dependencies.md.
packages=(build-essential ninja-build cmake ccache mold git pkg-config python3-venv
  libopenmpi-dev openmpi-bin libprotobuf-dev protobuf-compiler libabsl-dev libgtest-dev libgmock-dev
  libyaml-cpp-dev libcli11-dev nlohmann-json3-dev libspdlog-dev libfmt-dev libpcre2-dev libutf8proc-dev
  libzstd-dev libssl-dev)
missing=()
for p in "${packages[@]}"; do
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "setup: installing ${#missing[@]} Debian packages: ${missing[*]}"
  sudo=""; [ "$(id -u)" = 0 ] || sudo=sudo
  command -v ${sudo:-true} >/dev/null || { echo "setup: run as root, or install sudo" >&2; exit 1; }
  $sudo apt-get -o Acquire::Retries=3 update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 install -y -qq --no-install-recommends \
    "${missing[@]}" </dev/null >"$cache/apt.log" 2>&1 || { tail -20 "$cache/apt.log" >&2; exit 1; }
fi

digest=$(cat requirements.txt requirements-test.txt | sha256sum | cut -c1-12)
venv=$cache/venv-$digest
(
  flock 9
  if [ ! -e "$venv/.complete" ]; then
    echo "setup: creating the Python environment $venv (a few minutes, 4.7 GB)"
    rm -rf "$venv"
    /usr/bin/python3 -m venv "$venv"
    "$venv/bin/python" -m pip install -q --no-compile --disable-pip-version-check -r requirements-test.txt
    # One import writes the bytecode of what is really used; compiling everything would take minutes.
    env -u PYTHONDONTWRITEBYTECODE "$venv/bin/python" -c "import pytest, safetensors.torch, tokenizers, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3ForCausalLM, Trainer"
    touch "$venv/.complete"
  fi
) 9>"$cache/venv.lock"
[ "$(readlink .venv 2>/dev/null || true)" = "$venv" ] || { rm -rf .venv; ln -s "$venv" .venv; }

export CCACHE_DIR=${CCACHE_DIR:-$cache/ccache} CCACHE_MAXSIZE=${CCACHE_MAXSIZE:-5G}
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
log=build/$preset/configure.log
mkdir -p "build/$preset"
if ! cmake --preset "$preset" >"$log" 2>&1; then
  cat "$log" >&2; exit 1
fi
sed -n 's/^-- \(Osler.*\)/\1/p' "$log"
cmake --build --preset "$preset" --parallel "$(nproc)" ${1+--target "$@"}
