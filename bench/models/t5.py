#!/usr/bin/env python3
"""Tiny T5s as transformers makes them, and what they write: the golden files of the tests of pretrained weights.

  python t5.py       needs torch and transformers; writes pipeline/model/src/pretrained/golden
"""
import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file
from transformers import T5Config, T5ForConditionalGeneration

GOLDEN = pathlib.Path(__file__).resolve().parent.parent.parent / "pipeline/model/src/pretrained/golden"
SIZES = {
    "vocab_size": 40, "d_model": 8, "d_kv": 3, "d_ff": 10, "num_layers": 2, "num_decoder_layers": 1, "num_heads": 2,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 10, "decoder_start_token_id": 0,
}
SOURCES = [[5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 1], [20, 21, 1], [30, 31, 32, 33, 34, 1]]
TARGETS = [[4, 3, 2, 1], [9, 8, 7, 6, 5, 4, 3, 20, 21, 22, 23, 24, 25, 1], [39, 1]]
LONGEST = 20


def padded(rows):
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True, 0)
    return ids, torch.arange(ids.shape[1])[None] < torch.tensor([len(row) for row in rows])[:, None]


@torch.no_grad()
def answers(model):
    """Logits of each target's tokens, and what is written greedily."""
    sources, mask = padded(SOURCES)
    inputs, _ = padded([[0, *target[:-1]] for target in TARGETS])
    logits = model(input_ids=sources, attention_mask=mask, decoder_input_ids=inputs).logits
    rows = [[round(x, 7) for x in logits[row, :len(target)].flatten().tolist()] for row, target in enumerate(TARGETS)]
    written = model.generate(input_ids=sources, attention_mask=mask, num_beams=1, do_sample=False, max_new_tokens=LONGEST)
    cut = lambda row: row[:row.index(1)] if 1 in row else row
    return {"logits": rows, "greedy": [cut(row[1:]) for row in written.tolist()]}


def gated(folder):
    """A T5 1.1 as it was published: gated, an output of its own, no scaling, in half precision."""
    torch.manual_seed(7)
    config = T5Config(**SIZES, initializer_factor=2.0, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    model = T5ForConditionalGeneration(config).eval()
    model.lm_head.weight = torch.nn.Parameter(0.3 * torch.randn_like(model.shared.weight))
    model = model.to(torch.bfloat16)
    doubles = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    model.config.save_pretrained(folder)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items() if name not in doubles}, folder / "model.safetensors")
    older = json.loads((folder / "config.json").read_text())
    del older["scale_decoder_outputs"]
    (folder / "config.json").write_text(json.dumps({**older, "tie_word_embeddings": False}, indent=2) + "\n")
    return answers(model.to(torch.float32))


def main():
    shutil.rmtree(GOLDEN, ignore_errors=True)
    golden = {"sources": SOURCES, "targets": TARGETS, "longest": LONGEST}
    torch.manual_seed(4)
    # Weights of their usual size hardly move such small states.
    plain = T5ForConditionalGeneration(T5Config(**SIZES, initializer_factor=2.0)).eval()
    plain.save_pretrained(GOLDEN / "whole")
    plain.save_pretrained(GOLDEN / "sharded", max_shard_size="3KB")
    golden["whole"] = golden["sharded"] = answers(plain)
    golden["gated"] = gated(GOLDEN / "gated")
    for file in GOLDEN.glob("*/generation_config.json"):
        file.unlink()
    (GOLDEN / "golden.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
