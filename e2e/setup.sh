#!/usr/bin/env bash
# Makes a Debian 12 machine ready for the end-to-end tests; see usage below.
set -Eeuo pipefail
shopt -s inherit_errexit nullglob

usage() {
  cat <<'TXT'
Usage: e2e/setup.sh [TOOL...]

Installs what the end-to-end tests run: Debian packages that are missing, and
programs built from Go modules, one folder of e2e/tools each. What is already
there is left alone, so a second run takes a second. Without TOOL: all but kwok.

  cache    ${LARDER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/larder}/tools/TOOL-HASH/
           HASH covers go.mod, go.sum, the sources, the flags and the Go version.
           Delete it when you like: it is built anew.
  programs target/tools/TOOL/PROGRAM, links into that cache

Needs Go (the version in the go.mod files) and, to install packages, root.
Installing starts no service, now or at the next boot.

To add a tool: a folder e2e/tools/NAME with go.mod, go.sum and tools.go (blank
imports of the commands), and one line in `tools` at the end of this script.
TXT
}

# What the packages are for:
#   containerd runc  the oldest containerd that is supported (1.6), and the runc of all of them
#   docker-registry  the upstream registry of most stories
#   containernetworking-plugins  the pod networks of the cluster stories
#   nftables         kube-proxy's backend in them
#   skopeo           a client with an HTTP stack of its own; also copies images
#   iproute2         network namespaces of the cluster stories
#   openssl          certificates of the TLS stories
#   ca-certificates  the trust store that those are put beside
#   prometheus       scrapes; promtool tests the alerts
#   jq zstd          images and answers, by hand and in scripts
#   xfsprogs         xfs, and the tool that cuts the power of a file system
#   libfaketime      the clock that jumps
#   ShellCheck       for `make lint`
PACKAGES=(containerd runc containernetworking-plugins nftables docker-registry skopeo iproute2 openssl ca-certificates prometheus jq zstd xfsprogs libfaketime shellcheck)

POLICY=/usr/sbin/policy-rc.d
POLICY_MARK="# put here by Larder's e2e/setup.sh while packages are installed"

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cache=${LARDER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/larder}/tools
links=$checkout/target/tools
log=    # output of the running step; shown only if it fails
scratch=
child=  # of the running step

say() { printf '%s\n' "$*"; }
die() { printf 'e2e/setup.sh: %s\n' "$*" >&2; exit 1; }

# Runs at every exit, also when interrupted in the middle of a step.
cleanup() {
  if [[ -n $child ]]; then
    kill "$child" 2>/dev/null || true
    wait "$child" || true
  fi
  allow_services
  [[ -z $scratch ]] || rm -rf "$scratch"
}

# step TEXT COMMAND...: says what it does, how long it took, and every 30 s that
# it is still at it. The command's own output is shown only when it fails.
step() {
  local text=$1 started=$SECONDS next=30
  shift
  say "==> $text"
  "$@" >"$log" 2>&1 9>&- &
  child=$!
  while kill -0 "$child" 2>/dev/null; do
    sleep 0.2
    if ((SECONDS - started >= next)); then
      say "    still at it after $next s"
      next=$((next + 30))
    fi
  done
  if ! wait "$child"; then
    child=
    tail -n 40 "$log" >&2
    die "failed: $text"
  fi
  child=
  say "    done in $((SECONDS - started)) s"
}

# ---- Debian packages ----

# Installing containerd and docker-registry would start both, and the second
# takes port 5000. policy-rc.d is Debian's way to forbid that, and has one fixed
# place. One that forbids it already (container images have it) is left alone.
forbid_services() {
  if [[ -x $POLICY ]]; then
    local answer=0
    "$POLICY" containerd start >/dev/null 2>&1 || answer=$?
    ((answer != 101)) || return 0
    mv "$POLICY" "$POLICY.larder-original"
  fi
  printf '#!/bin/sh\n%s\nexit 101\n' "$POLICY_MARK" >"$POLICY"
  chmod 0755 "$POLICY"
}

# Also undoes what a run left that was killed in the middle.
allow_services() {
  [[ -f $POLICY ]] && grep -qxF "$POLICY_MARK" "$POLICY" && rm -f "$POLICY"
  [[ -e $POLICY.larder-original ]] && mv "$POLICY.larder-original" "$POLICY"
  return 0
}

# Deaf to signals: half-installed packages are worse than a late stop, and
# services must stay forbidden until it ends.
apt() {
  trap '' TERM
  exec env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 "$@"
}

install_packages() {
  local package missing=()
  for package in "${PACKAGES[@]}"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  if ((${#missing[@]} == 0)); then
    say "==> Debian packages: all there"
    return
  fi
  ((EUID == 0)) || die "not root, and these packages are missing: ${missing[*]}"
  step "Debian packages: refreshing the lists" apt update
  forbid_services
  # Without recommends: criu, git, ... are of no use here. No removals: Docker's
  # own packages conflict with Debian's containerd, and somebody may need them.
  step "Debian packages: installing ${missing[*]}" \
    apt install --no-install-recommends --no-remove "${missing[@]}"
  # They are enabled all the same and would start at the next boot.
  if command -v systemctl >/dev/null; then
    for package in "${missing[@]}"; do
      if [[ -e /lib/systemd/system/$package.service ]]; then
        systemctl disable "$package" >/dev/null 2>&1 || say "    could not disable $package: it will start at the next boot"
      fi
    done
  fi
  allow_services
}

# ---- programs built from Go modules ----

# link TOOL PROGRAM-FILE...: under target/, where the tests look, whatever the hash is.
link() {
  local tool=$1 file
  shift
  mkdir -p "$links/$tool"
  for file in "$@"; do
    ln -sfn "$file" "$links/$tool/${file##*/}"
  done
}

# build TOOL TAGS LDFLAGS: into the cache, unless it is there.
# VERSION in LDFLAGS stands for the first version in go.mod, its only place.
build() {
  local tool=$1 tags=$2 ldflags=$3 source=$checkout/e2e/tools/$1
  local version packages=() hash target files
  version=$(awk '$1 == "require" && $3 ~ /^v/ { print substr($3, 2); exit }' "$source/go.mod")
  ldflags="-s -w${ldflags:+ ${ldflags//VERSION/$version}}"
  # The commands that tools.go imports; a folder without one is a command itself.
  if [[ -f $source/tools.go ]]; then
    mapfile -t packages < <(sed -nE 's/^(import|\t) ?_ "(.*)"$/\2/p' "$source/tools.go")
  else
    packages=(.)
  fi
  ((${#packages[@]} > 0)) || die "e2e/tools/$tool/tools.go imports no command"

  files=("$source/go.mod" "$source/go.sum" "$source"/*.go)
  hash=$(
    {
      go env GOVERSION GOOS GOARCH GOAMD64
      say "$tags" "$ldflags" "${packages[@]}"
      declare -f compile
      cd "$source" && sha256sum "${files[@]##*/}"
    } | sha256sum | cut -c 1-16
  )
  target=$cache/$tool-$hash
  if [[ -d $target ]]; then
    say "==> $tool${version:+ $version}: already built"
  else
    step "$tool${version:+ $version}: building (the first time its modules are downloaded too)" \
      compile "$source" "$tags" "$ldflags" "$scratch/$tool" "${packages[@]}"
    mv -T "$scratch/$tool" "$target"
  fi
  link "$tool" "$target"/*
}

compile() {
  local source=$1 tags=$2 ldflags=$3 output=$4
  shift 4
  cd "$source"
  # The folder lies in another project's checkout: neither its revision nor a go.work may get in.
  exec env CGO_ENABLED=0 GOWORK=off go build -mod=readonly -buildvcs=false -trimpath -tags "$tags" -ldflags "$ldflags" -o "$output/" "$@"
}

# Debian's containerd is "built" by linking it.
link_debian_containerd() {
  local version
  version=$(/usr/bin/containerd --version | awk '{ print $3 }')
  [[ $version == 1.6.* ]] || die "Debian's containerd is $version, the tests want 1.6"
  link containerd-1.6 /usr/bin/containerd /usr/bin/containerd-shim-runc-v2 /usr/bin/ctr
  say "==> containerd-1.6: Debian's $version"
}

# The runner of the fuzz targets, in cargo's own folder of programs.
CARGO_FUZZ=0.13.2

install_cargo_fuzz() {
  if [[ $(cargo fuzz --version 2>/dev/null) == "cargo-fuzz $CARGO_FUZZ" ]]; then
    say "==> cargo-fuzz $CARGO_FUZZ: already there"
  else
    step "cargo-fuzz $CARGO_FUZZ: building" cargo install --locked --force --version "$CARGO_FUZZ" cargo-fuzz
  fi
}

# tool NAME [TAGS [LDFLAGS]]: one line of `tools`; skipped if others were asked for.
wanted=()
tool() {
  known+=("$1")
  ((${#wanted[@]} == 0)) || [[ " ${wanted[*]} " == *" $1 "* ]] || return 0
  case $1 in
    containerd-1.6) link_debian_containerd ;;
    cargo-fuzz) install_cargo_fuzz ;;
    *) build "$1" "${2-}" "${3-}" ;;
  esac
}

tools() {
  # The drivers left out need C libraries or are of no use here. The version goes
  # into the User-Agent, by which Larder knows containerd.
  local no_drivers="no_btrfs no_zfs no_devmapper static_build"
  tool containerd-1.6
  tool containerd-2.4 "$no_drivers" "-X github.com/containerd/containerd/v2/version.Version=VERSION"
  tool cri
  tool containerd-1.7 "$no_drivers" "-X github.com/containerd/containerd/version.Version=VERSION"
  tool distribution "" "-X github.com/distribution/distribution/v3/version.version=VERSION"
  tool crane "" "-X github.com/google/go-containerregistry/cmd/crane/cmd.Version=VERSION"
  tool conformance
  tool helm "" "-X helm.sh/helm/v4/internal/version.version=vVERSION"
  tool cargo-fuzz
  tool etcd
  # Without a version the API server says v0.0.0-master, and clients refuse to compare.
  local build_info="k8s.io/component-base/version"
  tool kubernetes "" "-X $build_info.gitVersion=vVERSION -X $build_info.gitMajor=1 -X $build_info.gitMinor=36"
  # For `make scale` alone: only if asked for.
  ((${#wanted[@]} > 0)) || return 0
  tool kwok
}

main() {
  local argument name known=() started=$SECONDS
  for argument in "$@"; do
    case $argument in
      -h | --help) usage; exit 0 ;;
      -*) die "unknown option $argument (see --help)" ;;
      *) wanted+=("$argument") ;;
    esac
  done
  # An unknown name must not pass as "nothing to do".
  for name in "${wanted[@]}"; do
    [[ $name == containerd-1.6 || $name == cargo-fuzz || -f $checkout/e2e/tools/$name/go.mod ]] || die "no tool $name (see e2e/tools)"
  done
  command -v go >/dev/null || die "Go is missing; its version is in e2e/tools/*/go.mod"

  mkdir -p "$cache" "$links"
  # Two runs at once would build everything twice and quarrel over policy-rc.d.
  exec 9>"$cache/.lock"
  flock -n 9 || { say "==> waiting for another run of this script"; flock 9; }
  rm -rf "$cache"/.build-*
  # Inside the cache: a rename within one file system is what makes a build appear whole.
  scratch=$(mktemp -d "$cache/.build-XXXXXX")
  log=$scratch/log
  trap cleanup EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM

  install_packages
  tools
  for name in "${wanted[@]}"; do
    [[ " ${known[*]} " == *" $name "* ]] || die "tool $name has no line in \`tools\`"
  done
  say "==> ready after $((SECONDS - started)) s"
}

main "$@"
