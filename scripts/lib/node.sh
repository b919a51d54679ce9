# Sourced by scripts: builds the release binary, starts a node on free ports, reads them back from its start lines.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
kvorum=$target/release/kvorum
passed=0 failed=0

build_release() { (cd "$root" && cargo build --release --quiet); }

# node_start DATA FLAG…: starts a node; sets node_pid, resp_port, cluster_port (with --resp-cluster), http_port.
node_start() {
  local data=$1 lines
  shift
  lines=$(mktemp)
  "$kvorum" --data "$data" --resp 127.0.0.1:0 --http 127.0.0.1:0 "$@" >"$lines" &
  node_pid=$!
  # `tail --pid` ends when the node dies, so that a failed start is not waited for.
  timeout 60 grep -q -m1 '^stop with' <(exec tail -n +1 -f --pid="$node_pid" "$lines" 2>/dev/null) || { echo "the node did not start"; cat "$lines"; return 1; }
  resp_port=$(sed -nE 's/^resp [^ ]*:([0-9]+).*/\1/p' "$lines")
  cluster_port=$(sed -nE 's/^resp-cluster [^ ]*:([0-9]+).*/\1/p' "$lines")
  http_port=$(sed -nE 's/^http [^ ]*:([0-9]+).*/\1/p' "$lines")
  rm -f "$lines"
}

# node_stop [SIGNAL]: ends the node and waits for its end.
node_stop() {
  kill -s "${1:-INT}" "$node_pid" 2>/dev/null
  wait "$node_pid" 2>/dev/null
  node_pid=""
}

# check NAME COMMAND…: counts a check.
check() {
  local name=$1
  shift
  if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)) && echo "FAILED: $name"; fi
}

# finish: the summary that CI counts; the exit status.
finish() {
  echo "checks: $passed passed, $failed failed"
  [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
}
