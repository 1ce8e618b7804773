"""Every prompt template that comes with galen, rendered by Jinja2: prompts.json, which `tests/prompts.rs` holds galen's rendering against.

    python3 prompts.py          (needs jinja2)
"""
import json
from pathlib import Path

import jinja2

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
FOLDERS = {"prompts/synth": "", "recipes/clinical/synth/prompts": "clinical:"}

ROW = {
    "instruction": "Name a cause of fever.", "text": "Leprosy [Hansen's disease]", "code": "A30",
    "includes": ["infection due to Mycobacterium leprae", "Hansen's disease", "third"],
    "choices": "A. Leprosy\nB. Plague\nC. Cholera\nD. Typhoid fever",
}
PLAIN = {
    "row": ROW, "id": "A30", "args": {}, "text": "A man has a cough & fever.", "style": "in plain words",
    "instruction": "Make it shorter.", "instructions": ["Name a cause of fever.", "List two drugs."], "n": 1,
    "chunk": "Fever is a sign.\n\nIt has causes.", "question": "What is fever?", "answer": "A sign.", "number": "1",
    "rubric": "Is it correct?", "low": 1.0, "high": 5.0, "choices": [], "options": ["Leprosy", "Plague"], "letters": ["A", "B"], "first": "It is a sign.", "second": "No.",
}
CASES = {
    "plain": PLAIN,
    "more": PLAIN | {"n": 3, "number": "2", "style": "", "choices": ["A", "B"], "row": ROW | {"includes": []},
                     "instructions": ["One only."]},
}


def main():
    out = []
    for folder, prefix in FOLDERS.items():
        loader = jinja2.FileSystemLoader(ROOT / folder)
        env = jinja2.Environment(loader=loader, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
        for name in sorted(env.list_templates(extensions=["jinja"])):
            for case, variables in CASES.items():
                out.append({"template": prefix + name, "case": case, "text": env.get_template(name).render(**variables)})
    lines = ",\n".join(json.dumps(o) for o in out)
    cases = json.dumps(CASES)
    (HERE / "prompts.json").write_text(f'{{"cases": {cases},\n"rendered": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
