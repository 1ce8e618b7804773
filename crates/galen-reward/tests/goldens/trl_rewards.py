"""Writes trl_rewards.json: TRL's rewards on token lengths and ids, and its weighted sum and metrics of rewards with gaps.

    python trl_rewards.py        # trl 1.16, torch
"""

import json
import math
import pathlib
import random

import torch
import trl
from trl.rewards import get_repetition_penalty_reward, get_soft_overlong_punishment, think_format_reward
from trl.trainer.utils import nanstd

random.seed(7)


def none_for_nan(values):
    return [None if math.isnan(v) else v for v in values]


overlong = []
for max_len, cache in [(100, 20), (1280, 256), (64, 64), (10, 0), (7, 3)]:
    lengths = sorted({0, 1, max_len - cache, max_len - cache + 1, max_len - 1, max_len, max_len + 1, 3 * max_len})
    lengths += [random.randrange(2 * max_len) for _ in range(8)]
    rewards = get_soft_overlong_punishment(max_len, cache)(completion_ids=[[1] * n for n in lengths])
    overlong.append({"max_completion_len": max_len, "soft_punish_cache": cache, "lengths": lengths, "rewards": rewards})

repetition = []
for n, penalty in [(1, -1.0), (2, -0.5), (3, -1.0), (5, -2.0)]:
    ids = [[], [4], [4, 4], [1, 2, 3, 4], [5] * 9, [1, 2, 3] * 7]
    ids += [[random.randrange(4) for _ in range(random.randrange(60))] for _ in range(8)]
    rewards = get_repetition_penalty_reward(n, penalty)(completion_ids=ids)
    repetition.append({"ngram_size": n, "max_penalty": penalty, "token_ids": ids, "rewards": rewards})

texts = [
    "<think>a</think>b", "<think></think>b", "<think>a</think>", "a</think>b", "<think>a", "<think>a<think>b</think>c",
    "x<think>a</think>b", "<think>\na\n</think>\nb\nc", "", "</think><think>", "<think>a</think>b<think>",
]
think = {"texts": texts, "rewards": think_format_reward([[{"content": t}] for t in texts])}

sums = []
for case in range(6):
    n, k = [(8, 3), (4, 1), (1, 2), (2, 2), (16, 4), (5, 2)][case]
    gap = [0.0, 0.3, 0.3, 1.0, 0.4, 0.5][case]
    values = [[math.nan if random.random() < gap else round(random.uniform(-2, 2), 3) for _ in range(k)] for _ in range(n)]
    weights = [round(random.uniform(-1, 2), 2) for _ in range(k)]
    per_func = torch.tensor(values, dtype=torch.float64)
    # The steps of GRPOTrainer: nansum over the functions, NaN where every one gave None.
    total = (per_func * torch.tensor(weights, dtype=torch.float64).unsqueeze(0)).nansum(dim=1)
    total[torch.isnan(per_func).all(dim=1)] = torch.nan
    sums.append({
        "weights": weights,
        "values": [none_for_nan(row) for row in values],
        "total": none_for_nan(total.tolist()),
        "mean": none_for_nan([torch.nanmean(per_func[:, i]).item() for i in range(k)] + [torch.nanmean(total).item()]),
        "std": none_for_nan([nanstd(per_func[:, i]).item() for i in range(k)] + [nanstd(total).item()]),
    })

out = {"trl": trl.__version__, "overlong": overlong, "repetition": repetition, "think": think, "sums": sums}
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps(out, allow_nan=False) + "\n")
