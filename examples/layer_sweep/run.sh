#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Builds the layer sweep for this machine and runs it with the arguments given; gets missing
# packages first. examples/layer_sweep/run.sh --help lists the arguments.
source "$(dirname "${BASH_SOURCE[0]}")/../../.ci/common.sh"

build=$root/build/layer_sweep
program=$build/examples/layer_sweep
"$root/.ci/dependencies.sh" build
if [[ ! -x $program ]]; then say "building the program, once"; fi
quietly "$build/configure.log" cmake -S "$root" -B "$build" -G Ninja \
  -DCMAKE_BUILD_TYPE=Release -DLAMINA_ARCH="$(host_arch)" -DLAMINA_GEMM=auto \
  -DLAMINA_BUILD_TESTS=OFF -DLAMINA_BUILD_BENCHMARKS=OFF
watched "$build/build.log" cmake --build "$build" --target layer_sweep
exec "$program" "$@"
