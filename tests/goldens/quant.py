"""Blocks of random bytes and what they dequantise to, for every GGUF tensor type galen reads, and one NF4 matrix.

Run:      python quant.py            (writes quant.safetensors beside this file; about 5 s)
Versions: gguf 0.19.0, numpy 2.4.6, torch 2.15.0 (CPU), bitsandbytes 0.50.2, safetensors 0.8.0

GGUF types: the bytes are random, except that the scales of a block are small normal numbers (f16, for Q8_K f32) so that
nothing overflows. `<type>.bytes` u8 [4, bytes a block], `<type>.values` f32 [4, weights a block] by `gguf.quants`, which
is written in numpy apart from ggml's C. `Q8_K`, absent from `gguf.quants`, is `d * q` (block_q8_K: f32 d, i8 q[256],
i16 sums[16]).

NF4: a normal [80, 256] matrix in blocks of 64 (320 blocks, so that the second quantisation has one full block of 256 and
one of 64), by bitsandbytes on the CPU:
  nf4.source            f32 [80, 256]   what was quantised
  nf4.codebook          f32 [16]
  nf4.codes             u8 [10240]      two weights a byte, the first in the high nibble
  nf4.absmax            f32 [320]       without double quantisation
  nf4.values            f32 [80, 256]   dequantised with nf4.absmax
  nf4.dq.codes          u8 [10240]      as nf4.codes
  nf4.dq.absmax_codes   u8 [320]        indices into nf4.dq.codebook
  nf4.dq.codebook       f32 [256]       bitsandbytes' dynamic map
  nf4.dq.absmax         f32 [2]         of the blocks of 256 of (absmax - offset)
  nf4.dq.offset         f32 [1]         mean of absmax
  nf4.dq.values         f32 [80, 256]   codebook[code] * (dq.codebook[absmax_code] * dq.absmax + dq.offset)
"""
from pathlib import Path

import bitsandbytes.functional as bnb
import gguf
import numpy as np
import torch
from gguf.quants import dequantize
from safetensors.numpy import save_file

BLOCKS = 4
# byte offsets of the f16 scales of a block, after ggml-common.h
SCALES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0],
}


def gguf_types(rng: np.random.Generator) -> dict[str, np.ndarray]:
    out = {}
    for name, offsets in SCALES.items():
        kind = gguf.GGMLQuantizationType[name]
        size = gguf.GGML_QUANT_SIZES[kind][1]
        data = rng.integers(0, 256, (BLOCKS, size), dtype=np.uint8)
        for at in offsets:
            scale = rng.uniform(0.01, 0.1, BLOCKS) * rng.choice([-1.0, 1.0], BLOCKS)
            data[:, at:at + 2] = scale.astype(np.float16).view(np.uint8).reshape(BLOCKS, 2)
        out[f"{name}.bytes"], out[f"{name}.values"] = data, dequantize(data, kind).astype(np.float32)
    plain = rng.normal(0, 3, (BLOCKS, 32)).astype(np.float32)
    plain[0, :4] = [0.0, -0.0, 6e-8, 65504.0]  # both zeros, the smallest f16 subnormal, the largest f16
    half = plain.astype(np.float16)
    out["F16.bytes"], out["F16.values"] = half.view(np.uint8), half.astype(np.float32)
    brain = (plain.view(np.uint32) >> 16).astype(np.uint16)
    out["BF16.bytes"] = brain.view(np.uint8)
    out["BF16.values"] = dequantize(out["BF16.bytes"], gguf.GGMLQuantizationType.BF16).astype(np.float32)
    d = rng.uniform(0.01, 0.1, (BLOCKS, 1)).astype(np.float32)
    q = rng.integers(-128, 128, (BLOCKS, 256), dtype=np.int8)
    sums = q.reshape(BLOCKS, 16, 16).sum(-1, dtype=np.int16)
    out["Q8_K.bytes"] = np.concatenate([d.view(np.uint8), q.view(np.uint8), sums.view(np.uint8)], axis=1)
    out["Q8_K.values"] = d * q.astype(np.float32)
    return out


def nf4() -> dict[str, np.ndarray]:
    torch.manual_seed(4)
    source = torch.randn(80, 256) * 0.05
    source[3, 64:128] = 0.0  # a block of zeros: absmax 0
    out = {"nf4.source": source}
    codes, state = bnb.quantize_4bit(source, blocksize=64, quant_type="nf4", compress_statistics=False)
    out |= {"nf4.codebook": state.code, "nf4.codes": codes.flatten(), "nf4.absmax": state.absmax,
            "nf4.values": bnb.dequantize_4bit(codes, state)}
    codes, state = bnb.quantize_4bit(source, blocksize=64, quant_type="nf4", compress_statistics=True)
    second = state.state2
    assert second.blocksize == 256, second.blocksize
    out |= {"nf4.dq.codes": codes.flatten(), "nf4.dq.absmax_codes": state.absmax, "nf4.dq.codebook": second.code,
            "nf4.dq.absmax": second.absmax, "nf4.dq.offset": state.offset.reshape(1),
            "nf4.dq.values": bnb.dequantize_4bit(codes, state)}
    # the formulas of the docstring, held against bitsandbytes
    flat = torch.stack([codes.flatten() >> 4, codes.flatten() & 15], 1).flatten().long()
    scale = second.code[state.absmax.long()] * second.absmax.repeat_interleave(256)[:320] + state.offset
    mine = (state.code[flat].reshape(320, 64) * scale[:, None]).reshape(80, 256)
    assert (mine - out["nf4.dq.values"]).abs().max() < 1e-7
    return {k: v.float().numpy() if v.is_floating_point() else v.numpy() for k, v in out.items()}


if __name__ == "__main__":
    tensors = gguf_types(np.random.default_rng(2)) | nf4()
    for name, value in tensors.items():
        assert value.dtype == np.uint8 or np.isfinite(value).all(), name
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, Path(__file__).with_name("quant.safetensors"))
    for name, value in tensors.items():
        print(f"{name:22} {value.dtype!s:8} {value.shape}")
