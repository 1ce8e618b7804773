"""mergekit's merges of the changes that three adapters make: what `galen merge` is held against beside PEFT.

Run:      python mergekit_merge.py      (reads peft_merge.safetensors and tiny/llama_tied, writes mergekit_merge.safetensors; 20 s)
Versions: mergekit 0.1.5, torch 2.15.0, transformers 5.23.0

mergekit merges whole models. Here a model's projections hold an adapter's change `scale B A` alone and everything else zeros, over a
base of zeros, so that a merged tensor is the merged change. Adapters, weights and modules are those of `peft_merge.py`
(`three` has scale 1; the magnitudes of `one` and `two` too). Each case is mergekit's own run of a configuration.

Keys: <case>.<layer>.<module> f32 [out, in], of q_proj and v_proj of the first block.
  slerp_03, slerp_1     merge_method slerp of `one` and `two`, t 0.3 and 1
  slerp_near            of `one` and 1.01 times `one` plus 0.001 of `two`: the angle is so small that mergekit interpolates
  linear                merge_method linear, weights 0.7 and -0.4, normalize false
  task_arithmetic       of all three, weights 0.7, -0.4, 1.5
  ties                  of all three, density 0.4, weights 1 (with others mergekit's mean is a weighted one, PEFT's is not)
  dare_linear           of `one` and `two` at density 1, weights 0.7 and -0.4
  dare_ties             the same with weights 1
"""
import tempfile
from pathlib import Path

import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import MergeOptions, run_merge
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent
MODULES = ["self_attn.q_proj", "self_attn.v_proj"]
SCALES = {"one": 2.0, "two": 1.5, "three": 1.0}
PAIR, TRIPLE = [("one", 0.7), ("two", -0.4)], [("one", 0.7), ("two", -0.4), ("three", 1.5)]
ALIKE = [(name, 1.0) for name, _ in TRIPLE]


def entry(folder, weight, **more):
    return {"model": str(folder), "parameters": {"weight": weight, **more}}


def configuration(case: str, folders: dict) -> dict:
    base = {"base_model": str(folders["zero"]), "dtype": "float32"}
    of = lambda weighed, **more: [entry(folders[name], weight, **more) for name, weight in weighed]
    slerp = lambda other, t: {"merge_method": "slerp", "dtype": "float32", "base_model": str(folders["one"]), "parameters": {"t": t},
                              "models": [{"model": str(folders["one"])}, {"model": str(folders[other])}]}
    sums = {"normalize": False, "int8_mask": False}
    return {
        "slerp_03": lambda: slerp("two", 0.3),
        "slerp_1": lambda: slerp("two", 1.0),
        "slerp_near": lambda: slerp("near", 0.6),
        "linear": lambda: {"merge_method": "linear", "dtype": "float32", "models": of(PAIR), "parameters": {"normalize": False}},
        "task_arithmetic": lambda: base | {"merge_method": "task_arithmetic", "models": of(TRIPLE), "parameters": sums},
        "ties": lambda: base | {"merge_method": "ties", "models": of(ALIKE, density=0.4), "parameters": {"normalize": True}},
        "dare_linear": lambda: base | {"merge_method": "dare_linear", "models": of(PAIR, density=1.0), "parameters": sums},
        "dare_ties": lambda: base | {"merge_method": "dare_ties", "models": of(ALIKE[:2], density=1.0), "parameters": {"normalize": True}},
    }[case]()


CASES = ["slerp_03", "slerp_1", "slerp_near", "linear", "task_arithmetic", "ties", "dare_linear", "dare_ties"]


def main():
    adapters = load_file(HERE / "peft_merge.safetensors")
    change = lambda name, i, m: SCALES[name] * (adapters[f"{name}.{i}.{m}.B"] @ adapters[f"{name}.{i}.{m}.A"])
    changes = {name: {(i, m): change(name, i, m) for i in range(2) for m in MODULES} for name in SCALES}
    changes["near"] = {k: 1.01 * changes["one"][k] + 0.001 * changes["two"][k] for k in changes["one"]}
    changes["zero"] = {}
    out = {}
    with tempfile.TemporaryDirectory() as scratch:
        folders = {}
        for name, of in changes.items():
            model = AutoModelForCausalLM.from_pretrained(HERE / "tiny" / "llama_tied", dtype=torch.float32)
            for p in model.parameters():
                p.data.zero_()
            for (i, m), value in of.items():
                model.model.layers[i].get_submodule(m).weight.data.copy_(value)
            folders[name] = Path(scratch) / name
            model.save_pretrained(folders[name])
        for case in CASES:
            config = MergeConfiguration.model_validate(yaml.safe_load(yaml.safe_dump(configuration(case, folders))))
            target = Path(scratch) / f"out_{case}"
            run_merge(config, str(target), MergeOptions(copy_tokenizer=False, quiet=True))
            merged = load_file(next(target.glob("*.safetensors")))
            for i in range(1):
                for m in MODULES:
                    out[f"{case}.{i}.{m}"] = merged[f"model.layers.{i}.{m}.weight"].float().contiguous()
            print(case, float(out[f"{case}.0.self_attn.q_proj"].norm()))
    save_file(out, HERE / "mergekit_merge.safetensors")


if __name__ == "__main__":
    main()
