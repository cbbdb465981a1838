#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Builds the program for this machine and runs it with the arguments given; without --model it runs
# SmolLM2-135M-Instruct, which it fetches first.
#   examples/generate/run.sh --prompt "What is the capital of France?"
source "$(dirname "${BASH_SOURCE[0]}")/../../.ci/common.sh"

build=$root/build/generate
program=$build/examples/generate
"$root/.ci/dependencies.sh" build
if [[ ! -x $program ]]; then say "building the program, once" >&2; fi
quietly "$build/configure.log" cmake -S "$root" -B "$build" -G Ninja \
  -DCMAKE_BUILD_TYPE=Release -DLAMINA_ARCH="$(host_arch)" \
  -DLAMINA_BUILD_TESTS=OFF -DLAMINA_BUILD_BENCHMARKS=OFF
quietly "$build/build.log" cmake --build "$build" --target generate
model=()
case " $* " in
  *" --model"* | *" --help "* | *" -h "*) ;;
  *) model=(--model "$("$root/examples/decoder/fetch_smollm2.sh")") ;;
esac
exec "$program" "${model[@]}" "$@"
