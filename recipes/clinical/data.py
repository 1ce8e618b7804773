"""Splits the quickstart's training rows by section: some to fine-tune on, the others for alignment.

    python3 data.py ICD10_XML QUICKSTART_DATA OUT

ICD10_XML: the tabular list that `galen quickstart` fetched; QUICKSTART_DATA: its `data/` folder. A third of the sections that the
quickstart trains on is set aside, drawn by letter with a fixed seed, so that alignment sees diagnoses that fine-tuning has not.
Written into OUT:

    sft.jsonl         training rows of the other sections
    pool.jsonl        {"prompt": [user turn], "letter": L}: diagnoses of the sections set aside, evenly by letter
    validation.yaml   the quickstart's validation rows as a task, validation.questions.jsonl
    test.yaml         2,400 of the quickstart's test rows (other sections again) as a task, test.questions.jsonl
"""
import json
import random
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

LETTERS = "ACEFGHIJKLMN"
INSTRUCTION = "ICD-10-CM letter: "
POOL, QUESTIONS = 720, 2400


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def diagnosis(row):
    return row["messages"][0]["content"].removeprefix(INSTRUCTION)


def sections_of(xml):
    """Diagnosis -> its (letter, section)s."""
    by_text = {}
    for chapter in ET.parse(xml).getroot().iter("chapter"):
        if chapter.findtext("name") == "8":  # the ear shares the letter H with the eye
            continue
        for section in chapter.iter("section"):
            for diag in section.iter("diag"):
                code, text = diag.findtext("name"), diag.findtext("desc")
                if code and text and code[0] in LETTERS:
                    by_text.setdefault(text.strip(), set()).add((code[0], section.get("id")))
    return by_text


def task(template, name, questions, out):
    lines = [line for line in template.splitlines() if not line.startswith("task:")]
    text = "\n".join(lines).replace("test: test.jsonl", f"test: {questions}")
    out.write_text(f"task: {name}\n{text}\n")


def main():
    xml, data, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    out.mkdir(parents=True, exist_ok=True)
    by_text = sections_of(xml)
    train, validation, test = (rows(data / f"{name}.jsonl") for name in ("train", "validation", "test"))
    section = lambda text: {s for _, s in by_text.get(text, ())}
    held = {r["section"] for r in test}.union(*(section(diagnosis(r)) for r in validation))
    trained = {s for r in train for s in section(diagnosis(r))} - held

    draw = random.Random(0)
    aside = set()
    for letter in LETTERS:
        of_letter = sorted({s for places in by_text.values() for l, s in places if l == letter} & trained)
        draw.shuffle(of_letter)
        aside.update(of_letter[: max(1, len(of_letter) // 3)])
    write(out / "sft.jsonl", [r for r in train if not section(diagnosis(r)) & aside])

    seen = {diagnosis(r) for r in train}
    pool = {letter: [] for letter in LETTERS}
    for text, places in sorted(by_text.items()):
        if len({l for l, _ in places}) == 1 and {s for _, s in places} <= aside and text not in seen:
            pool[next(iter(places))[0]].append(text)
    chosen = [(letter, text) for letter, texts in pool.items()
              for text in draw.sample(texts, min(POOL // len(LETTERS), len(texts)))]
    draw.shuffle(chosen)
    write(out / "pool.jsonl", [{"prompt": [{"role": "user", "content": INSTRUCTION + text}], "letter": letter}
                               for letter, text in chosen])

    template = (data / "icd10_letter_full.yaml").read_text()
    write(out / "validation.questions.jsonl",
          [{"prompt": r["messages"][0]["content"], "letter": r["messages"][1]["content"]} for r in validation])
    task(template, "validation", "validation.questions.jsonl", out / "validation.yaml")
    drawn = sorted(draw.sample(range(len(test)), min(QUESTIONS, len(test))))
    write(out / "test.questions.jsonl", [test[i] for i in drawn])
    task(template, "clinical", "test.questions.jsonl", out / "test.yaml")
    n = sum(1 for _ in open(out / "sft.jsonl"))
    print(f"{n} rows to fine-tune on, {len(chosen)} prompts of {len(aside)} sections set aside, {len(drawn)} questions")


if __name__ == "__main__":
    main()
