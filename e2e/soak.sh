#!/usr/bin/env bash
# The long runs of the crash, power-loss, damage and load tests; see usage below.
set -Eeuo pipefail
shopt -s inherit_errexit

usage() {
  cat <<'TXT'
Usage: e2e/soak.sh [CASE...]

Runs the tests that `make test` runs a short share of at their full length, and
prints one table at the end. Root; about an hour for all of them. Exit status 1
if any run failed.

Cases:
TXT
  local name
  for name in "${!cases[@]}"; do printf '  %-8s %s\n' "$name" "${about[$name]}"; done | sort
  cat <<'TXT'

LARDER_RUNS=N    runs of each case but load, instead of the full length
LARDER_LOAD_*    sizes of load, as node-cache/tests/it/load.rs has them
LARDER_SEED=N    the first seed, instead of the time. A failure names its seed:
                 LARDER_SEED=17 LARDER_RUNS=1 e2e/soak.sh power
TXT
}

# Case -> the tests of it, as `cargo test` filters by name.
declare -A cases=(
  [kill]="kill::"
  [power]="power::"
  [damage]="damage::"
  [media]="media::"
  [deleted]="deleted_under"
  [disk]="ground::f0"
  [clock]="clock::"
  [hang]="hang::"
  [load]="load::"
)
declare -A about=(
  [kill]="kill -9 in the middle of eight pulls, three releases of containerd"
  [power]="power cuts under the store, ext4 and xfs"
  [damage]="stored files that are damaged while the server runs"
  [media]="bytes that rot underneath the file system"
  [deleted]="the data folder is deleted under eight pulls"
  [disk]="a disk that is full, without inodes, read-only"
  [clock]="a clock that jumps a year, both ways"
  [hang]="a server that hangs for ten seconds, three releases of containerd"
  [load]="512 clients of 100 MB, slow and half-open clients in 128 MiB, malformed requests"
)
order=(kill power damage media deleted disk clock hang load)

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
report=$(mktemp)
trap 'rm -f "$report"' EXIT

wanted=()
for argument in "$@"; do
  case $argument in
    -h | --help) usage; exit 0 ;;
    *)
      [[ -v cases[$argument] ]] || { printf 'no case %s (see --help)\n' "$argument" >&2; exit 2; }
      wanted+=("$argument")
      ;;
  esac
done
((${#wanted[@]} > 0)) || wanted=("${order[@]}")

# The load tests take the whole machine, each once: one run is one test.
load() {
  local output began=$SECONDS failed=0
  output=$(mktemp)
  LARDER_LOAD_CLIENTS=${LARDER_LOAD_CLIENTS:-512} LARDER_LOAD_MIB=${LARDER_LOAD_MIB:-100} \
    LARDER_LOAD_SECONDS=${LARDER_LOAD_SECONDS:-60} \
    cargo test --quiet --workspace --no-fail-fast --test load -- --nocapture --test-threads=1 2>&1 \
    | tee "$output" || failed=1
  awk -v seconds=$((SECONDS - began)) '
    /^test result:/ { print "load\t" $4 + $6 "\t" $6 "\t" seconds }' "$output" >>"$report"
  rm -f "$output"
  return "$failed"
}

cd "$checkout"
started=$SECONDS
broken=()
for name in "${wanted[@]}"; do
  printf '==> %s: %s\n' "$name" "${about[$name]}"
  if [[ $name == load ]]; then
    load || broken+=("$name")
    continue
  fi
  # One test at a time: each is to have the machine to itself.
  LARDER_SOAK=1 LARDER_SOAK_REPORT=$report \
    cargo test --quiet --workspace --no-fail-fast --test it --test stories -- --nocapture --test-threads=1 "${cases[$name]}" \
    || broken+=("$name")
done

printf '\n%-24s %8s %8s %8s\n' case runs failures seconds
awk -F '\t' '
  { printf "%-24s %8d %8d %8d\n", $1, $2, $3, $4; runs += $2; failures += $3 }
  END { printf "%-24s %8d %8d", "all", runs, failures }' "$report"
printf ' %8d\n' $((SECONDS - started))
# A test that could not even begin has no line in the table.
((${#broken[@]} == 0)) || { printf 'failed: %s\n' "${broken[*]}"; exit 1; }
[[ -s $report ]] || { echo 'failed: nothing ran'; exit 1; }
