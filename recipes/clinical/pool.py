"""Further diagnoses of the sections that the quickstart trains on: prompts to sample answers to.

    python3 pool.py ICD10_XML QUICKSTART_DATA OUT.jsonl [ROWS]

ICD10_XML: the tabular list that `galen quickstart` fetched. QUICKSTART_DATA: its `data/` folder. A row is
{"prompt": [user turn], "letter": L}. Left out: every diagnosis of the test sections (test.jsonl has all of them), the
categories (three characters) of validation rows, and the rows of train.jsonl. The rows are drawn evenly over letters with a
fixed seed.
"""
import json
import random
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

LETTERS = "ACEFGHIJKLMN"
INSTRUCTION = "ICD-10-CM letter: "


def rows(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def main():
    xml, data, out = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    wanted = int(sys.argv[4]) if len(sys.argv) > 4 else 1200
    by_text = {}
    for chapter in ET.parse(xml).getroot().iter("chapter"):
        if chapter.findtext("name") == "8":  # the ear shares the letter H with the eye
            continue
        for diag in chapter.iter("diag"):
            code, text = diag.findtext("name"), diag.findtext("desc")
            if code and text and code[0] in LETTERS:
                by_text.setdefault(text.strip(), set()).add(code)

    def said(name):
        return {r["messages"][0]["content"].removeprefix(INSTRUCTION) for r in rows(data / name)}

    test = {r["prompt"].removeprefix(INSTRUCTION) for r in rows(data / "test.jsonl")}
    train, validation = said("train.jsonl"), said("validation.jsonl")
    test_codes = {c[:3] for t in test for c in by_text.get(t, ())}
    held = test_codes | {c[:3] for t in validation for c in by_text.get(t, ())}
    pool = {letter: [] for letter in LETTERS}
    for text, codes in sorted(by_text.items()):
        letters = {c[0] for c in codes}
        if text in train or text in test or len(letters) > 1 or any(c[:3] in held for c in codes):
            continue
        pool[letters.pop()].append(text)
    draw = random.Random(0)
    each = wanted // len(LETTERS)
    chosen = [(letter, text) for letter, texts in pool.items() for text in draw.sample(texts, min(each, len(texts)))]
    draw.shuffle(chosen)
    with open(out, "w") as file:
        for letter, text in chosen:
            row = {"prompt": [{"role": "user", "content": INSTRUCTION + text}], "letter": letter}
            file.write(json.dumps(row) + "\n")
    print(f"{len(chosen)} prompts of {sum(map(len, pool.values()))}; {len(held)} categories held out", file=sys.stderr)


if __name__ == "__main__":
    main()
