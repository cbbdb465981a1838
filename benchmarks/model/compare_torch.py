#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Tokens per second of a training step of lamina's decoder over those of PyTorch: the same shapes,
threads and selections, run in turn, so that both see the same machine.

  compare_torch.py build/release-bench/benchmarks/model.train_step_bench [--threads 1] [--rounds 3]

Runs under the Python that has torch and transformers, which run torch_step.py. With one thread the
times are those of the processor, which neighbours on the machine do not stretch; with more those on
the wall. PyTorch trains what lamina trains and keeps nothing below it; what it does not have is the
prefix cache, which lamina uses where a batch is passed over more than once.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

# name, layers for lamina, selection for torch_step.py, epochs, reference, goal
CASES = [("all layers", "all", "all", 1, False, 1.0),
         ("middle layer", "15", "middle", 1, False, 1.0),
         ("middle 10", "middle:10", "middle10", 1, False, 1.0),
         ("last layer", "29", "last", 1, False, 1.0),
         ("middle, 2 epochs, reference", "15", "middle", 2, True, 1.3)]


def output(command, threads):
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    return json.loads(subprocess.run(command, env=environment, check=True, text=True,
                                     stdout=subprocess.PIPE).stdout)


def lamina_seconds(case, options):
    _, layers, _, epochs, reference, _ = case
    result = output([options.program, "--layers", layers, "--sequences", str(options.sequences),
                     "--length", str(options.length), "--responses", str(options.length // 2),
                     "--epochs", str(epochs), "--reference", str(int(reference)),
                     "--prefix-reuse", str(int(epochs > 1 or reference)),
                     "--repetitions", str(options.steps)], options.threads)
    return result["processor_seconds" if options.threads == 1 else "wall_seconds"]


def torch_seconds(case, options):
    _, _, selection, epochs, reference, _ = case
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "torch_step.py")
    command = [sys.executable, script, "--threads", str(options.threads), "--selections", selection,
               "--sequences", str(options.sequences), "--length", str(options.length),
               "--prompt", str(options.length // 2), "--epochs", str(epochs),
               "--steps", str(options.steps), "--warm-up", "1"]
    result = output(command + (["--reference"] if reference else []), options.threads)["results"][0]
    return [result["processor_seconds" if options.threads == 1 else "seconds"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("program", help="the executable of train_step_bench.cpp")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1, help="timed steps of a program each round")
    parser.add_argument("--sequences", type=int, default=2)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--only", help="cases whose name contains this")
    options = parser.parse_args()
    cases = [case for case in CASES if options.only is None or options.only in case[0]]
    times = {case[0]: ([], []) for case in cases}
    for _ in range(options.rounds):
        for case in cases:
            times[case[0]][0].extend(lamina_seconds(case, options))
            times[case[0]][1].extend(torch_seconds(case, options))
    tokens = options.sequences * options.length
    print(f"{tokens} tokens, {options.threads} thread(s), medians of {options.rounds} rounds")
    print(f"{'trained':<28} {'lamina':>12} {'torch':>12} {'ratio':>7} {'goal':>6}")
    for name, _, _, epochs, _, goal in cases:
        ours, theirs = (epochs * tokens / statistics.median(t) for t in times[name])
        print(f"{name:<28} {ours:>8.1f} t/s {theirs:>8.1f} t/s {ours / theirs:>6.2f}x "
              f"{goal:>5.1f}x")


if __name__ == "__main__":
    main()
