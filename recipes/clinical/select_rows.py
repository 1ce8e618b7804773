#!/usr/bin/env python3
"""How well each method of `galen data align` finds the clinical rows among rows of something else.

    python3 recipes/clinical/select_rows.py QUICKSTART/data OFF_TOPIC.jsonl[.gz] WORK [--model M] [--rows N] ...

QUICKSTART/data is what `galen quickstart` wrote; OFF_TOPIC holds rows with `question` and `answer`, or chats in
`messages`. N rows of each, drawn by a seed, are mixed; the target is the quickstart's validation rows, diagnoses of sections that no
training row is from, all of them or a handful. The budget is N, so precision and recall are one number: the share of clinical rows
among those kept. AUC is of the scores: the chance that a clinical row scores above another. Twice: rows as they are, and
`bare` ones, the diagnosis and the question alone, which instruction and length do not give away. Standard library only.
"""
import argparse
import gzip
import json
import pathlib
import random
import re
import subprocess
import sys
import time


def read(path):
    opened = gzip.open(path, "rt", encoding="utf-8") if str(path).endswith(".gz") else open(path, encoding="utf-8")
    with opened as lines:
        return [json.loads(line) for line in lines if line.strip()]


def turns(row):
    if "messages" in row:
        return row["messages"]
    return [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]


def mixed_row(row, on_topic):
    messages = turns(row)
    question = next(m["content"] for m in messages if m["role"] == "user")
    return {"messages": messages, "bare": question.split("ICD-10-CM letter: ")[-1], "on_topic": on_topic}


def methods_of(galen):
    """Names of the methods, each with whether it asks a model, as `galen data align --help` has them."""
    done = subprocess.run([galen, "data", "align", "--help"], capture_output=True, text=True, check=True)
    flag = re.split(r"\n\s*(?=-\w, --|--)", done.stdout.split("--method <METHOD>")[1])[0]
    parts = re.split(r"\n\s+- (\w+):", flag)
    return {name: "--model" in about for name, about in zip(parts[1::2], parts[2::2])}


def score(row):
    """A row that is too short for one has null: it is the last."""
    return -float("inf") if row["score"] is None else row["score"]


def auc(rows):
    """Of scores by label, ties counted half."""
    rows = sorted(rows)
    positives = sum(on for _, on in rows)
    ranks, at = 0.0, 0
    while at < len(rows):
        end = at
        while end < len(rows) and rows[end][0] == rows[at][0]:
            end += 1
        ranks += sum(on for _, on in rows[at:end]) * (at + 1 + end) / 2
        at = end
    return (ranks - positives * (positives + 1) / 2) / (positives * (len(rows) - positives))


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("off_topic", type=pathlib.Path)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--galen", default="target/release/galen")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--methods", help="names with commas between them; default: all there are")
    parser.add_argument("--texts", default="rows,bare")
    parser.add_argument("--rows", type=int, default=1200, help="of each kind")
    parser.add_argument("--handful", type=int, default=8, help="rows of the smaller target")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    asks_model = methods_of(args.galen)
    methods = args.methods.split(",") if args.methods else list(asks_model)
    if unknown := set(methods) - set(asks_model):
        sys.exit(f"--methods: no method `{unknown.pop()}`\nhint: there are {', '.join(asks_model)}")

    draw = random.Random(args.seed)
    on, off = read(args.data / "train.jsonl"), read(args.off_topic)
    n = min(args.rows, len(on), len(off))
    rows = [mixed_row(r, True) for r in draw.sample(on, n)] + [mixed_row(r, False) for r in draw.sample(off, n)]
    draw.shuffle(rows)
    target = [mixed_row(r, True) for r in read(args.data / "validation.jsonl")]
    args.work.mkdir(parents=True, exist_ok=True)
    write(args.work / "mixed.jsonl", rows)
    targets = {"all": target, "handful": draw.sample(target, args.handful)}
    for name, some in targets.items():
        write(args.work / f"target_{name}.jsonl", some)

    print(f"{n} clinical rows, {n} of {args.off_topic.name}, {args.model}\n")
    print("| texts | target | method | kept rows that are clinical | AUC | divergence from the target | seconds |")
    print("|---|---|---|---|---|---|---|")
    for texts in args.texts.split(","):
        fields = ["--field", "bare", "--target-field", "bare"] if texts == "bare" else []
        for name, some in targets.items():
            for method in methods:
                row = measure(args, method, asks_model[method], fields, name, n)
                print(f"| {texts} | {len(some)} | {method} | {row}", flush=True)


def measure(args, method, asks_model, fields, target, n):
    target = ["--target", args.work / f"target_{target}.jsonl", *fields]

    def align(rows, out, *flags):
        out.unlink(missing_ok=True)
        command = [args.galen, "data", "align", args.work / rows, *target, "--json", "--seed", args.seed, *flags]
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(done.stderr)
        return json.loads(done.stdout)

    model = ["--model", args.model, "--max-tokens", args.max_tokens] if asks_model else []
    begin = time.monotonic()
    out, kept = args.work / "scored.jsonl", args.work / "kept.jsonl"
    before = align("mixed.jsonl", out, "--out", out, "--method", method, "--weight-field", "score", *model)
    took = time.monotonic() - begin
    scored = read(out)
    if model:
        # What `--budget` keeps, without asking the model again.
        best = sorted(range(len(scored)), key=lambda i: -score(scored[i]))[:n]
        write(kept, [scored[i] for i in sorted(best)])
    else:
        align("mixed.jsonl", kept, "--out", kept, "--method", method, "--budget", n)
    after = align("kept.jsonl", out, "--method", "ngrams")
    share = sum(row["on_topic"] for row in read(kept)) / n
    area = auc([(score(row), row["on_topic"]) for row in scored])
    far = [report["divergence"]["all"] for report in (before, after)]
    return f"{100 * share:.1f} % | {area:.4f} | {far[0]:.3f} to {far[1]:.3f} | {took:.1f} |"


if __name__ == "__main__":
    main()
