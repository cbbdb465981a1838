#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Installs what is missing for the purposes named: dependencies.sh build|tests|clang|fuzz ...
# With apt as root or through sudo; elsewhere it says what is needed and goes on.
set -euo pipefail

declare -A needed=(
  [build]="g++ cmake ninja-build libeigen3-dev libcli11-dev nlohmann-json3-dev libutf8proc-dev"
  [tests]="doctest-dev libbenchmark-dev python3"
  [clang]="clang"
  [fuzz]="clang libclang-rt-14-dev"
)
# Where these cannot be had, programs multiply by Eigen and tests of the libraries are skipped.
declare -A optional=(
  [build]="libdnnl-dev libxtensor-dev"
  [tests]="libopenblas-dev libdnnl-dev libtorch-dev libxtensor-dev libdlpack-dev"
  [clang]="" [fuzz]=""
)

missing_of() {
  local package
  for package in "$@"; do
    if [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) != installed ]]; then
      echo "$package"
    fi
  done
}

list="" extra=""
for purpose in "$@"; do
  list+=" ${needed[$purpose]}"
  extra+=" ${optional[$purpose]}"
done
if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "lamina: not a Debian system; what Debian calls$list must be there (CMake >= 3.25)" >&2
  exit 0
fi
# The lists are split at their blanks on purpose.
# shellcheck disable=SC2086
mapfile -t missing < <(missing_of $list)
# shellcheck disable=SC2086
mapfile -t missing_extra < <(missing_of $extra)
all_missing="${missing[*]} ${missing_extra[*]}"
if ((${#missing[@]} + ${#missing_extra[@]} == 0)); then exit 0; fi

if [[ $(id -u) -eq 0 ]]; then
  as_root=()
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
  as_root=(sudo -n)
else
  echo "lamina: going on without these packages; to install them:" >&2
  echo "  sudo apt-get install $all_missing" >&2
  exit 0
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt_get() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" >>"$log" 2>&1; }
install() { apt_get install -y --no-install-recommends "$@"; }

echo "lamina: installing $all_missing"
apt_get update || true # an old list may still do
if ((${#missing[@]})) && ! install "${missing[@]}"; then
  tail -n 20 "$log" >&2
  echo "lamina: could not install ${missing[*]}" >&2
  exit 1
fi
for package in "${missing_extra[@]}"; do
  install "$package" || echo "lamina: going on without $package" >&2
done
