#!/usr/bin/env python3
"""Writes dsir.json: texts with their DSIR log importance weights, by the standard library alone.

    python3 tests/goldens/dsir.py

The weights are those of Xie et al. 2023 (arXiv 2302.03169): lower case, NLTK's WordPunct tokens, unigrams and bigrams
hashed by SHA-256 into 10,000 buckets, and for each row the sum over its n-grams of log(p_target + 1e-8) - log(p_rows +
1e-8). The divergence is Jensen and Shannon's, in nats, of the two sets' buckets. Sums are exact (fsum). The authors' package (data-selection 1.0.3 with NLTK) gives the same counts and
weights, to 3e-14.
"""
import collections
import hashlib
import json
import math
import pathlib
import re

BUCKETS = 10_000

TARGET = [
    "ICD-10-CM letter: Acute rheumatic myocarditis\nI",
    "ICD-10-CM letter: Type 2 diabetes mellitus with foot ulcer\nE",
    "Malignant neoplasm of floor of mouth",
    "Ménière's disease, bilateral",
]
ROWS = [
    "ICD-10-CM letter: Muscle spasm of calf\nM",
    "ICD-10-CM letter: Other rupture of muscle (nontraumatic), lower leg\nM",
    "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n#### 24",
    "What are the symptoms of Adult Acute Lymphoblastic Leukemia ?",
    "Malignant neoplasm of floor of mouth",
    "malignant NEOPLASM of mouth, of mouth, of mouth",
    "MÉNIÈRE'S DISEASE, BILATERAL",
    "型糖尿病 E11 — コレラ",
    "Fieber und Hustenreiz; Straßenverkehr",
    "snake_case and tabs\tand\r\nlines \u00a0 no-break",
    "x",
    "...",
    "a b a b a b a b a b",
    "Σίσυφος ΣΊΣΥΦΟΣ",
]


def buckets(text):
    tokens = re.findall(r"\w+|[^\w\s]+", text.lower())
    ngrams = tokens + [" ".join(pair) for pair in zip(tokens, tokens[1:])]
    return [int(hashlib.sha256(n.encode()).hexdigest(), 16) % BUCKETS for n in ngrams]


def shares(texts):
    counts = collections.Counter(b for text in texts for b in buckets(text))
    total = sum(counts.values())
    return [counts[b] / total for b in range(BUCKETS)]


def divergence(p, q):
    def part(a, b):
        return a * math.log(a / ((a + b) / 2)) if a > 0 else 0.0

    return math.fsum((part(a, b) + part(b, a)) / 2 for a, b in zip(p, q))


def main():
    target, rows = shares(TARGET), shares(ROWS)
    ratios = [math.log(t + 1e-8) - math.log(r + 1e-8) for t, r in zip(target, rows)]
    golden = {
        "target": TARGET,
        "rows": ROWS,
        "ngrams": [len(buckets(text)) for text in ROWS],
        "log_weights": [math.fsum(ratios[b] for b in buckets(text)) for text in ROWS],
        "divergence": divergence(target, rows),
    }
    path = pathlib.Path(__file__).with_name("dsir.json")
    path.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
