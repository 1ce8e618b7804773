"""Writes stats.json: what the unit tests of galen-eval's statistics are held against.

    pip install numpy scipy statsmodels && python stats.py
"""

import json
import math
import pathlib
import random

import numpy as np
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

rng = np.random.default_rng(0)
out = {}

out["mean_stderr"] = []
for values in ([0.0, 1.0, 1.0, 0.0, 1.0], rng.normal(size=37).tolist(), (rng.random(360) < 0.7).astype(float).tolist()):
    out["mean_stderr"].append({
        "values": values,
        "stderr": float(stats.sem(values)),
        "percentiles": {str(q): float(np.percentile(values, 100 * q)) for q in (0.0, 0.025, 0.5, 0.333, 0.975, 1.0)},
    })

# The bootstrap distribution of a share is known: Binomial(n, share) / n.
out["bootstrap_share"] = []
for n, ones in ((20, 10), (100, 7), (360, 252), (2400, 1680)):
    lo, hi = stats.binom.ppf([0.025, 0.975], n, ones / n) / n
    out["bootstrap_share"].append({"n": n, "ones": ones, "lo": lo, "hi": hi})

out["bootstrap_paired"] = []
for n, p, q in ((200, 0.3, 0.6), (360, 0.07, 0.7), (150, 0.5, 0.5)):
    base = rng.random(n) < p
    a = base.astype(float)
    b = np.where(rng.random(n) < 0.5, base, rng.random(n) < q).astype(float)
    result = stats.bootstrap((a, b), lambda a, b, axis: b.mean(axis=axis) - a.mean(axis=axis), paired=True,
                             method="percentile", n_resamples=99_999, batch=5_000, rng=np.random.default_rng(1))
    lo, hi = result.confidence_interval
    out["bootstrap_paired"].append({"a": a.tolist(), "b": b.tolist(), "lo": float(lo), "hi": float(hi)})

out["mcnemar"] = []
for b, c in ((0, 0), (1, 0), (5, 5), (2, 10), (10, 2), (25, 40), (3, 230), (500, 600)):
    p = float(mcnemar([[7, b], [c, 9]], exact=True).pvalue)
    n, k = b + c, min(b, c)
    # statsmodels has no mid-p: the exact p less the probability of what was seen.
    mid = 1.0 if n == 0 else min(1.0, 2 * stats.binom.cdf(k, n, 0.5) - stats.binom.pmf(k, n, 0.5))
    if n and b == c:
        mid = 1 - stats.binom.pmf(k, n, 0.5) / 2
    # scipy's own exact test as a second opinion.
    assert n == 0 or math.isclose(p, min(1.0, stats.binomtest(k, n).pvalue), rel_tol=1e-9)
    out["mcnemar"].append({"b": b, "c": c, "p": p if n else 1.0, "mid_p": float(mid)})

# CPython's sampling, which draws lm-evaluation-harness's examples: one generator, calls in turn.
r = random.Random(1234)
out["random_sample"] = []
for n, k in ((10, 3), (1000, 5), (7, 7), (100, 6), (50_000, 25), (3, 2), (21, 5), (22, 5), (86, 20), (1, 1)):
    out["random_sample"].append({"n": n, "k": k, "sample": r.sample(range(n), k)})

path = pathlib.Path(__file__).with_name("stats.json")
path.write_text(json.dumps(out) + "\n")
