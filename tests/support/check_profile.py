#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Whether a quick sweep of the math task really learned, and what must not move did not.

check_profile.py PROFILE [AGAIN ...]    AGAIN are profiles of the same sweep, run again or with
                                        another thread count: equal byte for byte

Ranking, peak position and whether C stays below 1 are chance, and not looked at.
"""
import json
import sys


def complaints_of(profile):
    rows = profile["variants"]
    of_kind = lambda kind: [row for row in rows if row["kind"] == kind]
    (base,), (full,) = of_kind("base"), of_kind("full")
    layers = of_kind("layer")
    gain = lambda row: row["score"] - base["score"]

    complaints = []
    if not gain(full) > 0.15:
        complaints.append(f"full training gains {gain(full):.3f}, expected more than 0.15")
    if not layers:
        complaints.append("no layer was trained alone")
    for row in layers:
        if not gain(row) > 0.02:
            complaints.append(f"{row['name']} gains {gain(row):.3f}, expected more than 0.02")
    (shuffled,) = [row for row in rows if row["name"] == "shuffled best"]
    if not gain(shuffled) < 0.1:
        complaints.append(f"shuffled rewards gain {gain(shuffled):.3f}, expected less than 0.1")
    for row in rows:
        expected = gain(row) / gain(full)
        if not abs(row["contribution"] - expected) < 1e-9:
            complaints.append(f"{row['name']} has C {row['contribution']}, expected {expected}")
        for run in row["runs"]:
            changed = run["extras"].get("frozen tensors changed", 0 if row is base else None)
            if changed != 0:
                complaints.append(f"{row['name']}, seed {run['seed']}: {changed} frozen tensors "
                                  "changed, expected 0")
    return complaints


def main():
    path, *again = sys.argv[1:]
    with open(path, "rb") as file:
        text = file.read()
    profile = json.loads(text)
    complaints = complaints_of(profile)
    for other in again:
        with open(other, "rb") as file:
            if file.read() != text:
                complaints.append(f"{other} differs from {path}, expected equal bytes")
    for complaint in complaints:
        print(f"check_profile.py: {complaint}", file=sys.stderr)
    if not complaints:
        runs = sum(len(row["runs"]) for row in profile["variants"])
        print(f"layer_sweep: {runs} runs of {len(profile['variants'])} variants checked")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
