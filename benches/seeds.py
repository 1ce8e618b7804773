"""What `seeds.sh` measured: bf16 minus f32 over seeds. `python3 seeds.py OUT SEED...`; no packages needed.

Accuracy: each question's difference, averaged over the seeds, resampled by question (10,000 times, paired); and a t
interval over the seeds' differences. Losses: of the test set's questions, minus the log-probability of the right choice among the
choices; of the validation rows, as the last validation of each run has it. Training loss: means of the steps' tenths, side by side.
Exit code 1 where a target is missed: the paired interval within 2 points of zero, both mean losses within 1 %.
"""
import json
import math
import random
import statistics
import sys
from pathlib import Path

T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def main():
    out, seeds = Path(sys.argv[1]), sys.argv[2:]
    modes = ("f32", "bf16")
    names = {str(out / f"{mode}-{seed}"): (mode, seed) for mode in modes for seed in seeds}
    correct = {key: {} for key in names.values()}
    surprise = {key: [] for key in names.values()}
    with open(out / "eval.samples.jsonl") as file:
        for line in file:
            sample = json.loads(line)
            if sample["run"] in names:
                correct[names[sample["run"]]][sample["doc_id"]] = float(sample["correct"])
                most = max(sample["logprobs"])
                all_of_it = most + math.log(sum(math.exp(p - most) for p in sample["logprobs"]))
                surprise[names[sample["run"]]].append(all_of_it - sample["logprobs"][sample["target"]])
    questions = sorted(correct[(modes[0], seeds[0])])
    assert questions and all(sorted(c) == questions for c in correct.values()), "the runs answered other questions"

    logs = {key: [json.loads(l) for l in (Path(name) / "log.jsonl").read_text().splitlines()]
            for name, key in names.items()}
    eval_loss = {key: [row["eval_loss"] for row in log if "eval_loss" in row][-1] for key, log in logs.items()}
    accuracy = {key: 100 * statistics.mean(c.values()) for key, c in correct.items()}

    print(f"{len(questions)} questions\n")
    test_loss = {key: statistics.mean(s) for key, s in surprise.items()}
    print("| seed | accuracy f32 | bf16 | difference | test loss f32 | bf16 | difference | validation loss f32 | bf16 | difference |")
    print("|" + "---|" * 10)
    differences = []
    for seed in seeds:
        a, b = (accuracy[(mode, seed)] for mode in modes)
        differences.append(b - a)
        cells = [f"{seed}", f"{a:.2f} %", f"{b:.2f} %", f"{b - a:+.2f}"]
        for losses in (test_loss, eval_loss):
            x, y = (losses[(mode, seed)] for mode in modes)
            cells += [f"{x:.4f}", f"{y:.4f}", f"{100 * (y / x - 1):+.2f} %"]
        print("| " + " | ".join(cells) + " |")

    mean = statistics.mean(differences)
    per_question = [100 * statistics.mean(correct[("bf16", s)][q] - correct[("f32", s)][q] for s in seeds)
                    for q in questions]
    draw = random.Random(0)
    n = len(per_question)
    means = sorted(sum(draw.choices(per_question, k=n)) / n for _ in range(10_000))
    low, high = means[249], means[9749]
    print(f"\naccuracy, bf16 - f32: {mean:+.2f} points, paired 95 % interval over questions [{low:+.2f}, {high:+.2f}]")
    if len(seeds) > 1:
        half = T_975.get(len(seeds) - 1, 2.0) * statistics.stdev(differences) / len(seeds) ** 0.5
        print(f"  over seeds (t, {len(seeds)} seeds): [{mean - half:+.2f}, {mean + half:+.2f}]")
    losses_hold = True
    for name, of in (("test", test_loss), ("validation", eval_loss)):
        f32_loss, bf16_loss = (statistics.mean(of[(m, s)] for s in seeds) for m in modes)
        loss = 100 * (bf16_loss / f32_loss - 1)
        losses_hold &= abs(loss) <= 1
        spread = statistics.stdev(100 * (of[("bf16", s)] - of[("f32", s)]) / f32_loss for s in seeds) if len(seeds) > 1 else 0
        print(f"{name} loss, bf16 against f32: {loss:+.2f} %, standard error over seeds {spread / len(seeds) ** 0.5:.1f} %")

    print("\n| training loss, steps | " + " | ".join(f"{m} {s}" for s in seeds for m in modes) + " |")
    print("|---|" + "---|" * (2 * len(seeds)))
    losses = {key: [row["loss"] for row in log if "loss" in row] for key, log in logs.items()}
    steps = min(len(l) for l in losses.values())
    for i in range(10):
        part = slice(i * steps // 10, (i + 1) * steps // 10)
        if part.start < part.stop:
            cells = (f"{statistics.mean(losses[(m, s)][part]):.4f}" for s in seeds for m in modes)
            print(f"| {part.start + 1}-{part.stop} | " + " | ".join(cells) + " |")

    held = abs(low) <= 2 and abs(high) <= 2 and losses_hold
    print(f"\n{'held' if held else 'MISSED'}: interval within 2 points, both mean losses within 1 %")
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
