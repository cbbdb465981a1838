#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Builds and runs the tests; gets missing packages first.
source "$(dirname "${BASH_SOURCE[0]}")/../.ci/common.sh"

usage() {
  cat <<'TEXT'
usage: tests/run.sh [--asan | --tsan | --compiler gcc|clang | --fuzz [RUNS]] [--keep-going]

  --asan          under AddressSanitizer and UndefinedBehaviorSanitizer
  --tsan          the threaded tests under ThreadSanitizer
  --compiler C    gcc (the default) or clang
  --fuzz RUNS     instead of the tests, RUNS inputs (100000) for every target in tests/fuzz
  --keep-going    test what can be built even if something does not compile
TEXT
}

preset=gcc
purposes=(build tests)
keep_going=()
runs=
while (($#)); do
  case $1 in
    --asan) preset=asan-ubsan ;;
    --tsan) preset=tsan ;;
    --compiler)
      case ${2-} in
        gcc) preset=gcc ;;
        clang) preset=clang purposes+=(clang) ;;
        *)
          echo "tests/run.sh: --compiler is '${2-}', expected gcc or clang" >&2
          exit 2
          ;;
      esac
      shift
      ;;
    --fuzz)
      preset=fuzz purposes+=(fuzz) runs=100000
      if [[ ${2-} =~ ^[0-9]+$ ]]; then
        runs=$2
        shift
      fi
      ;;
    --keep-going) keep_going=(-- -k 0) ;;
    --help | -h)
      usage
      exit 0
      ;;
    *)
      echo "tests/run.sh: unknown option '$1'" >&2
      usage >&2
      exit 2
      ;;
  esac
  shift
done

cd "$root"
build=build/$preset
"$root/.ci/dependencies.sh" "${purposes[@]}"
say "configuring $build"
quietly "$build/configure.log" cmake --preset "$preset"
say "building $build"
built=0
watched "$build/build.log" cmake --build --preset "$preset" "${keep_going[@]}" || built=$?
if ((built != 0 && ${#keep_going[@]} == 0)); then exit "$built"; fi

# New inputs that reach new code stay below build/, beside the inputs of crashes.
fuzz() {
  local source name failed=0
  for source in tests/fuzz/*_fuzz.cpp; do
    name=$(basename "$source" _fuzz.cpp)
    mkdir -p "$build/found/$name"
    say "fuzzing $name"
    if "$build/tests/fuzz/${name}_fuzz" -runs="$runs" -max_len=4096 -print_final_stats=1 \
      -artifact_prefix="$build/$name." "$build/found/$name" "tests/fuzz/corpus/$name" \
      >"$build/$name.log" 2>&1; then
      sed -n 's/^stat::\(.*execut.*\|.*exec_per_sec\): */  \1 /p' "$build/$name.log"
    else
      failed=1
      tail -n 60 "$build/$name.log" >&2
    fi
  done
  return "$failed"
}
if [[ $preset == fuzz ]]; then
  fuzz
  exit
fi

# ThreadSanitizer needs addresses where it expects them; some kernels spread them too far.
runner=()
if [[ $preset == tsan ]] && setarch -R true 2>/dev/null; then runner=(setarch -R); fi
say "testing"
tested=0
"${runner[@]}" ctest --preset "$preset" -j "$(nproc)" >"$build/test.log" 2>&1 || tested=$?
if ((tested != 0)); then
  grep -vE '^ +Start +[0-9]+: | Passed +[0-9.]+ sec$' "$build/test.log" >&2
else
  sed -n '/tests passed/,$p' "$build/test.log"
fi
exit $((built != 0 ? built : tested))
