"""Token ids of 200 texts for nine vocabularies, and each vocabulary cut down to what those texts need.

Run:      python tokens.py MODELS_DIR SMOLLM2_HF_DIR VOCAB_DIR       (about 1 minute)
            MODELS_DIR      SmolLM2-135M-Instruct.Q4_1.gguf and gemma-3-270m-Q4_K_M.gguf
            SMOLLM2_HF_DIR  made by gguf_to_hf.py
            VOCAB_DIR       vendor/llama.cpp/models of llama-cpp-python 0.3.36's source distribution (MIT)
Versions: tokenizers 0.23.3, sentencepiece 0.2.3, gguf 0.19.0

The reference is `tokenizers` for byte-level BPE (pre-tokenizers written here as each model's tokenizer.json has them) and
Google's sentencepiece, on a model rebuilt from the GGUF's pieces, for SentencePiece BPE. Both are held against llama.cpp's own
goldens (VOCAB_DIR/*.inp, *.out) where there are any.

Writes into tokens/:
  texts.json        the texts of token_texts.py
  <name>.json       {source, model, pre, reference, ids: [[...] a text], id_map: [full id of each id of the small vocabulary]}
                    `ids` are those of the full vocabulary, without BOS/EOS; special tokens written in a text become their ids
  <name>.gguf       the small vocabulary: a GGUF without tensors that gives, on these texts, `ids` after `id_map`: only tokens and
                    merges that the texts use, all bytes, all special tokens but numbered reserved ones. Order and scores as
                    in the full one. (smollm2's also serves the cases of templates/cases.json, so run templates.py first.) Dropping a merge that is never the best of its moment changes nothing (asserted).
  <name>.tokenizer.json   for smollm2 and qwen2, the same small vocabulary in Hugging Face's form
"""
import json
import re
import sys
from pathlib import Path

import gguf
import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from token_texts import TEXTS

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
OUT = Path(__file__).parent / "tokens"
GPT4 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def splits(*patterns: str) -> pre_tokenizers.PreTokenizer:
    parts = [pre_tokenizers.Split(Regex(p), "isolated") for p in patterns]
    return pre_tokenizers.Sequence([*parts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def digits_gpt2() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])


# `tokenizer.ggml.pre` -> (pre-tokenizer, normaliser, whole words of the vocabulary skip the merges)
PRE = {
    "smollm": (digits_gpt2, None, False),
    "starcoder": (digits_gpt2, None, False),
    "refact": (digits_gpt2, None, False),
    "gpt-2": (lambda: pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True), None, False),
    "llama-bpe": (lambda: splits(GPT4 % "{1,3}"), None, True),
    "qwen2": (lambda: splits(GPT4 % ""), normalizers.NFC, False),
    "deepseek-coder": (lambda: pre_tokenizers.Sequence([
        *(pre_tokenizers.Split(Regex(p), "isolated") for p in (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+")),
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]),
        None, False),
}


class Vocab:
    """A vocabulary as a GGUF holds it."""

    def __init__(self, path: Path):
        fields = gguf.GGUFReader(path).fields

        def get(key, default=None):
            return fields[f"tokenizer.ggml.{key}"].contents() if f"tokenizer.ggml.{key}" in fields else default
        self.source, self.architecture = path.name, fields["general.architecture"].contents()
        self.model, self.pre = get("model"), get("pre", "default")
        self.tokens, self.types = get("tokens"), get("token_type")
        self.scores, self.merges = get("scores"), get("merges", [])
        self.special_ids = {k: get(f"{k}_token_id") for k in ("bos", "eos", "unknown", "padding")}
        self.flags = {k: get(k) for k in ("add_bos_token", "add_eos_token", "add_space_prefix")}

    def subset(self, keep: set[int], merges: list[str]) -> tuple["Vocab", list[int]]:
        """The vocabulary of the ids in `keep`, and their full ids."""
        other, ids = object.__new__(Vocab), sorted(keep)
        new = {old: i for i, old in enumerate(ids)}
        other.__dict__ = self.__dict__ | {
            "tokens": [self.tokens[i] for i in ids], "types": [self.types[i] for i in ids],
            "scores": [self.scores[i] for i in ids] if self.scores else None, "merges": merges,
            "special_ids": {k: new.get(v) for k, v in self.special_ids.items()}}
        return other, ids

    def write(self, path: Path) -> None:
        w = gguf.GGUFWriter(path, self.architecture)
        w.add_name(f"{path.stem}, the part of its vocabulary that the goldens use")
        w.add_tokenizer_model(self.model)
        w.add_tokenizer_pre(self.pre)
        w.add_token_list(self.tokens)
        w.add_token_types(self.types)
        if self.scores:
            w.add_token_scores(self.scores)
        if self.merges:
            w.add_token_merges(self.merges)
        for key, value in self.special_ids.items():
            if value is not None:
                w.add_uint32(f"tokenizer.ggml.{key}_token_id", value)
        for key, value in self.flags.items():
            if value is not None:
                w.add_bool(f"tokenizer.ggml.{key}", value)
        w.write_header_to_file()
        w.write_kv_data_to_file()
        w.close()


def bpe(v: Vocab) -> Tokenizer:
    pre, normalizer, whole_words = PRE[v.pre]
    # token strings are unique in a byte-level vocabulary but for padding entries
    vocab = {t: i for i, t in reversed(list(enumerate(v.tokens)))}
    t = Tokenizer(models.BPE(vocab=vocab, merges=[tuple(m.split(" ")) for m in v.merges], ignore_merges=whole_words))
    t.pre_tokenizer, t.decoder = pre(), decoders.ByteLevel()
    if normalizer:
        t.normalizer = normalizer()
    t.add_special_tokens([AddedToken(x, normalized=False, special=True) for x, k in zip(v.tokens, v.types) if k == CONTROL])
    t.add_tokens([AddedToken(x, normalized=False, special=False) for x, k in zip(v.tokens, v.types) if k == USER])
    return t


def field(number: int, value) -> bytes:
    """One protobuf field."""
    def varint(n: int) -> bytes:
        out = bytearray()
        while n > 127:
            out.append(n & 127 | 128)
            n >>= 7
        return bytes(out + bytes([n]))
    if isinstance(value, float):
        import struct
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


class Spm:
    """Google's sentencepiece over the pieces of a GGUF; control tokens are cut out of the text first."""

    def __init__(self, v: Vocab):
        self.prefix = v.flags["add_space_prefix"] is not False
        pieces = b"".join(
            field(1, field(1, t.replace(" ", "▁") if k == USER else t) + field(2, float(s)) + field(3, k))
            for t, s, k in zip(v.tokens, v.scores, v.types))
        # trainer: BPE, byte fallback, ids of unk, bos, eos, pad; normaliser: identity
        index = {t: i for i, t in enumerate(v.tokens)}
        trainer = field(3, 2) + field(4, len(v.tokens)) + field(35, 1) + field(40, index["<unk>"])
        for number, name in ((41, "<s>" if "<s>" in index else "<bos>"), (42, "</s>" if "</s>" in index else "<eos>"), (43, "<pad>")):
            trainer += field(number, index[name]) if name in index else b""
        trainer += field(46, "<s>" if "<s>" in index else "<bos>") + field(47, "</s>" if "</s>" in index else "<eos>")
        normalizer = field(1, "identity") + field(3, int(self.prefix)) + field(4, 0) + field(5, 1)
        self.model = sentencepiece.SentencePieceProcessor(
            model_proto=pieces + field(2, trainer) + field(3, normalizer))
        self.control = {t: i for i, (t, k) in enumerate(zip(v.tokens, v.types)) if k in (CONTROL, UNKNOWN)}
        self.cut = re.compile("(" + "|".join(map(re.escape, sorted(self.control, key=len, reverse=True))) + ")")

    def encode(self, text: str) -> list[int]:
        ids = []
        for part in self.cut.split(text):
            ids += [self.control[part]] if part in self.control else self.model.encode(part) if part else []
        return ids


def merge_trace(symbols: list[str], rank) -> tuple[list[str], list[tuple[str, str]]]:
    """BPE by the book: the best-ranked neighbouring pair (then the leftmost) is joined until none is left."""
    used = []
    while True:
        ranked = [(rank(a, b), i) for i, (a, b) in enumerate(zip(symbols, symbols[1:])) if rank(a, b) is not None]
        if not ranked:
            return symbols, used
        i = min(ranked)[1]
        used.append((symbols[i], symbols[i + 1]))
        symbols = symbols[:i] + [symbols[i] + symbols[i + 1]] + symbols[i + 2:]


def always(v: Vocab) -> set[int]:
    reserved = re.compile(r"<unused\d+>|<\|reserved_special_token_\d+\|>|<jupyter\w+>|<extra_id_\d+>")
    kinds = (UNKNOWN, CONTROL, USER, BYTE)
    keep = {i for i, (t, k) in enumerate(zip(v.tokens, v.types)) if k in kinds and (not reserved.fullmatch(t) or t == "<unused7>")}
    return keep | {i for i in v.special_ids.values() if i is not None}


def small_bpe(v: Vocab, full: Tokenizer, texts: list[str], ids: list[list[int]]) -> tuple[Vocab, list[int]]:
    index = {t: i for i, t in reversed(list(enumerate(v.tokens)))}
    ranks = {m: i for i, m in enumerate(v.merges)}
    keep, used = always(v) | {i for row in ids for i in row}, set()
    keep |= {index[c] for c in pre_tokenizers.ByteLevel.alphabet() if c in index}
    added = sorted((t for t, k in zip(v.tokens, v.types) if k in (CONTROL, USER)), key=len, reverse=True)
    cut = re.compile("|".join(map(re.escape, added)))
    words = set()
    for text in texts:
        for part in cut.split(text):
            part = full.normalizer.normalize_str(part) if full.normalizer else part
            words |= {w for w, _ in full.pre_tokenizer.pre_tokenize_str(part)}
    for word in words:
        for a, b in merge_trace(list(word), lambda a, b: ranks.get(f"{a} {b}"))[1]:
            used.add(ranks[f"{a} {b}"])
            keep |= {index[a], index[b], index[a + b]}
    return v.subset(keep, [v.merges[i] for i in sorted(used)])


def small_spm(v: Vocab, texts: list[str], ids: list[list[int]]) -> tuple[Vocab, list[int]]:
    index = {t: i for i, t in enumerate(v.tokens)}
    normal = {t: -s for t, s, k in zip(v.tokens, v.scores, v.types) if k == NORMAL}
    keep = always(v) | {i for row in ids for i in row}
    frozen = sorted((t.replace(" ", "▁") for t, k in zip(v.tokens, v.types) if k in (CONTROL, USER)), key=len, reverse=True)
    cut = re.compile("|".join(map(re.escape, frozen)))
    for text in texts:
        for part in cut.split("▁" + text.replace(" ", "▁")) + cut.split(text.replace(" ", "▁")):
            keep |= {index[c] for c in part if c in index}
            # words are independent but for pieces that have the mark inside, which are rare: keep whole parts short
            for word in re.findall(r"▁*[^▁]+|▁+", part):
                for a, b in merge_trace(list(word), lambda a, b: normal.get(a + b))[1]:
                    keep |= {index[a], index[b], index[a + b]}
    return v.subset(keep, [])


def llama_cpp_goldens(folder: Path, name: str, encode) -> str:
    """Compares with `.inp`/`.out`; returns a note."""
    inp = folder / f"ggml-vocab-{name}.gguf.inp"
    if not inp.exists():
        return ""
    texts = inp.read_bytes().decode().split("\n__ggml_vocab_test__\n")
    outs = (folder / f"ggml-vocab-{name}.gguf.out").read_text().split("\n")
    wrong = [t for t, o in zip(texts, outs) if encode(t) != [int(x) for x in o.split()]]
    print(f"  {name}: llama.cpp's goldens: {len(texts) - len(wrong)} of {len(texts)} equal {wrong}")
    assert not wrong, name
    return f"; equal to llama.cpp's {len(texts)} goldens"


def make(name: str, v: Vocab, folder: Path, full=None, also=()) -> None:
    is_spm = v.model == "llama"
    full = full or (Spm(v) if is_spm else bpe(v))
    encode = full.encode if is_spm else lambda t: full.encode(t, add_special_tokens=False).ids
    note = llama_cpp_goldens(folder, name, encode)
    texts = TEXTS + list(also)
    ids = [encode(t) for t in texts]
    small, id_map = small_spm(v, texts, ids) if is_spm else small_bpe(v, full, texts, ids)
    again = Spm(small) if is_spm else bpe(small)
    for text, want in zip(texts, ids):
        got = again.encode(text) if is_spm else again.encode(text, add_special_tokens=False).ids
        assert [id_map[i] for i in got] == want, (name, text, [small.tokens[i] for i in got], [v.tokens[i] for i in want])
    ids = ids[:len(TEXTS)]
    small.write(OUT / f"{name}.gguf")
    if name in ("smollm2", "qwen2"):
        again.save(str(OUT / f"{name}.tokenizer.json"), pretty=False)
    reference = ("sentencepiece 0.2.3" if is_spm else "tokenizers 0.23.3") + note
    head = {"source": v.source, "model": v.model, "pre": v.pre, "reference": reference}
    (OUT / f"{name}.json").write_text(json.dumps(head | {"ids": ids, "id_map": id_map}, separators=(",", ":")) + "\n")
    print(f"{name}: {sum(map(len, ids))} tokens; small vocabulary {len(id_map)} of {len(v.tokens)}, {len(small.merges)} merges, "
          f"{(OUT / f'{name}.gguf').stat().st_size // 1024} KiB", flush=True)


if __name__ == "__main__":
    models_dir, smollm2, vocabs = map(Path, sys.argv[1:4])
    OUT.mkdir(exist_ok=True)
    (OUT / "texts.json").write_text(json.dumps(TEXTS, indent=0) + "\n")
    full = Tokenizer.from_file(str(smollm2 / "tokenizer.json"))
    cases = json.loads((OUT.parent / "templates" / "cases.json").read_text())
    chats = [c["rendered"] for c in cases if c["template"] == "smollm2.jinja"]
    make("smollm2", Vocab(models_dir / "SmolLM2-135M-Instruct.Q4_1.gguf"), vocabs, full, chats)
    make("gemma3", Vocab(models_dir / "gemma-3-270m-Q4_K_M.gguf"), vocabs)
    for name in ("llama-spm", "gpt-2", "llama-bpe", "qwen2", "deepseek-coder", "starcoder", "refact"):
        make(name, Vocab(vocabs / f"ggml-vocab-{name}.gguf"), vocabs)
