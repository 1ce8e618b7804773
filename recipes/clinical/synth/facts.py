"""The ICD-10-CM list as facts for `galen synth`: names, notes and hierarchy, sections held out of the examination left out.

    python3 facts.py ICD10_XML OUT.jsonl [QUESTIONS.jsonl ...]

Each line is a chapter, section, or diagnosis: `code`, `parent` (the code above it), `text`, `letter`, `section`, `chapter`,
`includes` and `excludes` (lists of notes), `leaf` (whether anything is below it). Sections that a question of QUESTIONS comes from
(its `section`, or its text's) are left out whole: no fact about them may reach training.
"""
import json
import sys
import xml.etree.ElementTree as ET

INSTRUCTION = "ICD-10-CM letter: "


def notes(node, *tags):
    return [" ".join(n.text.split()) for tag in tags for n in node.findall(f"{tag}/note") if n.text]


def text_of(node):
    return " ".join((node.findtext("desc") or "").split())


def main():
    xml, out, questions = sys.argv[1], sys.argv[2], sys.argv[3:]
    chapters = ET.parse(xml).getroot().findall("chapter")
    of_text = {}
    for chapter in chapters:
        for section in chapter.iter("section"):
            for diag in section.iter("diag"):
                of_text.setdefault(text_of(diag), set()).add(section.get("id"))
    held = set()
    for path in questions:
        for line in open(path):
            row = json.loads(line)
            text = row.get("diagnosis") or row["prompt"].removeprefix(INSTRUCTION)
            held |= {row["section"]} if "section" in row else of_text.get(text, set())
    written = 0
    with open(out, "w") as file:

        def put(**fact):
            nonlocal written
            written += 1
            file.write(json.dumps(fact, ensure_ascii=False) + "\n")

        def walk(diag, parent, section, chapter):
            code, below = diag.findtext("name"), diag.findall("diag")
            put(code=code, parent=parent, text=text_of(diag), letter=code[0], section=section, chapter=chapter,
                includes=notes(diag, "inclusionTerm", "includes"), excludes=notes(diag, "excludes1", "excludes2"),
                leaf=not below)
            for child in below:
                walk(child, code, section, chapter)

        for chapter in chapters:
            number = chapter.findtext("name")
            if number == "8":  # the ear shares the letter H with the eye
                continue
            name = f"chapter {number}"
            put(code=name, parent=None, text=text_of(chapter).split(" (")[0], letter=None, section=None, chapter=name,
                includes=[], excludes=[], leaf=False)
            for section in chapter.findall("section"):
                ident = section.get("id")
                if ident in held or not section.findall("diag"):
                    continue
                # A section of one category has its name: `B10`.
                above = f"section {ident}"
                put(code=above, parent=name, text=text_of(section).split(" (")[0], letter=None, section=ident, chapter=name,
                    includes=[], excludes=[], leaf=False)
                for diag in section.findall("diag"):
                    walk(diag, above, ident, name)
    print(f"{written} facts, {len(held)} sections held out", file=sys.stderr)


if __name__ == "__main__":
    main()
