#!/usr/bin/env bash
# Checks a portfolio-mcp binary with other people's clients: the TypeScript and Python SDKs and the MCP Inspector over
# stdio, HTTP+SSE (also behind a proxy with a path prefix) and Streamable HTTP, and the MCP conformance suite.
#
#   scripts/clients/run.sh target/release/portfolio-mcp
#
# It also adds each setup of docs/clients.md to Claude Code and Codex, sends calls as n8n does, and serves the server with
# --public-path behind a proxy.
#
# It needs Node.js with npm, and Python 3.10 or newer with pip. It installs the clients into target/clients, at the versions
# that package-lock.json and requirements.txt pin, and reuses them in later runs. It starts the servers under test on free
# loopback ports, with stores in a temporary folder.
#
# It prints one line for each check, and then `N passed, N failed`. The first failed check of a client ends that client's
# checks. Claude Code and Codex are skipped, with the reason, if npm cannot install them. The exit code is 0 if all checks passed, 1 if one failed, and 2 if they could not be run.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=$root/target/clients
files=$(mktemp -d "${TMPDIR:-/tmp}/portfolio-clients.XXXXXX")
server_pid=
proxy_pid=

give_up() {
  printf 'clients: %s\n' "$*" >&2
  exit 2
}

within() {
  if command -v timeout >/dev/null 2>&1; then
    timeout -k 5 "$@"
  else
    perl -e 'alarm shift; exec @ARGV or exit 127' "$@"
  fi
}

# shellcheck disable=SC2317 # the trap calls it
clean_up() {
  if [ -n "$server_pid" ]; then kill -9 "$server_pid" 2>/dev/null || true; fi
  stop_proxy
  rm -rf "$files"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# --- What the checks need ---------------------------------------------------------------------------------------------

install_node_packages() {
  local lock=$here/package-lock.json
  if ! cmp -s "$lock" "$cache/node/installed.json"; then
    command -v npm >/dev/null 2>&1 || give_up "npm is missing; install Node.js, which includes it"
    rm -rf "$cache/node"
    mkdir -p "$cache/node"
    cp "$here/package.json" "$lock" "$cache/node"
    # No package needs its install script.
    (cd "$cache/node" && within 600 npm ci --ignore-scripts --no-audit --no-fund --loglevel=error </dev/null >&2) ||
      give_up "npm could not install the packages of scripts/clients/package-lock.json"
    cp "$lock" "$cache/node/installed.json"
  fi
  modules=$cache/node/node_modules
  # The Inspector and the conformance suite need Node 22; one of the packages contains it for most platforms.
  node=$modules/.bin/node
  [ -x "$node" ] || node=$(command -v node) || give_up "Node.js is missing"
  "$node" -e 'process.exit(process.versions.node.split(".")[0] < 22 ? 1 : 0)' || give_up "$node is older than Node 22"
  # Node looks for modules next to the program that imports them.
  cp "$here"/*.mjs "$cache/node"
}

# Claude Code and Codex, if npm can install them.
install_agents() {
  local lock=$here/agents/package-lock.json into=$cache/agents
  if ! cmp -s "$lock" "$into/installed.json"; then
    rm -rf "$into"
    mkdir -p "$into"
    cp "$here/agents/package.json" "$lock" "$into"
    # Their install scripts only copy the programs to other places.
    if ! (cd "$into" && within 600 npm ci --ignore-scripts --no-audit --no-fund --loglevel=error </dev/null >&2); then
      report "skipped claude-code and codex: npm could not install the packages of scripts/clients/agents/package-lock.json"
      return
    fi
    cp "$lock" "$into/installed.json"
  fi
  agents=$into/node_modules
}

install_python_packages() {
  local into=$cache/python pip
  if ! cmp -s "$here/requirements.txt" "$into/installed.txt"; then
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || give_up "python3 is missing or older than 3.10"
    rm -rf "$into"
    mkdir -p "$into"
    # On Debian, `venv` needs a package that may be missing; then a plain folder is enough.
    if python3 -m venv "$into/venv" >/dev/null 2>&1; then
      pip=("$into/venv/bin/python" -m pip install)
    else
      rm -rf "$into/venv"
      pip=(python3 -m pip install --target "$into/packages")
    fi
    within 600 "${pip[@]}" --quiet --disable-pip-version-check -r "$here/requirements.txt" </dev/null >&2 ||
      give_up "pip could not install the packages of scripts/clients/requirements.txt"
    cp "$here/requirements.txt" "$into/installed.txt"
  fi
  python=$into/venv/bin/python
  if [ ! -x "$python" ]; then
    python=python3
    export PYTHONPATH=$into/packages
  fi
}

# --- The server under test --------------------------------------------------------------------------------------------

# Makes a new store with the example content and with documents that break every rule of their kind.
fill_store() {
  local folder
  rm -f "$files"/store.db*
  for folder in examples/content tests/fixtures/broken; do
    within 60 "$server" import "$root/$folder" --store "$store" >"$files/log" 2>&1 </dev/null ||
      { cat "$files/log" >&2 && give_up "\`portfolio-mcp import $folder\` failed"; }
  done
}

# Starts the server, with more options.
start_http() {
  local _
  "$server" http --listen 127.0.0.1:0 --store "$store" "$@" >"$files/http.out" 2>"$files/http.log" </dev/null &
  server_pid=$!
  for _ in $(seq 100); do
    url=$(grep -oE 'http://127\.0\.0\.1:[0-9]+' "$files/http.log" | head -n 1) && return 0
    kill -0 "$server_pid" 2>/dev/null || break
    sleep 0.1
  done
  cat "$files/http.log" >&2
  give_up "\`portfolio-mcp http\` did not print its address on stderr within ten seconds"
}

# Serves the server under a path of its own.
start_proxy() {
  local _
  "$node" "$cache/node/prefix-proxy.mjs" "$url" /cms >"$files/proxy.out" 2>"$files/proxy.log" </dev/null &
  proxy_pid=$!
  for _ in $(seq 100); do
    prefixed=$(grep -m 1 '^http' "$files/proxy.out") && return 0
    sleep 0.1
  done
  cat "$files/proxy.log" >&2
  give_up "prefix-proxy.mjs did not print its address within ten seconds"
}

stop_proxy() {
  if [ -n "$proxy_pid" ]; then kill "$proxy_pid" 2>/dev/null || true; fi
  proxy_pid=
}

stop_http() {
  local status=0 _
  kill -TERM "$server_pid" 2>/dev/null || true
  for _ in $(seq 50); do
    kill -0 "$server_pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -9 "$server_pid" 2>/dev/null || true # it did not end within five seconds of SIGTERM
  wait "$server_pid" 2>/dev/null || status=$?
  server_pid=
  if [ "$status" -eq 0 ] && [ ! -s "$files/http.out" ]; then
    report "ok server: exits with 0 on SIGTERM, with nothing on stdout"
  else
    report "FAILED server: exited with $status on SIGTERM; the end of its stdout and stderr:"
    tail -n 20 "$files/http.out" "$files/http.log"
  fi
}

# --- The checks -------------------------------------------------------------------------------------------------------

report() {
  printf '%s\n' "$1" | tee -a "$files/report"
}

# Runs a program that prints one line for each check, `ok ...` or `FAILED ...`, and stops at the first that fails.
run_checks() {
  local status=0 text
  within 180 "$@" >"$files/checks" 2>"$files/log" </dev/null || status=$?
  text=$(cat "$files/checks")
  if [ "$status" -ne 0 ]; then
    [[ $text == *"FAILED "* ]] || text="$text
FAILED ${2##*/}: exited with $status"
    text="$text
$(tail -n 20 "$files/log")"
  fi
  report "$text"
}

check_sdk() {
  fill_store
  if [ "$1" = stdio ]; then
    run_checks "${@:2}" stdio "$server" stdio --store "$store"
  else
    start_http
    case $1 in
      sse) run_checks "${@:2}" sse "$url/sse" ;;
      http) run_checks "${@:2}" http "$url/mcp" ;;
      prefix)
        start_proxy
        run_checks "${@:2}" sse "$prefixed/sse"
        stop_proxy
        ;;
    esac
    stop_http
  fi
}

# Checks an agent with the setups that send a token, or with the others: check_agent NAME SCRIPT [TOKEN].
check_agent() {
  local home
  home=$(mktemp -d "$files/home.XXXXXX")
  run_checks "$node" "$cache/node/$1.mjs" "$agents/$2" "$home" "$root" "$server" "$store" "$url" "${@:3}"
}

check_agents() {
  local token=agents-0123456789abcdef
  [ -n "$agents" ] || return 0
  fill_store
  start_http
  check_agent claude-code @anthropic-ai/claude-code/cli-wrapper.cjs
  check_agent codex @openai/codex/bin/codex.js
  stop_http
  (umask 077 && printf 'agents:write:%s\n' "$token" >"$files/tokens")
  start_http --token-file "$files/tokens"
  check_agent claude-code @anthropic-ai/claude-code/cli-wrapper.cjs "$token"
  check_agent codex @openai/codex/bin/codex.js "$token"
  stop_http
}

check_public_path() {
  fill_store
  start_http --public-path /portfolio
  run_checks "$node" "$cache/node/public-path.mjs" "$url"
  stop_http
}

conformance() {
  within 300 "$node" "$modules/.bin/conformance" server --url "$url/mcp" --output-dir "$files/conformance" "$@" \
    >"$files/log" 2>&1 </dev/null
}

check_conformance() {
  local revision baseline status
  for revision in 2025-11-25 2026-07-28; do
    baseline=tests/conformance/$revision.yml
    status=0
    conformance --requirements "$revision" --expected-failures "$root/$baseline" || status=$?
    # The suite ignores listed checks that it did not run, so the failures it reports are compared with the list.
    diff <(sed -n 's/^  - \([^ ]*\).*/listed, but did not fail: \1/p' "$root/$baseline" | sort) \
      <(sed -n 's/^  ~ /listed, but did not fail: /p' "$files/log" | sort) >"$files/diff" || status=1
    if [ "$status" -eq 0 ]; then
      report "ok conformance $revision: the failed checks are those that $baseline lists"
    else
      report "FAILED conformance $revision: the failed checks are not those that $baseline lists
$(grep -A 40 'Unexpected failures (' "$files/log" || tail -n 5 "$files/log")
$(sed -n 's/^< //p' "$files/diff")"
    fi
  done
  # This scenario is not among the requirements of a revision, but it applies to every server.
  if conformance --scenario http-header-validation --spec-version 2026-07-28; then
    report "ok conformance http-header-validation: all checks pass"
  else
    report "FAILED conformance http-header-validation
$(grep -A 1 FAILURE "$files/log" || tail -n 20 "$files/log")"
  fi
}

if [ $# -ne 1 ] || [ ! -x "$1" ]; then
  give_up "usage: scripts/clients/run.sh PATH-TO-portfolio-mcp"
fi
server=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
store=sqlite:$files/store.db

install_node_packages
install_python_packages
agents=
install_agents

for transport in stdio sse http prefix; do
  check_sdk "$transport" "$node" "$cache/node/typescript-sdk.mjs"
  check_sdk "$transport" "$python" "$here/python-sdk.py"
done

check_agents
check_public_path

fill_store
start_http
run_checks "$node" "$cache/node/n8n.mjs" http "$url/mcp"
run_checks "$node" "$cache/node/n8n.mjs" sse "$url/sse"
run_checks "$node" "$cache/node/inspector.mjs" "$modules/.bin/mcp-inspector" "$url" "$server" stdio --store "$store"
check_conformance
stop_http

passed=$(grep -c '^ok ' "$files/report" || true)
failed=$(grep -c '^FAILED ' "$files/report" || true)
skipped=$(grep -c '^skipped ' "$files/report" || true)
printf '\n%s passed, %s failed' "$passed" "$failed"
if [ "$skipped" -gt 0 ]; then printf ', Claude Code and Codex skipped'; fi
printf '\n'
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
