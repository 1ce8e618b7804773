"""So many labelled rows of each letter, drawn by a seed from the quickstart's training rows.

    python3 few.py TRAIN.jsonl OUT.jsonl ROWS SEED
"""
import json
import random
import sys


def main():
    train, out, n, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    by_letter = {}
    for line in open(train):
        by_letter.setdefault(json.loads(line)["messages"][1]["content"], []).append(line)
    draw = random.Random(seed)
    rows = [row for letter in sorted(by_letter) for row in draw.sample(by_letter[letter], n)]
    draw.shuffle(rows)
    open(out, "w").writelines(rows)


if __name__ == "__main__":
    main()
