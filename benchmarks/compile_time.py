#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Processor seconds to compile parts of the library at -O0, over an empty file; medians. With
--nvcc also those of a .cu file, optimised for one architecture: the CUDA backend and one preset.

Exits 1 if a part takes longer than its limit.
"""
import argparse
import glob
import os
import resource
import statistics
import subprocess
import sys
import tempfile

# name, headers below include/, code, most seconds over an empty file
ONE_PRESET = """
double use(lamina::vector_view<float const> log_probs, lamina::policy_batch<float> const& batch,
           lamina::vector_view<float> d_log_probs) {
  return lamina::policy_loss(lamina::grpo{}, log_probs, batch, d_log_probs).loss;
}
"""
PARTS = [
    ("umbrella", ["lamina/lamina.hpp"], "", 1.0),
    ("layers only", ["lamina/layers/*.hpp"], "", 0.4),
    ("policy only", ["lamina/policy/*.hpp"], "", 0.4),
    ("one preset, used", ["lamina/policy/presets.hpp", "lamina/policy/logits_loss.hpp"],
     ONE_PRESET, 0.8),
]

ON_A_DEVICE = """
using backend = lamina::cuda_backend<float>;
void use(backend const& device, lamina::matrix_view<lamina::bf16> logits,
         lamina::policy_batch<float> const& batch, lamina::policy_outputs<float> const& outputs,
         lamina::policy_report<backend>& report) {
  lamina::policy_loss(device, lamina::grpo{}, logits, batch, outputs, report);
}
"""
CUDA_PART = ("CUDA, one preset", ["lamina/backend/cuda.cuh", "lamina/policy/device_loss.hpp",
                                  "lamina/policy/presets.hpp"], ON_A_DEVICE, 12.0)


def seconds(command, include, headers, code, folder, suffix=".cpp"):
    source = os.path.join(folder, "part" + suffix)
    with open(source, "w", encoding="utf-8") as file:
        file.writelines(f'#include "{header}"\n' for header in headers)
        file.write(code)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*command, "-std=c++20", "-I", include, "-c", source,
                    "-o", os.path.join(folder, "part.o")], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compiler", default="g++")
    parser.add_argument("--nvcc", metavar="NVCC", help="compile the .cu file with it, too")
    parser.add_argument("--include", default=os.path.join(os.path.dirname(__file__), "../include"))
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args()

    expanded = [("empty file", [], "", None)]
    for name, patterns, code, limit in PARTS:
        paths = [p for pattern in patterns
                 for p in sorted(glob.glob(os.path.join(options.include, pattern)))]
        if not paths:
            sys.exit(f"compile_time.py: {patterns} match no header below {options.include}")
        expanded.append((name, [os.path.relpath(p, options.include) for p in paths], code, limit))

    # Round after round, so that a slow moment of the machine hits all parts alike.
    times = {name: [] for name, _, _, _ in expanded}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.repetitions):
            for name, headers, code, _ in expanded:
                times[name].append(seconds([options.compiler, "-O0"], options.include, headers,
                                           code, folder))
        if options.nvcc:
            name, headers, code, limit = CUDA_PART
            expanded.append((name, headers, code, limit))
            command = [options.nvcc, "-O3", "-arch=sm_90"]
            times[name] = [seconds(command, options.include, headers, code, folder, ".cu")
                           for _ in range(3)]

    empty = statistics.median(times["empty file"])
    too_slow = False
    print(f"{'part':16} {'seconds':>8} {'over empty':>11} {'limit':>6}")
    for name, _, _, limit in expanded:
        median = statistics.median(times[name])
        over = median - empty
        too_slow |= limit is not None and over > limit
        print(f"{name:16} {median:8.2f} {over:11.2f} {limit if limit else '':>6}")
    return 1 if too_slow else 0


if __name__ == "__main__":
    sys.exit(main())
