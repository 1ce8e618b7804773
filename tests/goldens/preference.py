"""Tokens and completion masks of preference data by TRL's own data functions.

Run:      python preference.py        (about 1 minute; reads templates/*.jinja and tokens/*.tokenizer.json)
Versions: trl 1.16.0, transformers 5.23.0, datasets 5.2.0

Writes preference.json, a list of
  {name, tokenizer (tokens/<it>.tokenizer.json), template (templates/<it>.jinja), trainer (dpo, kto), max_length, kl_batch, rows,
   sequences: [{row, half, ids, mask}], straddles: [rows whose prompt's last token TRL merged with the answer's first],
   prompts: [ids of each row's prompt alone]}
`rows` are as a JSONL file would hold them. `sequences` are what the trainer's collator gives without padding: `half` is chosen or
rejected (dpo), completion or mismatched (kto: the KL term's), `row` the number of the row after unpairing. Rows that TRL drops
since their prompt fills `max_length` have none.
"""
import json
from pathlib import Path
from types import SimpleNamespace

from datasets import Dataset
from transformers import PreTrainedTokenizerFast
from trl import DPOConfig
from trl.data_utils import unpair_preference_dataset
from trl.trainer import dpo_trainer, kto_trainer

HERE = Path(__file__).parent
SPECIAL = {"smollm2": dict(bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|endoftext|>"),
           "qwen2": dict(eos_token="<|im_end|>", pad_token="<|endoftext|>")}


def m(role: str, content: str) -> dict:
    return {"role": role, "content": content}


def u(content: str) -> dict:
    return m("user", content)


def a(content: str) -> dict:
    return m("assistant", content)


SYSTEM = m("system", "You are a careful clinical coder. Answer with one code.")
MESSAGES = [
    {"prompt": [u("What is the capital of France?")], "chosen": [a("Paris.")], "rejected": [a("It is Lyon, I think.")]},
    {"prompt": [SYSTEM, u("Acute appendicitis")], "chosen": [a("K35.80")], "rejected": [a("K35")]},
    {"prompt": [u("Hi!"), a("Hello, how can I help?"), u("Count to 3.")], "chosen": [a("1, 2, 3.")], "rejected": [a("1, 2, 4.")]},
    {"prompt": [u("Größe: 1,78 m — 你好 😀")], "chosen": [a("Ça va? 👩‍⚕️ müde.\nZeile zwei.")], "rejected": [a("日本")]},
    {"prompt": [u("What does <|im_start|>assistant\nHi<|im_end|> mean?")], "chosen": [a("It marks a turn.")], "rejected": [a("Hi<|im_end|>")]},
    {"prompt": [u("  padded  ")], "chosen": [a("trailing space \n")], "rejected": [a("none")]},
    {"prompt": [u("Say it twice")], "chosen": [a("ok ok")], "rejected": [a("ok ok")]},
    {"prompt": [u("Go on")], "chosen": [a("One."), u("And?"), a("Two.")], "rejected": [a("One."), u("And?"), a("Three.")]},
]
NEWLINE = [{"prompt": [u("Begin with an empty line")], "chosen": [a("\n\nHere.")], "rejected": [a("Here.")]}]
IMPLICIT = [{"chosen": row["prompt"] + row["chosen"], "rejected": row["prompt"] + row["rejected"]} for row in MESSAGES]
TEXTS = [
    {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
    {"prompt": "Question: Influenza\nAnswer:", "chosen": " J11.1", "rejected": " G43.909, perhaps"},
    {"prompt": "Größe: 1,78 m", "chosen": "\nÇa va? müde.", "rejected": "\n日本"},
    {"prompt": "One", "chosen": " two<|im_end|>", "rejected": " three"},
]
STRADDLING = [{"prompt": "The sky is ", "chosen": "blue.", "rejected": "green."}, {"prompt": "Answ", "chosen": "er: K35", "rejected": "ering"}]
IMPLICIT_TEXTS = [
    {"chosen": "Human: What color is the sky?\n\nAssistant: The sky is blue.", "rejected": "Human: What color is the sky?\n\nAssistant: The sky is green."},
    {"chosen": "Human: Acute appendicitis\n\nAssistant: careful", "rejected": "Human: Acute appendicitis\n\nAssistant: careless"},
    {"chosen": "Human: Hi\n\nAssistant: Hello", "rejected": "Human: Hi\n\nAssistant: Hello, how can I help?"},
    {"chosen": "Human: Hi\n\nAssistant: same", "rejected": "Human: Hi\n\nAssistant: same"},
    {"chosen": "Größe: 1,78 m — 你好", "rejected": "Größe: 1,78 m — 日本"},
]
LABELLED = [{"prompt": row["prompt"], "completion": row[half], "label": half == "chosen"}
            for i, row in enumerate(MESSAGES) for half in [("chosen", "rejected")[i % 2]]]
LABELLED_TEXTS = [{"prompt": row["prompt"], "completion": row["chosen"], "label": i % 3 != 0} for i, row in enumerate(TEXTS)]
# (name, trainer, rows, max_length, rows that the KL term rotates together)
CASES = [
    ("messages", "dpo", MESSAGES, None, None),
    ("answer begins with a newline", "dpo", NEWLINE, None, None),
    ("implicit messages", "dpo", IMPLICIT, None, None),
    ("messages, short", "dpo", MESSAGES, "short", None),
    ("texts", "dpo", TEXTS, None, None),
    ("straddling texts", "dpo", STRADDLING, None, None),
    ("implicit texts", "dpo", IMPLICIT_TEXTS, None, None),
    ("labelled", "kto", LABELLED, None, 3),
    ("labelled texts", "kto", LABELLED_TEXTS, None, 2),
    ("unpaired", "kto", MESSAGES, None, 4),
    ("unpaired, implicit", "kto", IMPLICIT, None, 4),
]
MODELS = [("smollm2", "smollm2"), ("qwen2", "qwen2_5"), ("qwen2", "qwen3")]


def tokenizer(name: str, template: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_file=str(HERE / "tokens" / f"{name}.tokenizer.json"), **SPECIAL[name],
                                   chat_template=(HERE / "templates" / f"{template}.jinja").read_text())


def unpadded(batch: dict, prefix: str = "") -> list[tuple[list[int], list[int]]]:
    out = []
    for ids, seen, mask in zip(batch[f"{prefix}input_ids"], batch[f"{prefix}attention_mask"], batch[f"{prefix}completion_mask"]):
        n = int(seen.sum())
        out.append((ids[:n].tolist(), mask[:n].tolist()))
    return out


def numbered(rows: list[dict]) -> Dataset:
    return Dataset.from_list([row | {"number": i} for i, row in enumerate(rows)])


def make(tok, trainer: str, rows: list[dict], max_length: int | None, kl_batch: int | None) -> dict:
    args = SimpleNamespace(dataset_num_proc=None, max_length=max_length, truncation_mode="keep_start", per_device_train_batch_size=kl_batch)
    if trainer == "dpo":
        fake = SimpleNamespace(_tokenizer=tok)
        data = dpo_trainer.DPOTrainer._prepare_dataset(fake, numbered(rows), tok, args, "train")
        batch = dpo_trainer.DataCollatorForPreference(pad_token_id=tok.pad_token_id, max_length=max_length).torch_call(list(data))
        found = unpadded(batch)
        halves = [("chosen", row["number"]) for row in data] + [("rejected", row["number"]) for row in data]
    else:
        data = numbered(rows)
        if "chosen" in rows[0]:  # number after unpairing, extracting as the trainer does
            data = data if "prompt" in rows[0] else data.map(kto_trainer.extract_prompt)
            data = unpair_preference_dataset(data).remove_columns("number")
            data = data.add_column("number", list(range(len(data))))
        fake = SimpleNamespace(_tokenizer=tok, calculate_KL=True, desirable_weight=1.0, undesirable_weight=1.0)
        data = kto_trainer.KTOTrainer._prepare_dataset(fake, data, tok, args, "train")
        batch = kto_trainer.DataCollatorForUnpairedPreference(pad_token_id=tok.pad_token_id, max_length=max_length).torch_call(list(data))
        found = unpadded(batch) + unpadded(batch, "KL_")
        halves = [("completion", row["number"]) for row in data] + [("mismatched", row["number"]) for row in data]
    sequences = [{"row": row, "half": half, "ids": ids, "mask": mask} for (half, row), (ids, mask) in zip(halves, found, strict=True)]
    prompts, straddles = {}, []
    for row in data:
        prompt = row["prompt"]
        ids = tok(prompt)["input_ids"] if isinstance(prompt, str) else \
            tok.apply_chat_template(prompt, tokenize=True, return_dict=True, add_generation_prompt=True)["input_ids"]
        prompts[row["number"]] = ids
        if row["prompt_ids"] != ids:
            straddles.append(row["number"])
    labels = [bool(row["label"]) for row in data] if trainer == "kto" else None
    return {"sequences": sequences, "straddles": straddles, "prompts": prompts, "labels": labels}


if __name__ == "__main__":
    assert DPOConfig.__dataclass_fields__["truncation_mode"].default == "keep_start"
    out = []
    for name, template in MODELS:
        tok = tokenizer(name, template)
        for title, trainer, rows, max_length, kl_batch in CASES:
            if max_length == "short":  # some prompts fill it, some answers are cut
                lengths = sorted(len(ids) for ids in make(tok, trainer, rows, None, kl_batch)["prompts"].values())
                max_length = lengths[len(lengths) // 2] + 3
            case = {"name": f"{template}: {title}", "tokenizer": name, "template": template, "trainer": trainer, "max_length": max_length,
                    "kl_batch": kl_batch, "rows": rows} | make(tok, trainer, rows, max_length, kl_batch)
            print(case["name"], len(case["sequences"]), "sequences; straddling", case["straddles"])
            out.append(case)
    text = ",\n".join(json.dumps(case, ensure_ascii=False) for case in out)
    (HERE / "preference.json").write_text(f"[\n{text}\n]\n")
