#!/usr/bin/env python3
"""The generators beside the same ones in PyTorch, from the same weights: logits, and losses over 200 steps. Prints a table.

  python parity.py --multi30k DIR [--out FILE] [MODEL …]          `just bench models` calls it; a few minutes a model

With --out the rows are kept in FILE.json, by model, and the table of all of them is written to FILE.md: a row can be made again.

Each row is a kind with options of its own, without dropout. The weights are ours, fresh; the logits are those of 8 pairs, padding
among them; the steps are AdamW's over the same 64 pairs, with the norm of the gradients cut at 1.
"""
import argparse
import gzip
import itertools
import json
import pathlib
import struct
import subprocess
import tempfile

import torch
import torch.nn.functional as F

import artifacts
import networks
from rows import keep, line

STEPS, RATE = 200, 2e-4
SIDES = 'source = { column = "text", tokenizer = "TEXT", max_tokens = 64 }\ntarget = { column = "code", tokenizer = "CODE", max_tokens = 64 }'
RECURRENT = {"embedding": 64, "hidden": 64, "dropout": 0.0}
ATTENTIVE = {"kind": "transformer", "width": 64, "heads": 4, "encoder_layers": 2, "decoder_layers": 2, "feed_forward": 128, "dropout": 0.0}
T5 = {"width": 64, "heads": 4, "head_width": 16, "feed_forward": 128}
MODELS = {
    "rnn": {"kind": "rnn", **RECURRENT},
    "lstm": {"kind": "lstm", **RECURRENT},
    "lstm_copying": {"kind": "lstm", **RECURRENT, "copy": True},
    "attention_lstm": {"kind": "attention_lstm", **RECURRENT},
    "attention_lstm_copying": {"kind": "attention_lstm", **RECURRENT, "copy": True},
    "transformer": ATTENTIVE,
    "transformer_learned": {**ATTENTIVE, "positions": "learned", "activation": "gelu", "tied": False},
    "t5": {"kind": "t5", **T5, "encoder_layers": 2, "decoder_layers": 2, "dropout": 0.0},
    "t5_gated": {"kind": "t5", **T5, "encoder_layers": 2, "decoder_layers": 2, "gated": True, "scaled": False, "dropout": 0.0},
    "paired": {"kind": "paired", "encoder": {**T5, "layers": 2}, "decoder": {**T5, "layers": 2, "width": 48}, "dropout": 0.0},
    "transformer_copying": {**ATTENTIVE, "qk_norm": True, "copy": True},
}
SMOOTHED = {"lstm", "transformer"}
# Where rounding grows fast: at 2e-4 PyTorch's own losses of this T5 come 7e-3 apart when its weights begin 1e-7 apart, at 5e-5 1e-5.
RATES = {"t5": 5e-5, "t5_gated": 5e-5, "paired": 5e-5}


def toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items()) + " }"
    return json.dumps(value)


def cut(data, folder):
    """Few captions: every epoch of a training ends with a validation."""
    pathlib.Path(folder).mkdir()
    for name, lines in (("train", 2000), ("val", 4), ("test_2016_flickr", 4)):
        for side in ("fr", "en"):
            with gzip.open(f"{data}/{name}.{side}.gz", "rt") as whole, open(f"{folder}/{name}.{side}", "w") as few:
                few.writelines(itertools.islice(whole, lines))


def config(folder, data):
    """Each model twice: as it is drawn, and after the steps."""
    cut(data, f"{folder}/captions")
    text = f'name = "parity"\nstore = {{ url = "file://{folder}/store" }}\n'
    text += f'[ingest.captions]\nkind = "parallel_text"\npath = "{folder}/captions"\nsource = "fr"\ntarget = "en"\n'
    text += "[prepare]\nnear_duplicate_threshold = 1.0\nstructural_duplicates = false\n"
    for name, fields in (("both", ["text", "code"]), ("fr", ["text"]), ("en", ["code"])):
        text += f"[prepare.tokenizers.{name}]\nvocabulary = 2000\nfields = {json.dumps(fields)}\n"
    for name, model in MODELS.items():
        source, target = ("both", "both") if model.get("copy") or model["kind"] == "t5" else ("fr", "en")
        sides = SIDES.replace("TEXT", source).replace("CODE", target)
        smoothing = 0.1 if name in SMOOTHED else 0.0
        same = f"{sides}\nmodel = {toml(model)}\nmax_examples = 64\nbatch_size = 64\nlog_steps = 1\npatience = 1000\n"
        same += f'loss = {{ kind = "cross_entropy", label_smoothing = {smoothing} }}\n'
        text += f'[train.{name}_drawn]\n{same}epochs = 1\nlearning_rate = 1e-30\noptimizer = "sgd"\n'
        text += f"[train.{name}]\n{same}epochs = {STEPS}\nlearning_rate = {RATES.get(name, RATE)}\n"
    path = folder + "/parity.toml"
    open(path, "w").write(text)
    return path


def our_logits(folder, some):
    framed = [[artifacts.BEGIN, *written, artifacts.END] for _, written in some]
    text = json.dumps({"source": [read for read, _ in some], "target": framed})
    command = [str(artifacts.BINARIES / "examples/logits"), str(folder)]
    out = subprocess.run(command, input=text.encode(), check=True, capture_output=True).stdout
    return torch.tensor(struct.unpack(f"<{len(out) // 4}f", out))


def their_losses(model, some, smoothing, rate):
    sources, mask, inputs, labels = artifacts.batch(some)
    decayed = {id(parameter) for _, parameter, turned in networks.named(model) if turned}
    groups = [
        {"params": [p for p in model.parameters() if id(p) in decayed], "weight_decay": 0.01},
        {"params": [p for p in model.parameters() if id(p) not in decayed], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, rate)
    losses = []
    for _ in range(STEPS):
        loss = F.cross_entropy(model(sources, mask, inputs).flatten(0, 1), labels.flatten(), label_smoothing=smoothing)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def row(name, path, store):
    kind = MODELS[name]
    for step in (f"{name}_drawn", name):
        artifacts.run("codepair-train", path, "--model", step)
    card, weights, folder = artifacts.model(store, f"{name}_drawn")
    some = artifacts.pairs(store, card["source"]["tokenizer"], card["target"]["tokenizer"], "train", (64, 64))[:64]
    model = networks.build(card["model"], card["vocabularies"]["source"], card["vocabularies"]["target"])
    networks.load(model, weights)
    few = some[:8]
    with torch.no_grad():
        theirs = model(*artifacts.batch(few)[:3])
    ours = our_logits(folder, few).reshape(theirs.shape)
    is_asked = artifacts.batch(few)[3] >= 0
    apart = (ours - theirs)[is_asked].abs().max().item()
    ours = artifacts.losses(store, name, "train")
    theirs = their_losses(model, some, 0.1 if name in SMOOTHED else 0.0, RATES.get(name, RATE))
    assert len(ours) == len(theirs) == STEPS
    furthest = max(abs(a - b) for a, b in zip(ours, theirs))
    options = ", ".join(f"{key} = {json.dumps(value)}" for key, value in kind.items() if key in ("copy", "positions", "activation", "qk_norm", "tied", "gated", "scaled"))
    if name in SMOOTHED:
        options = ", ".join(filter(None, [options, "label_smoothing = 0.1"]))
    if name in RATES:
        options = ", ".join(filter(None, [options, f"rate = {RATES[name]}"]))
    is_fine = apart < 1e-4 and furthest < 1e-3
    return [kind["kind"], options, f"{apart:.1e}", f"{ours[0]:.3f} to {ours[-1]:.3f}", f"{furthest:.1e}", "yes" if is_fine else "no"]


HEAD = """| kind | options | logits apart at most | loss over 200 steps | losses apart at most | within 1e-4 and 1e-3 |
|---|---|---|---|---|---|"""


TEXT = f"""# The generators beside PyTorch's

Made by `just bench models`, which can make a single row again: `just bench models lstm`. Each row is a model of ours and the same one
in PyTorch {torch.__version__} (`bench/models/networks.py`; a T5 is transformers' own), from the same weights, on the same pairs of Multi30k, without dropout: the
logits of 8 pairs, padding among them, and the losses of {STEPS} steps of AdamW over 64 pairs, at {RATE} where no other rate is named: where
rounding grows fast, as in a T5, whose scores are not scaled down, PyTorch's own losses at {RATE} come 7e-3 apart when its weights begin 1e-7 apart.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--multi30k", required=True)
    parser.add_argument("--out")
    parser.add_argument("models", nargs="*", default=list(MODELS))
    options = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = config(folder, options.multi30k)
        artifacts.run("codepair", path, "run", "--until", "tokenize")
        print(HEAD, flush=True)
        rows = {}
        for name in options.models:
            rows[name] = row(name, path, folder + "/store")
            print(line(rows[name]), flush=True)
            if options.out:
                keep(options.out, rows, MODELS, HEAD, TEXT)
        raise SystemExit(any(cells[-1] == "no" for cells in rows.values()))


if __name__ == "__main__":
    main()
