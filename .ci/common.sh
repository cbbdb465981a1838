# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# What the project's scripts share; they source it and work from any directory.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { echo "lamina: $*"; }

# quietly LOG COMMAND...: the command's output goes to the file LOG, and to the screen if it fails.
quietly() {
  local log=$1 status=0
  shift
  mkdir -p "$(dirname "$log")"
  "$@" >"$log" 2>&1 || status=$?
  if ((status != 0)); then
    grep -E -A 12 'FAILED|[Ee]rror' "$log" | tail -n 80 >&2 || tail -n 80 "$log" >&2
    say "failed: $* (all of its output: $log)" >&2
  fi
  return "$status"
}

# The same, but somebody who watches sees the command's own progress.
watched() {
  if [[ -t 1 ]]; then "${@:2}"; else quietly "$@"; fi
}

# The -march= for this machine's programs: x86-64-v3 where the processor has AVX2 and FMA.
host_arch() {
  if grep -qsw avx2 /proc/cpuinfo && grep -qsw fma /proc/cpuinfo; then echo x86-64-v3; fi
}
