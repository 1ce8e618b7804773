"""Accuracy of aligned adapters against the SFT adapter on the same questions.

    python3 compare.py SAMPLES.jsonl SFT_RUN NAME...

For each NAME its runs are `.../NAME-SEED`. Intervals: 10,000 bootstrap resamples of the questions, paired, of each seed and of the
mean over seeds (each question's difference averaged over the seeds).
"""
import json
import random
import statistics
import sys


def interval(differences, draw):
    n = len(differences)
    means = sorted(sum(draw.choices(differences, k=n)) / n for _ in range(10_000))
    return f"{100 * statistics.mean(differences):+.2f} [{100 * means[249]:+.2f}, {100 * means[9749]:+.2f}]"


def main():
    samples, sft, names = sys.argv[1], sys.argv[2], sys.argv[3:]
    correct = {}
    for line in open(samples):
        sample = json.loads(line)
        correct.setdefault(sample["run"], {})[sample["doc_id"]] = float(sample["correct"])
    questions = sorted(correct[sft])
    assert all(sorted(of) == questions for of in correct.values()), "the runs answered other questions"
    accuracy = lambda run: 100 * statistics.mean(correct[run].values())
    draw = random.Random(0)
    print(f"{len(questions)} questions; base {accuracy('base'):.2f} %, SFT {accuracy(sft):.2f} %\n")
    print("| configuration | seed | accuracy | against SFT, points [95 %] |\n|---|---|---|---|")
    for name in names:
        runs = sorted(run for run in correct if run.rsplit("/", 1)[-1].rsplit("-", 1)[0] == name)
        each = {run: [correct[run][q] - correct[sft][q] for q in questions] for run in runs}
        for run in runs:
            print(f"| {name} | {run.rsplit('-', 1)[1]} | {accuracy(run):.2f} % | {interval(each[run], draw)} |")
        mean = [statistics.mean(values) for values in zip(*each.values())]
        print(f"| {name} | all | {statistics.mean(map(accuracy, runs)):.2f} % | {interval(mean, draw)} |")


if __name__ == "__main__":
    main()
