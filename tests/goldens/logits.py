"""Logits of the two real models by transformers in f32, on weights dequantised from the GGUF files.

Run:      python logits.py SMOLLM2_HF_DIR GEMMA3_HF_DIR        (directories made by gguf_to_hf.py; about 2 minutes)
Versions: torch 2.15.0 (CPU, f32, eager attention), transformers 5.23.0
Files:    SmolLM2-135M-Instruct.Q4_1.gguf (98,362,432 B), gemma-3-270m-Q4_K_M.gguf (253,113,024 B)

Writes logits/smollm2.safetensors and logits/gemma3.safetensors. For each prompt p0 ... p3 (p3 has more than 700 tokens, past
Gemma's window of 512):
  pN.ids            i32 [T]      token ids, with Gemma's BOS
  pN.positions      i32 [P]      P = 64 positions spread over the prompt, the last included
  pN.columns        i32 [64]     vocabulary ids: the 10 most likely at the last position, then 54 drawn with a seed
  pN.logits         f32 [P, 64]  logits[position][column]
  pN.logsumexp      f32 [P]      over the whole vocabulary, so that log-probabilities can be checked too
  pN.argmax         i32 [P]
  pN.token_logprobs f32 [T - 1]  log p(ids[t + 1] | ids[..= t]), nats
  pN.text           u8           the prompt, UTF-8
"""
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

BAKERY = """The bakery on Mill Street opens at 5:30 every morning except Monday. By six o'clock the first 120 loaves are out of \
the oven, and a queue of about 15 people waits under the striped awning. "Two rye, one sourdough," says the woman in the \
yellow raincoat, counting out $14.75 in coins. Nobody hurries her. The bread is still too hot to slice, and the rain has \
only just begun."""
CODE = '''def running_median(values, width=5):
    """Median of the last `width` values, one result per value."""
    window, out = [], []
    for i, value in enumerate(values):
        window.append(value)
        if len(window) > width:
            window.pop(0)  # O(width), fine for small windows
        ordered = sorted(window)
        out.append(ordered[len(ordered) // 2])
    return out

assert running_median([3, 1, 4, 1, 5, 9, 2, 6]) == [3, 3, 3, 3, 3, 4, 4, 5]
'''
MIXED = """Patient, 63 J., männlich; Größe 1,78 m, Gewicht 81 kg.\tBefund: Ø 3,4 cm — keine Änderung seit 2024-11-02.
Résumé : la température est restée à 37,2 °C. 患者は元気です。 Пульс 72 уд/мин. 👩‍⚕️ ✅

| code  | text                 | n    |
|-------|----------------------|------|
| J18.9 | Pneumonia            | 1204 |
| E11.9 | Type 2 diabetes      |  987 |
"""
LONG = """Chapter One. How the Lighthouse Was Built

In the spring of 1847 the harbour board of a small northern town resolved, by a vote of seven to two, to build a lighthouse on \
the reef that sailors called the Old Grey Sow. Forty-one ships had been lost there in sixty years, and the widows of the town \
had petitioned the board every winter since anyone could remember. The two who voted against were not cruel men. One was the \
treasurer, who had read the estimates, and the other was a fisherman named Aldous Pike, who had stood on the reef at low tide \
and knew what the sea did to anything that stood on it for long.

The engineer they engaged was thirty-four years old and had never built anything taller than a grain store. She would have been \
the first to say so; but she was not asked, because the board supposed that the "M. Harrow" who had signed the drawings was her \
brother. When she stepped off the mail coach with one trunk, a brass level and eleven books, there was a silence on the quay that \
people spoke of for years. "The foundation," said Margaret Harrow, looking past all of them at the water, "will have to be cut \
six feet into the rock, and every stone must be locked to its neighbour. How many masons have you?"

They had nine. By August she had trained twenty-three more. The work could be done only between tides, for two hours and forty \
minutes on a good day and not at all on most, and the men went out in open boats with their tools lashed to the thwarts. In the \
first season they cut a pit 38 feet across and laid a single course of stone: 62 blocks of granite, each dovetailed to the next, \
the heaviest weighing 4,300 pounds. In October a storm took the crane, the forge, both boats and the cabin. It did not move one \
stone. Aldous Pike rowed out the next morning to look, came back, and asked to be put on the pay list.

Chapter Two. The Account Book

The account book survives. It is bound in green cloth, and it lists what the board paid for: 1,140 tons of granite at 18 shillings \
a ton; 96 barrels of lime; rope, 2,200 fathoms; candles, 30 dozen; one bell, cracked; one bell, sound. There is a line for every \
man hurt and for what was paid to him, and against four names there is a line for the passage of a family to relations inland. The \
totals are in the treasurer's hand. At the foot of the last page, where the sum exceeds the estimate by a third, he has written in \
pencil: "She told us what it would cost. We did not believe her. It has cost that."

Beside the sums are small drawings. Some are of joints and wedges. One shows the tower as a curve, wide at the foot like the bole \
of an oak, with a note that a tree stands because it gives the wind nothing flat to push. Another, much later, shows a gull asleep \
on the lantern rail. If one adds the columns again, with a machine that does not tire, one finds a single mistake in nine years of \
entries: on the 3rd of March 1852 somebody wrote 7 for 1, and 6 pence were lost.

The lamp was lit on the first of November, 1856. It could be seen for nineteen miles. In the next sixty years the reef took three \
ships, all of them in fog. The harbour board, which had by then four new members and a new treasurer, voted unanimously to name the \
tower after the chairman; but no one in the town has ever called it anything except Harrow's Light, and when the plaque fell into the \
sea in the winter of 1903 it was not replaced. What is left of the story is the tower itself, the book, and a habit of speech. When \
something has been made so well that there is nothing more to say about it, people in that town say: "locked to its neighbour". And \
when somebody asks how many masons"""
PROMPTS = [BAKERY, CODE, MIXED, LONG]


def main(name: str, folder: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    bos = [2] if name == "gemma3" else []
    generator = torch.Generator().manual_seed(7)
    out = {}
    for n, text in enumerate(PROMPTS):
        ids = torch.tensor(bos + tokenizer.encode(text, add_special_tokens=False))
        assert tokenizer.decode(ids[len(bos):]) == text, "the text does not round-trip"
        assert len(ids) >= (700 if n == 3 else 64), len(ids)
        with torch.no_grad():
            logits = model(input_ids=ids[None]).logits[0]
        positions = torch.unique(torch.linspace(0, len(ids) - 1, 64).round().long())
        top = logits[-1].topk(10).indices
        columns = torch.cat([top, torch.randint(0, logits.shape[1], (54,), generator=generator)])
        lse = torch.logsumexp(logits.double(), -1)
        chosen = logits[:-1].double().gather(1, ids[1:, None])[:, 0]
        out |= {f"p{n}.ids": ids.int(), f"p{n}.positions": positions.int(), f"p{n}.columns": columns.int(),
                f"p{n}.logits": logits[positions][:, columns], f"p{n}.logsumexp": lse[positions].float(),
                f"p{n}.argmax": logits.argmax(-1)[positions].int(), f"p{n}.token_logprobs": (chosen - lse[:-1]).float(),
                f"p{n}.text": torch.tensor(list(text.encode()), dtype=torch.uint8)}
        print(f"{name} p{n}: {len(ids)} tokens, perplexity {(lse[:-1] - chosen).mean().exp():.3f}, largest logit "
              f"{logits.max():.2f}, then {tokenizer.decode(top[:1])!r}", flush=True)
    path = Path(__file__).parent / "logits" / f"{name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    save_file({k: v.contiguous() for k, v in out.items()}, path)
    path.chmod(0o644)


if __name__ == "__main__":
    torch.set_num_threads(2)
    main("smollm2", sys.argv[1])
    main("gemma3", sys.argv[2])
