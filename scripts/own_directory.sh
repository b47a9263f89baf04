# Sourced. own_directory DIR: makes DIR anew and empty, or ends the script when it holds what no run of it made.
own_directory() {
  local name
  name=$(basename "$0" .sh)
  if [ -e "$1" ] && [ -n "$(ls -A "$1")" ] && [ ! -e "$1/.osler-$name" ]; then
    echo "$name: $1 holds something else; choose another --dir" >&2
    exit 2
  fi
  rm -rf "$1"
  mkdir -p "$1"
  touch "$1/.osler-$name"
}
