"""Writes harness.json: what lm-evaluation-harness itself asks of a model, and what it makes of the answers, for a few
small tasks and a model that answers by hash. The test `harness` holds galen to every prompt, score and error bar.

    pip install lm_eval datasets && python harness.py
"""

import hashlib
import json
import pathlib
import tempfile

import datasets
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate

datasets.disable_progress_bars()


def number(*texts):
    return int.from_bytes(hashlib.sha256("\0".join(texts).encode()).digest()[:4], "big")


class Hash(LM):
    tokenizer_name = "hash"

    def __init__(self):
        super().__init__()
        self.asked = []

    def loglikelihood(self, requests, **_):
        self.asked += [list(r.args) for r in requests]
        n = [number(*r.args) for r in requests]
        return [(-10.0 * x / 2**32, x % 2 == 0) for x in n]

    def generate_until(self, requests, **_):
        self.asked += [[r.args[0]] for r in requests]
        return [f"so the ANSWER is {number(r.args[0]) % 3}, or {number(r.args[0]) % 5}." for r in requests]

    def loglikelihood_rolling(self, requests, **_):
        raise NotImplementedError

    def apply_chat_template(self, messages, add_generation_prompt=True):
        turns = "".join(f"<{m['role']}>{m['content']}" for m in messages)
        return turns + ("<assistant>" if add_generation_prompt else "")


QA = [{"q": f"Question {i}? ", "opts": [f"ä{i}", f"longer text {i}", "it's"], "label": (i * 7) % 3, "word": f"w{i % 3}",
       "answer": i % 3, "many": [i % 3, (i + 1) % 3]} for i in range(20)]
DEV = [{"q": f"Example {i}?", "opts": [f"a{i}", f"b{i}", f"c{i}"], "label": i % 3, "word": f"w{i % 3}", "answer": i % 3,
        "many": [0, 1]} for i in range(26)]

CHOICE = {"output_type": "multiple_choice", "doc_to_text": "Q: {{q.strip()}}\nA:", "doc_to_choice": "opts", "doc_to_target": "label",
          "metric_list": [{"metric": m, "aggregation": "mean", "higher_is_better": True}
                          for m in ("acc", "acc_norm", "acc_bytes", "exact_match")]}
TEXT = {"output_type": "generate_until", "doc_to_text": "q", "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "ignore_case": True,
                         "ignore_punctuation": True}],
        "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": 8}}
TAKE = {"function": "take_first"}
CASES = {
    "plain": (CHOICE, {}),
    "shots": ({**CHOICE, "fewshot_split": "dev", "num_fewshot": 3, "description": "All about {{word}}.\n\n"}, {}),
    "shots_of_many": ({**CHOICE, "fewshot_split": "dev", "num_fewshot": 7, "fewshot_config": {"sampler": "default"}}, {}),
    "first_n": ({**CHOICE, "fewshot_split": "dev", "num_fewshot": 2, "fewshot_config": {"sampler": "first_n"},
                 "fewshot_delimiter": "\n--\n", "target_delimiter": "\n"}, {}),
    "same_split": ({**CHOICE, "fewshot_split": "test", "num_fewshot": 4}, {}),
    "samples": ({**CHOICE, "num_fewshot": 1,
                 "fewshot_config": {"sampler": "first_n", "samples": [{"q": "S?", "opts": ["x", "y"], "label": 1, "word": "w"}]}}, {}),
    "labels_as_template": ({**CHOICE, "doc_to_choice": "{{opts}}", "doc_to_target": "{{label}}"}, {}),
    "labels_as_text": ({**CHOICE, "doc_to_choice": ["w0", "w1", "w2"], "doc_to_target": "word"}, {}),
    "index_by_template": ({**CHOICE, "doc_to_choice": "{{[opts[0], opts[1], word]}}", "doc_to_target": "{{[0, 1, 2].index(label)}}"}, {}),
    "several_right": ({**CHOICE, "doc_to_target": "many"}, {}),
    "contexts": ({**CHOICE, "doc_to_text": "label", "doc_to_target": "{{word}}", "num_fewshot": 2, "fewshot_split": "dev"}, {}),
    "prefix": ({**CHOICE, "gen_prefix": "I say", "num_fewshot": 1, "fewshot_split": "dev"}, {}),
    "chat": ({**CHOICE, "description": "Be exact."}, {"apply_chat_template": True, "system_instruction": "You know."}),
    "chat_turns": ({**CHOICE, "fewshot_split": "dev", "num_fewshot": 2, "description": "D"},
                   {"apply_chat_template": True, "fewshot_as_multiturn": True}),
    "chat_single": ({**CHOICE, "fewshot_split": "dev", "num_fewshot": 2},
                    {"apply_chat_template": True, "fewshot_as_multiturn": False, "system_instruction": "S"}),
    "chat_prefix": ({**CHOICE, "gen_prefix": "Answer:", "fewshot_split": "dev", "num_fewshot": 1},
                    {"apply_chat_template": True, "fewshot_as_multiturn": True}),
    "text": (TEXT, {}),
    "text_shots": ({**TEXT, "fewshot_split": "dev", "num_fewshot": 5}, {}),
    "text_filters": ({**TEXT, "filter_list": [
        {"name": "first", "filter": [{"function": "regex", "regex_pattern": "[0-9]+"}, TAKE]},
        {"name": "last", "filter": [{"function": "regex", "regex_pattern": "([0-9])(,)|([0-9])\\.", "group_select": -1}, TAKE]},
        {"name": "none-found", "filter": [{"function": "regex", "regex_pattern": "x([0-9])", "fallback": "1"}, TAKE]},
        {"name": "mapped", "filter": [{"function": "regex", "regex_pattern": "ANSWER"}, {"function": "lowercase"},
                                      {"function": "map", "mapping_dict": {"answer": "2"}, "default_value": "0"}, TAKE]}]}, {}),
    "text_of_many": ({**TEXT, "doc_to_target": "{{[answer|string, 'so the answer is 1 or 1']}}"}, {}),
}

out = []
with tempfile.TemporaryDirectory() as folder:
    files = {}
    for split, rows in (("test", QA), ("dev", DEV)):
        files[split] = str(pathlib.Path(folder) / f"{split}.jsonl")
        pathlib.Path(files[split]).write_text("".join(json.dumps(r) + "\n" for r in rows))
    for name, (config, options) in CASES.items():
        config = {"task": name, "dataset_path": "json", "test_split": "test", "num_fewshot": 0, **config}
        task = ConfigurableTask(config={**json.loads(json.dumps(config)), "dataset_kwargs": {"data_files": files}})
        task.set_fewshot_seed(seed=1234)
        lm = Hash()
        result = evaluate(lm, {name: task}, limit=None, bootstrap_iters=10, log_samples=True, **options)
        numbers = {k: v for k, v in result["results"][name].items() if "," in k}
        hashes = [s["doc_hash"] for s in result["samples"][name] if s["filter"] == result["samples"][name][0]["filter"]]
        out.append({"config": config, "options": options, "asked": lm.asked, "results": numbers, "doc_hash": hashes[0]})

golden = {"test": QA, "dev": DEV, "cases": out}
path = pathlib.Path(__file__).with_name("harness.json")
path.write_text(json.dumps(golden, ensure_ascii=False) + "\n")
print(len(out), "cases", path.stat().st_size, "bytes")
