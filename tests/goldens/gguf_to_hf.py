"""Dequantises a GGUF (SmolLM2 or Gemma 3 text) into a Hugging Face directory, so that peers compute on the same weights.

Run:      python gguf_to_hf.py FILE.gguf OUT_DIR      (f32; 10-60 s)
Versions: torch 2.15.0, transformers 5.23.0, gguf 0.19.0, tokenizers 0.23.3

What transformers' loader does not know is set here, and what it should know is asserted:
- SmolLM2: `tokenizer.ggml.pre = smollm` splits digits one by one; the loader drops that.
- Gemma 3: the GGUF holds 1 + w of every norm, transformers wants w; the local rope base (10,000), the layer pattern (every
  sixth layer is full attention), the query scale (head_dim ** -0.5) and the activation (tanh GELU) are not in the file.
"""
import sys
from pathlib import Path

import gguf
import torch
from gguf.quants import dequantize
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer


def tensor(reader: gguf.GGUFReader, name: str) -> torch.Tensor:
    found = next(t for t in reader.tensors if t.name == name)
    return torch.from_numpy(dequantize(found.data, found.tensor_type).copy()).float()


def check_gemma(model, reader: gguf.GGUFReader) -> None:
    config, state = model.config, model.state_dict()
    assert config.model_type == "gemma3_text" and config.tie_word_embeddings
    assert config.rope_parameters["full_attention"] == {"rope_type": "default", "rope_theta": 1e6}, config.rope_parameters
    assert config.rope_parameters["sliding_attention"] == {"rope_type": "default", "rope_theta": 1e4}
    assert [i for i, t in enumerate(config.layer_types) if t == "full_attention"] == [5, 11, 17]
    assert config.sliding_window == 512 and config.head_dim == 256 and config.query_pre_attn_scalar == 256
    assert config.hidden_activation == "gelu_pytorch_tanh" and abs(config.rms_norm_eps - 1e-6) < 1e-12
    assert config.final_logit_softcapping is None and config.attn_logit_softcapping is None
    norms = {"output_norm": "norm", "blk.7.attn_norm": "layers.7.input_layernorm",
             "blk.7.attn_q_norm": "layers.7.self_attn.q_norm", "blk.7.attn_k_norm": "layers.7.self_attn.k_norm",
             "blk.7.post_attention_norm": "layers.7.post_attention_layernorm",
             "blk.7.ffn_norm": "layers.7.pre_feedforward_layernorm",
             "blk.7.post_ffw_norm": "layers.7.post_feedforward_layernorm"}
    for ours, theirs in norms.items():
        difference = (tensor(reader, ours + ".weight") - 1 - state[f"model.{theirs}.weight"]).abs().max()
        assert difference == 0, (ours, difference)
    for ours, theirs in {"token_embd": "embed_tokens", "blk.3.attn_k": "layers.3.self_attn.k_proj",
                         "blk.3.ffn_down": "layers.3.mlp.down_proj"}.items():
        assert torch.equal(tensor(reader, ours + ".weight"), state[f"model.{theirs}.weight"]), ours
    scale = model.model.embed_tokens.embed_scale.item()
    assert abs(scale - 640 ** 0.5) < 1e-5, scale


def main(path: Path, out: Path) -> None:
    reader = gguf.GGUFReader(path)
    architecture = reader.fields["general.architecture"].contents()
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    if architecture == "gemma3":
        check_gemma(model, reader)
    elif reader.fields["tokenizer.ggml.pre"].contents() == "smollm":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    else:
        sys.exit(f"{path}: `{architecture}` is not one of the files the goldens use")
    config = model.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        config.pop(key, None)
    plain = type(model)(type(model.config)(**config))
    plain.load_state_dict(model.state_dict())
    plain.tie_weights()
    plain.save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
