#!/usr/bin/env python3
"""Writes what PyTorch's and transformers' optimizers make of a few gradients: the golden file of the optimizers' tests.

  python optimizers.py > stages/train/src/optimizers/golden.json          needs torch >= 2.9 and transformers
"""
import json

import torch
from transformers import Adafactor

RATE = 0.1
torch.manual_seed(0)
WEIGHT = torch.randn(4, 3)
GRADIENTS = [torch.randn(4, 3) for _ in range(4)]
# Rows 1 and 3 of an embedding table are looked up only now and then.
for step, gradient in enumerate(GRADIENTS):
    gradient[1] *= step % 2
    gradient[3] *= step // 3


def run(make, transposed=False, sparse=False):
    weight = torch.nn.Parameter((WEIGHT.T if transposed else WEIGHT).clone().contiguous())
    optimizer = make([weight])
    for gradient in GRADIENTS:
        gradient = (gradient.T if transposed else gradient).contiguous()
        if sparse:
            rows = gradient.abs().sum(1).nonzero().squeeze(1)
            gradient = torch.sparse_coo_tensor(rows[None], gradient[rows], gradient.shape)
        weight.grad = gradient
        optimizer.step()
    weight = weight.detach().double()
    return (weight.T if transposed else weight).tolist()


optim = torch.optim
# Muon iterates in bfloat16 there, which is 0.5% off; here in float32.
torch.bfloat16 = torch.float32
CASES = [
    ({"kind": "adamw", "weight_decay": 0.05}, "matrix", run(lambda p: optim.AdamW(p, RATE, weight_decay=0.05))),
    ({"kind": "adamw", "weight_decay": 0.05}, "embedding", run(lambda p: optim.AdamW(p, RATE, weight_decay=0.0))),
    ({"kind": "lazy_adamw"}, "embedding", run(lambda p: optim.SparseAdam(p, RATE), sparse=True)),
    ({"kind": "lazy_adamw"}, "matrix", run(lambda p: optim.AdamW(p, RATE, weight_decay=0.01))),
    ({"kind": "sgd"}, "matrix", run(lambda p: optim.SGD(p, RATE))),
    ({"kind": "sgd", "momentum": 0.9}, "matrix", run(lambda p: optim.SGD(p, RATE, momentum=0.9))),
    ({"kind": "sgd", "momentum": 0.9, "nesterov": True}, "matrix",
     run(lambda p: optim.SGD(p, RATE, momentum=0.9, nesterov=True))),
    ({"kind": "adafactor"}, "matrix",
     run(lambda p: Adafactor(p, RATE, scale_parameter=False, relative_step=False, warmup_init=False))),
    ({"kind": "adafactor", "scale_parameter": True}, "matrix",
     run(lambda p: Adafactor(p, RATE, scale_parameter=True, relative_step=False, warmup_init=False))),
    # A linear map is stored the other way round there.
    ({"kind": "muon", "matrix_rate": 1.0, "weight_decay": 0.05}, "matrix",
     run(lambda p: optim.Muon(p, RATE, weight_decay=0.05, momentum=0.95, nesterov=True), transposed=True)),
]
cases = [{"optimizer": optimizer, "kind": kind, "rate": RATE, "weight": weight} for optimizer, kind, weight in CASES]
print(json.dumps({"weight": WEIGHT.tolist(), "gradients": [g.tolist() for g in GRADIENTS], "cases": cases}, indent=1))
