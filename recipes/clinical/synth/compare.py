"""Held-out accuracy with synthesised rows against without, on the same questions and with the same labelled rows.

    python3 compare.py SAMPLES.jsonl BASELINE ARM...

SAMPLES: the JSONL of `galen eval --log_samples`. Adapters are called `ARM-SEED`; an arm's seed is compared with the baseline's of the same
seed. Differences in points with 95 % intervals: a paired bootstrap over questions, of each question's mean difference over seeds for
the last line of an arm.
"""
import collections
import json
import random
import sys

DRAWS = 2000


def interval(differences):
    draw = random.Random(0)
    n = len(differences)
    means = sorted(sum(draw.choices(differences, k=n)) / n for _ in range(DRAWS))
    return 100 * sum(differences) / n, 100 * means[int(0.025 * DRAWS)], 100 * means[int(0.975 * DRAWS) - 1]


def main():
    path, baseline, *arms = sys.argv[1:]
    right = collections.defaultdict(dict)
    for line in open(path):
        sample = json.loads(line)
        name = sample["run"].rstrip("/").rsplit("/", 1)[-1]
        right[name][sample["doc_id"]] = float(sample["correct"])
    seeds = sorted(n.rsplit("-", 1)[1] for n in right if n.rsplit("-", 1)[0] == baseline)
    questions = sorted(right[f"{baseline}-{seeds[0]}"])
    accuracy = lambda name: 100 * sum(right[name].values()) / len(right[name])
    print("| rows | seed | accuracy | against without, points [95 %] |\n|---|---|---|---|")
    if "base" in right:
        print(f"| base | | {accuracy('base'):.2f} % | |")
    for seed in seeds:
        print(f"| {baseline} | {seed} | {accuracy(f'{baseline}-{seed}'):.2f} % | |")
    for arm in arms:
        total = dict.fromkeys(questions, 0.0)
        for seed in seeds:
            with_rows, without = right[f"{arm}-{seed}"], right[f"{baseline}-{seed}"]
            differences = [with_rows[q] - without[q] for q in questions]
            for q, d in zip(questions, differences):
                total[q] += d / len(seeds)
            mean, low, high = interval(differences)
            print(f"| {arm} | {seed} | {accuracy(f'{arm}-{seed}'):.2f} % | {mean:+.2f} [{low:+.2f}, {high:+.2f}] |")
        mean, low, high = interval(list(total.values()))
        of_all = sum(accuracy(f"{arm}-{seed}") for seed in seeds) / len(seeds)
        print(f"| **{arm}** | all | {of_all:.2f} % | {mean:+.2f} [{low:+.2f}, {high:+.2f}] |")


if __name__ == "__main__":
    main()
