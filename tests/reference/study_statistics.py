# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Writes study_statistics.json: spread, ranks, correlations and quantiles by NumPy and SciPy.

Run: python3 study_statistics.py > study_statistics.json   (NumPy 2.x, SciPy 1.x)
"""
import json

import numpy as np
from scipy import stats

rng = np.random.default_rng(20260702)
samples = []
for count in (2, 3, 5, 12, 40):
    x = rng.normal(0.5, 0.2, count)
    y = np.round(x + rng.normal(0, 0.2, count), 1)  # rounding makes ties
    x = np.round(x, 2)
    samples.append({
        "x": x.tolist(),
        "y": y.tolist(),
        "mean": x.mean(),
        "variance": x.var(ddof=1),
        "standard_error": stats.sem(x),
        "quantiles": [[p, float(np.quantile(x, p))] for p in (0, 0.025, 0.3, 0.5, 0.975, 1)],
        "ranks_of_y": stats.rankdata(y).tolist(),
        "pearson": stats.pearsonr(x, y).statistic if np.ptp(y) > 0 else None,
        "spearman": stats.spearmanr(x, y).statistic if np.ptp(y) > 0 else None,
    })
student_t = [[p, dof, stats.t.ppf(p, dof)]
             for dof in (1, 2, 3, 4, 7, 30, 101) for p in (0.001, 0.3, 0.5, 0.9, 0.975, 0.9995)]
normal = [[p, stats.norm.ppf(p)] for p in (1e-12, 0.001, 0.025, 0.5, 0.84, 0.975, 0.999999)]
print(json.dumps({"samples": samples, "student_t": student_t, "normal": normal}, indent=1))
