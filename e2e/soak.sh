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
  for name in "${!cases[@]}"; do printf '  %-12s %s\n' "$name" "${about[$name]}"; done | sort
  cat <<'TXT'

LARDER_RUNS=N    runs of each case but load and faults, instead of the full length
LARDER_LOAD_*    sizes of load, as node-cache/tests/it/load.rs has them
LARDER_SEED=N    the first seed, instead of the time. A failure names its seed:
                 LARDER_SEED=17 LARDER_RUNS=1 e2e/soak.sh power
TXT
}

# Case -> the tests of it, as `cargo test` filters by name.
declare -A cases=(
  [kill]="f01_larder_killed"
  [configurator]="no_kill_leaves_anything"
  [faults]="whichever_operation_of_a_fill"
  [capacity]="within_its_capacity"
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
  [configurator]="kill -9 of the configurator at any moment, with and without a certs.d"
  [faults]="EIO, ENOSPC and short writes at every operation of a fill and an eviction"
  [capacity]="the disk's use sampled every 10 ms while eight pulls push others out"
  [power]="power cuts under the store, ext4 and xfs"
  [damage]="stored files that are damaged while the server runs"
  [media]="bytes that rot underneath the file system"
  [deleted]="the data folder is deleted under eight pulls"
  [disk]="a disk that is full, without inodes, read-only"
  [clock]="a clock that jumps a year, both ways"
  [hang]="a server that hangs for ten seconds, three releases of containerd"
  [load]="512 clients of 100 MB, slow and half-open clients in 128 MiB, malformed requests"
)
order=(kill configurator power faults damage media deleted disk capacity clock hang load)

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

# The load tests take the whole machine, one after the other.
load() {
  LARDER_LOAD_CLIENTS=${LARDER_LOAD_CLIENTS:-512} LARDER_LOAD_MIB=${LARDER_LOAD_MIB:-100} \
    LARDER_LOAD_SECONDS=${LARDER_LOAD_SECONDS:-60} LARDER_LOAD_REQUESTS=${LARDER_LOAD_REQUESTS:-200000} \
    LARDER_SOAK=1 LARDER_SOAK_REPORT=$report \
    cargo test --quiet --workspace --no-fail-fast --test load -- --nocapture --test-threads=1
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
  binaries=(--test it --test stories)
  [[ $name != faults ]] || binaries=(--lib)
  # One test at a time: each is to have the machine to itself.
  LARDER_SOAK=1 LARDER_SOAK_REPORT=$report \
    cargo test --quiet --workspace --no-fail-fast "${binaries[@]}" -- --nocapture --test-threads=1 "${cases[$name]}" \
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
