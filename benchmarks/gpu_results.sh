#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Everything that lamina says of a GPU, from one: tests, the table with PyTorch and Liger, ncu's
# figures of the logits kernel, and the tests once more under compute-sanitizer.
#
#   gpu_results.sh BUILD_DIR OUT_DIR
#
# BUILD_DIR is a build with LAMINA_BUILD_CUDA and LAMINA_BUILD_BENCHMARKS on. What is not at hand
# (compute-sanitizer, ncu, torch) is said to be missing and left out. Ends with 1 if a test failed,
# with 77 where there is no GPU.
set -u
build=$(cd "$1" && pwd)
mkdir -p "$2"
out=$(cd "$2" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
failed=0

if ! nvidia-smi -L >/dev/null 2>&1; then
  echo "skipped: no GPU"
  exit 77
fi
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | tee "$out/gpu.txt"

: >"$out/tests.txt"
for program in "$build"/tests/*_cuda_test "$build"/examples/cuda_step; do
  name=$(basename "$program")
  echo "== $name" >>"$out/tests.txt"
  timeout 120 "$program" >"$out/last.txt" 2>&1
  status=$?
  tail -n 4 "$out/last.txt" >>"$out/tests.txt"
  echo "exit status $status" >>"$out/tests.txt"
  if [ $status -ne 0 ]; then
    failed=1
    cat "$out/last.txt"
  fi
done
rm -f "$out/last.txt"
grep -c "exit status 0" "$out/tests.txt" | sed 's/$/ programs passed/'

if python3 -c 'import torch' 2>/dev/null; then
  PYTHONUNBUFFERED=1 python3 "$here/compare_gpu.py" "$build" --out "$out" 2>&1 | tee "$out/table.md"
else
  echo "torch is missing"
fi
if command -v ncu >/dev/null; then
  timeout 90 ncu --clock-control none --set full --import-source no -k regex:cluster_rows -c 1 \
    "$build/benchmarks/policy.logits_loss_cuda_bench" --benchmark_min_time=1x \
    --benchmark_filter='gradients<bf16>.*vocab:151936/entropy:0' >"$out/ncu.txt" 2>&1
  grep -E "Duration|DRAM Throughput|Registers Per|Achieved Occ|Spilling Requests" "$out/ncu.txt"
else
  echo "ncu is missing"
fi

if command -v compute-sanitizer >/dev/null; then
  # Errors of the API are what some tests ask for: memory that there is not.
  for program in "$build"/tests/*_cuda_test; do
    for tool in memcheck racecheck; do
      {
        timeout 100 compute-sanitizer --tool $tool --report-api-errors no --error-exitcode 9 \
          "$program" 2>&1 | grep -E "SUMMARY|test cases|=========     at" | tail -n 3 |
          sed "s/^/$tool $(basename "$program"): /"
      } >"$out/sanitizer.$tool.$(basename "$program").part" &
    done
  done
  wait
  cat "$out"/sanitizer.*.part >"$out/sanitizer.txt"
  rm -f "$out"/sanitizer.*.part
  cat "$out/sanitizer.txt"
else
  echo "compute-sanitizer is missing"
fi

exit $failed
