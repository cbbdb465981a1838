#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""What nvcc makes of the kernels whose speed is memory's: that nothing is spilled to memory, that
two blocks fit a multiprocessor, and that rows are read and written 16 bytes at a time; and of those
that multiply on tensor cores: that their sums stay in registers, and tiles are read by ldmatrix.

hot_kernels.py ROOT NVCC [ARCHITECTURE ...]
"""
import os
import re
import subprocess
import sys
import tempfile

# Two blocks of 512 threads share the 65,536 registers of a multiprocessor.
MOST_REGISTERS = 64
# Sums of tensor cores fill the registers of two blocks; a few values of a row may lie elsewhere.
MOST_SPILLED = 96
TENSOR_CORES = "decoder::narrow_"
WIDE = re.compile(r"\.v4\.[fub]32|\.v2\.[fub]64")


def compile_to(root, nvcc, architecture, kind, target):
    command = [nvcc, "-std=c++20", f"-arch={architecture}", "-O3", "-I", f"{root}/include",
               "-I", root, "-Werror=all-warnings", "-Xptxas", "-v", kind,
               f"{root}/tests/structure/hot_kernels.cu", "-o", target]
    return subprocess.run(command, check=True, capture_output=True, text=True).stderr


def short(name):
    demangled = subprocess.run(["c++filt", name], capture_output=True, text=True).stdout.strip()
    kernel = demangled.replace("lamina::v0_1::", "").split("(")[0].split("detail::")[-1]
    return kernel[:60]


def ptxas_complaints(report):
    complaints, kernels = [], 0
    name = ""
    for line in report.splitlines():
        if found := re.search(r"Compiling entry function '(\S+)'", line):
            name, kernels = short(found.group(1)), kernels + 1
        elif found := re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line):
            if int(found.group(1)) > (MOST_SPILLED if TENSOR_CORES in name else 0):
                complaints.append(f"{name}: spills: {line.strip()}")
        elif found := re.search(r"Used (\d+) registers", line):
            if int(found.group(1)) > MOST_REGISTERS and TENSOR_CORES not in name:
                complaints.append(f"{name}: {found.group(1)} registers, at most {MOST_REGISTERS}")
    return complaints, kernels


def access_complaints(ptx):
    complaints = []
    for entry in ptx.split(".entry")[1:]:
        name = short(re.match(r"\s*(\S+?)\(", entry).group(1))
        reads = any(WIDE.search(line) for line in entry.splitlines() if "ld.global" in line)
        writes = any(WIDE.search(line) for line in entry.splitlines() if "st.global" in line)
        if not reads:
            complaints.append(f"{name}: no 16-byte load")
        if TENSOR_CORES in name:
            if ".local" in entry:
                complaints.append(f"{name}: sums are not in registers")
            complaints += [f"{name}: no {instruction}"
                           for instruction in ("ldmatrix.sync", "mma.sync.aligned.m16n8k16")
                           if instruction not in entry]
        elif not writes and "log_prob_body" not in name:
            complaints.append(f"{name}: no 16-byte store")
        if "policy_logits_body" in name:
            if "cp.async" not in entry:
                complaints.append(f"{name}: the row is not fetched to the chip")
            if not any(WIDE.search(line) for line in entry.splitlines() if "ld.shared" in line):
                complaints.append(f"{name}: the row is not read from the chip 16 bytes at a time")
    return complaints


def main():
    root, nvcc, *architectures = sys.argv[1:]
    complaints = []
    with tempfile.TemporaryDirectory() as folder:
        target = os.path.join(folder, "kernels")
        for architecture in architectures or ["sm_90"]:
            found, kernels = ptxas_complaints(
                compile_to(root, nvcc, architecture, "-cubin", target))
            if kernels < 12:
                found.append(f"only {kernels} kernels were compiled")
            compile_to(root, nvcc, architecture, "-ptx", target)
            with open(target, encoding="utf-8") as file:
                found += access_complaints(file.read())
            complaints += [f"{architecture}: {complaint}" for complaint in found]
            print(f"{architecture}: {kernels} kernels")
    for complaint in complaints:
        print(complaint)
    sys.exit(1 if complaints else 0)


if __name__ == "__main__":
    main()
