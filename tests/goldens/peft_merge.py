"""PEFT's `add_weighted_adapter` on small adapters of a tiny model: what `galen merge` is held against.

Usage: peft_merge.py   (needs torch==2.15.0, transformers==5.23.0, peft==0.21.2; reads tiny/llama_tied)

Writes peft_merge.safetensors. Three adapters over q_proj, v_proj and down_proj of both blocks of `llama_tied`, their matrices
normal numbers: `one` (r 4, alpha 8), `two` (r 4, alpha 3, rsLoRA), `three` (r 2, alpha 2; cat and svd alone). Keys:
`<adapter>.<layer>.<module>.A` and `.B` f32 for the adapters, `<method>.<layer>.<module>.A` and `.B` for results; for methods
that end in svd `.BA` [out, in], as the factors' signs are free. A method's name carries its options: `ties_frequency`,
`cat_three`, `svd_rank3`. dare's masks are random, so it stands here at density 1.
"""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent
MODULES = ["self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"]
ADAPTERS = {
    "one": dict(r=4, lora_alpha=8),
    "two": dict(r=4, lora_alpha=3, use_rslora=True),
    "three": dict(r=2, lora_alpha=2),
}
PAIR, TRIPLE = (["one", "two"], [0.7, -0.4]), (["one", "two", "three"], [0.7, -0.4, 1.5])
CASES = {
    "linear": (PAIR, dict(combination_type="linear")),
    "cat": (PAIR, dict(combination_type="cat")),
    "cat_three": (TRIPLE, dict(combination_type="cat")),
    "svd": (PAIR, dict(combination_type="svd")),
    "svd_rank3": (TRIPLE, dict(combination_type="svd", svd_rank=3)),
    "ties": (PAIR, dict(combination_type="ties", density=0.5)),
    "ties_frequency": (PAIR, dict(combination_type="ties", density=0.8, majority_sign_method="frequency")),
    "ties_svd": (TRIPLE, dict(combination_type="ties_svd", density=0.4)),
    "dare_linear": (PAIR, dict(combination_type="dare_linear", density=1.0)),
    "dare_ties": (PAIR, dict(combination_type="dare_ties", density=1.0)),
    "dare_linear_svd": (PAIR, dict(combination_type="dare_linear_svd", density=1.0)),
    "dare_ties_svd": (PAIR, dict(combination_type="dare_ties_svd", density=1.0)),
    "magnitude_prune": (PAIR, dict(combination_type="magnitude_prune", density=0.3)),
    "magnitude_prune_svd": (PAIR, dict(combination_type="magnitude_prune_svd", density=0.3)),
}


def main():
    torch.manual_seed(11)
    model = AutoModelForCausalLM.from_pretrained(HERE / "tiny" / "llama_tied", dtype=torch.float32)
    config = lambda name: LoraConfig(target_modules=[m.split(".")[-1] for m in MODULES], **ADAPTERS[name])
    model = get_peft_model(model, config("one"), adapter_name="one")
    for name in ["two", "three"]:
        model.add_adapter(name, config(name))
    out = {}
    layers = model.base_model.model.model.layers

    def record(name, product=False):
        for i, layer in enumerate(layers):
            for module in MODULES:
                target = layer.get_submodule(module)
                a, b = target.lora_A[name].weight.data, target.lora_B[name].weight.data
                key = f"{name}.{i}.{module}"
                if product:
                    out[f"{key}.BA"] = (b @ a).contiguous()
                else:
                    out[f"{key}.A"], out[f"{key}.B"] = a.clone().contiguous(), b.clone().contiguous()

    for name in ADAPTERS:
        for layer in layers:
            for module in MODULES:
                target = layer.get_submodule(module)
                target.lora_A[name].weight.data.normal_(0, 0.3)
                target.lora_B[name].weight.data.normal_(0, 0.3)
        record(name)
    for name, ((adapters, weights), options) in CASES.items():
        model.add_weighted_adapter(adapters, weights, name, **options)
        record(name, product=options["combination_type"].endswith("svd"))
        model.delete_adapter(name)
    # Products are large: two of the first block are enough.
    out = {k: v for k, v in out.items() if not (k.endswith(".BA") and (".1." in k or "down" in k))}
    save_file(out, HERE / "peft_merge.safetensors")


main()
