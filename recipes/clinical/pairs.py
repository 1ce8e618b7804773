"""On-policy preference pairs from sampled answers: the right letter over the wrong answer that the policy gave.

    python3 pairs.py completions.jsonl POOL.jsonl OUT.jsonl

completions.jsonl: what a run with `log_completions` wrote. A prompt gives one pair where the policy answered it both rightly and
wrongly, and also where it was only ever wrong (the known letter is then the better answer); the worse answer is the wrong one
it gave most often. Prompts that were always answered rightly teach nothing and are left out.
"""
import collections
import json
import sys


def main():
    completions, pool, out = sys.argv[1:4]
    rows = [json.loads(line) for line in open(pool)]
    answers = collections.defaultdict(collections.Counter)
    for line in open(completions):
        sample = json.loads(line)
        answers[int(sample["row"].rsplit(":", 1)[1])][sample["completion"].strip()] += 1
    counts = collections.Counter()
    with open(out, "w") as file:
        for number, given in sorted(answers.items()):
            row = rows[number - 1]
            wrong = collections.Counter({a: n for a, n in given.items() if a and a != row["letter"]})
            counts["prompts"] += 1
            counts["answers"] += sum(given.values())
            counts["right"] += given[row["letter"]]
            if not wrong:
                counts["always right"] += 1
                continue
            counts["never right"] += given[row["letter"]] == 0
            worse = wrong.most_common(1)[0][0]
            turn = lambda text: [{"role": "assistant", "content": text}]
            pair = {"prompt": row["prompt"], "chosen": turn(row["letter"]), "rejected": turn(worse)}
            file.write(json.dumps(pair) + "\n")
    print(dict(counts), file=sys.stderr)


if __name__ == "__main__":
    main()
