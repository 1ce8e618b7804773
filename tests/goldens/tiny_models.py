"""Two-layer models written by transformers, their logits, and PEFT's LoRA gradients on them.

Run:      python tiny_models.py      (writes tiny/<name>/ beside this file; about 20 s)
Versions: torch 2.15.0 (CPU, f32, eager attention), transformers 5.23.0, peft 0.21.2, safetensors 0.8.0

Every norm weight is random around 1 and every bias random, weights have gain near 1 rather than the usual 0.02, so that
a forgotten norm, bias, window or rope variant moves a logit by far more than the tolerance (`assert_visible` checks).

tiny/<name>/config.json          as transformers 5 writes it (`rope_parameters`, `layer_types`)
tiny/<name>/config_legacy.json   the same in the older form that most published models have (`rope_theta`,
                                 `rope_scaling`, `rope_local_base_freq`, `sliding_window_pattern`); checked to load equal
tiny/<name>/model.safetensors    f32, Hugging Face names
tiny/<name>/golden.safetensors   (V = 200 ids)
  ids0 i32 [40], ids1 i32 [27]           two rows
  mask0 u8 [40], mask1 u8 [27]           mask[t] = 1: the loss covers the prediction OF token t (from position t - 1)
  logits0 f32 [40, V], logits1 [27, V]   base model
  lora_logits0 f32 [40, V]               with the adapter
  loss f64 [1], lora_loss f64 [1]        sum over both rows of -log p(token) / number of supervised tokens (nats)
  grad_norm f64 [1]                      global L2 norm of all lora gradients
  <module>.lora_A [r, in], .lora_B [out, r], and of lora_loss: .lora_A.grad, .lora_B.grad;
                                         <module> = model.layers.N.self_attn.q_proj ... all seven linear layers
  file metadata: r = 4, lora_alpha = 10 (scale alpha / r = 2.5)
"""
import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import (AutoConfig, AutoModelForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig,
                          LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM,
                          Qwen3Config, Qwen3ForCausalLM)

R, ALPHA = 4, 10
SIZES = dict(vocab_size=200, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=1024, bos_token_id=1, eos_token_id=2, pad_token_id=0)
# wavelengths 6 ... 6000: with these, two stay, one is interpolated, the others are divided by 8
LLAMA3 = dict(rope_type="llama3", rope_theta=20000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=128)
MODELS = {
    "llama_tied": (LlamaForCausalLM, LlamaConfig(**SIZES, tie_word_embeddings=True, rope_parameters=LLAMA3)),
    "llama_untied": (LlamaForCausalLM, LlamaConfig(**SIZES, tie_word_embeddings=False, rope_parameters=LLAMA3)),
    "mistral": (MistralForCausalLM, MistralConfig(**SIZES, tie_word_embeddings=False, sliding_window=8,
                rope_parameters=dict(rope_type="default", rope_theta=10000.0))),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SIZES, tie_word_embeddings=True,
              rope_parameters=dict(rope_type="default", rope_theta=1e6))),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SIZES, tie_word_embeddings=True, head_dim=32,
              rope_parameters=dict(rope_type="default", rope_theta=1e6))),
    "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig(
        **SIZES, tie_word_embeddings=True, head_dim=32, query_pre_attn_scalar=24, sliding_window=8,
        layer_types=["sliding_attention", "full_attention"],
        rope_parameters={"sliding_attention": dict(rope_type="default", rope_theta=100.0),
                         "full_attention": dict(rope_type="default", rope_theta=1e6)})),
}
# what to break, one at a time, to prove that each would be noticed: config changes and weights set to their neutral value
BREAK = {
    "llama_tied": [{"rope_parameters": dict(rope_type="default", rope_theta=20000.0)}, "norm.weight"],
    "llama_untied": [{"rope_parameters": dict(rope_type="default", rope_theta=20000.0)}, "norm.weight"],
    "mistral": [{"sliding_window": None}, {"sliding_window": 7}, {"sliding_window": 9}],
    "qwen2": ["q_proj.bias", "k_proj.bias", "v_proj.bias"],
    "qwen3": ["q_norm.weight", "k_norm.weight"],
    "gemma3": [{"sliding_window": 9}, {"query_pre_attn_scalar": 32}, "q_norm.weight", "k_norm.weight",
               "post_attention_layernorm.weight", "pre_feedforward_layernorm.weight", "post_feedforward_layernorm.weight",
               {"rope_parameters": {k: dict(rope_type="default", rope_theta=1e6)
                                    for k in ("sliding_attention", "full_attention")}}],
}


def randomise(model, gemma: bool) -> None:
    """Weights of gain near 1 (queries and keys more, so that attention is not flat), norms near 1, biases not near 0."""
    for name, p in model.named_parameters():
        if "norm" in name:  # Gemma stores w of (1 + w)
            p.data = torch.randn_like(p) * 0.25 + (0.0 if gemma else 1.0)
        elif name.endswith("bias"):
            p.data = torch.randn_like(p) * 0.5
        elif "embed" in name or "lm_head" in name:
            p.data = torch.randn_like(p) * (0.125 if gemma else 0.25)
        else:
            p.data = torch.randn_like(p) * p.shape[1] ** -0.5 * (1.5 if "q_proj" in name or "k_proj" in name else 1.0)


def legacy(config: dict) -> dict:
    """The form of config.json before transformers 5."""
    config = dict(config)
    rope = config.pop("rope_parameters")
    config["torch_dtype"] = config.pop("dtype")
    if config["model_type"] == "gemma3_text":
        config.pop("layer_types"), config.pop("_sliding_window_pattern")
        return config | {"rope_theta": rope["full_attention"]["rope_theta"], "rope_scaling": None,
                         "rope_local_base_freq": rope["sliding_attention"]["rope_theta"], "sliding_window_pattern": 2}
    rope = dict(rope)
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    config.pop("layer_types", None)
    return config


def nll(logits: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    logp = torch.log_softmax(logits[:-1], -1).gather(1, ids[1:, None])[:, 0]
    return -logp[mask[1:].bool()].sum()


def assert_visible(name: str, kind, model, ids: torch.Tensor, logits: torch.Tensor, gemma: bool) -> None:
    for change in BREAK[name]:
        config = model.config.to_dict() | (change if isinstance(change, dict) else {})
        other = kind._from_config(type(model.config)(**config), attn_implementation="eager").eval()
        state = {k: v.clone() for k, v in model.state_dict().items()}
        if isinstance(change, str):
            hit = [k for k in state if k.endswith(change)]
            assert hit, change
            for k in hit:
                state[k].fill_(1.0 if "norm" in change and not gemma else 0.0)
        other.load_state_dict(state)
        other.tie_weights()
        diff = (other(input_ids=ids[None]).logits[0] - logits).abs().max().item()
        print(f"  {name}: {change if isinstance(change, str) else list(change)} wrong moves a logit by {diff:.3f}")
        assert diff > 0.02, (name, change, diff)


def make(index: int, name: str, kind, config) -> None:
    torch.manual_seed(1000 + index)
    gemma = name.startswith("gemma")
    model = kind._from_config(config, attn_implementation="eager").eval()
    randomise(model, gemma)
    model.tie_weights()
    folder = Path(__file__).parent / "tiny" / name
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    old = legacy(json.loads((folder / "config.json").read_text()))
    (folder / "config_legacy.json").write_text(json.dumps(old, indent=2, sort_keys=True) + "\n")

    rows = [torch.randint(3, 200, (40,)), torch.randint(3, 200, (27,))]
    masks = [(torch.rand(len(r)) < 0.6).to(torch.uint8) for r in rows]
    for m in masks:
        m[0], m[-1] = 0, 1
    out = {}
    with torch.no_grad():
        logits = [model(input_ids=r[None]).logits[0] for r in rows]
        count = sum(int(m.sum()) for m in masks)
        loss = sum(nll(x, r, m).double() for x, r, m in zip(logits, rows, masks)) / count
        assert_visible(name, kind, model, rows[0], logits[0], gemma)
        again = AutoModelForCausalLM.from_pretrained(
            folder, config=AutoConfig.for_model(**old), attn_implementation="eager", dtype=torch.float32)
        assert torch.equal(again(input_ids=rows[0][None]).logits[0], logits[0]), "legacy config reads differently"
    for i in (0, 1):
        out |= {f"ids{i}": rows[i].int(), f"mask{i}": masks[i], f"logits{i}": logits[i]}
    out["loss"] = loss.reshape(1)

    peft = get_peft_model(model, LoraConfig(r=R, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"))
    peft.eval()
    trainable = {k: p for k, p in peft.named_parameters() if p.requires_grad}
    assert len(trainable) == 2 * 7 * 2, len(trainable)
    for p in trainable.values():
        p.data = torch.randn_like(p) * 0.1
    total = torch.zeros((), dtype=torch.float64)
    for i, (row, mask) in enumerate(zip(rows, masks)):
        x = peft(input_ids=row[None]).logits[0]
        total = total + nll(x, row, mask).double() / count
        if i == 0:
            out["lora_logits0"] = x.detach()
    total.backward()
    out["lora_loss"] = total.detach().reshape(1)
    out["grad_norm"] = torch.sqrt(sum(p.grad.double().pow(2).sum() for p in trainable.values())).reshape(1)
    for key, p in trainable.items():
        key = key.removeprefix("base_model.model.").removesuffix(".default.weight")
        out[key], out[key + ".grad"] = p.data, p.grad
    out = {k: v.contiguous() for k, v in out.items()}
    assert all(torch.isfinite(v).all() for v in out.values())
    save_file(out, folder / "golden.safetensors", metadata={"r": str(R), "lora_alpha": str(ALPHA)})
    for file in folder.iterdir():
        file.chmod(0o644)
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{name}: loss {loss.item():.6f}, with adapter {total.item():.6f}, gradient norm {out['grad_norm'].item():.6f}, "
          f"largest logit {logits[0].abs().max():.2f}, {size // 1024} KiB")


if __name__ == "__main__":
    torch.set_num_threads(1)  # one order of summation
    for index, (name, (kind, config)) in enumerate(MODELS.items()):
        make(index, name, kind, config)
