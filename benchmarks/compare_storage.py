#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Benchmarks over xtensor's storage beside the same over Eigen's, with the same products.

compare_storage.py BUILD_DIR [--rounds N] [--filter REGEX] [NAME ...]

Runs every NAME (optim.adamw_bench, policy.logits_loss_bench ...; all that are built if none) and
NAME_xtensor in turn, N times, first one and then the other first, and prints for every benchmark
the least time over xtensor / the least time over Eigen: neighbours on the machine only add time.
Benchmarks of whole models that print tables of their own are left to be run by hand.
Build them with: cmake --build BUILD_DIR --target all xtensor_benchmarks
"""
import argparse
import glob
import json
import os
import subprocess
import sys


def lists_tests(program):
    return subprocess.run([program, "--benchmark_list_tests"], capture_output=True).returncode == 0


def times_of(program, options):
    done = subprocess.run([program, "--benchmark_format=json", *options], check=True,
                          capture_output=True, text=True)
    report = json.loads(done.stdout)
    return {b["name"]: b["real_time"] for b in report["benchmarks"] if "real_time" in b}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("build_dir")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--filter", default="")
    arguments = parser.parse_intermixed_args()
    folder = os.path.join(arguments.build_dir, "benchmarks")
    names = arguments.names or sorted(
        os.path.basename(path)[:-len("_xtensor")]
        for path in glob.glob(os.path.join(folder, "*_bench_xtensor")))
    names = [name for name in names if lists_tests(os.path.join(folder, name))]
    if not names:
        sys.exit(f"compare_storage.py: no *_bench_xtensor in {folder}")
    options = [f"--benchmark_filter={arguments.filter}"] if arguments.filter else []
    print(f"{'benchmark':64} {'xtensor / Eigen':>15}")
    for name in names:
        programs = [os.path.join(folder, name), os.path.join(folder, name + "_xtensor")]
        least = ({}, {})
        for round_number in range(arguments.rounds):
            for which in (0, 1) if round_number % 2 == 0 else (1, 0):
                for benchmark, time in times_of(programs[which], options).items():
                    least[which][benchmark] = min(time, least[which].get(benchmark, time))
        for benchmark, time in least[0].items():
            print(f"{name.split('.')[-1] + ' ' + benchmark:64} {least[1][benchmark] / time:15.3f}",
                  flush=True)


if __name__ == "__main__":
    main()
