#!/usr/bin/env python3
"""French captions to English by each generator, ours and PyTorch's, in sacreBLEU over three seeds. Prints a table.

  python translation.py --multi30k DIR [--out FILE] [MODEL …]     `just bench translation` calls it; some half hour a model

With --out the rows are kept in FILE.json, by model, and the table of all of them is written to FILE.md: a row can be made again.

Both begin with the same weights, ours, and see the same batches in the same order, so many epochs of them; each draws its own
dropout. Both write greedily, each by its own code, and one tokenizer reads what they wrote.
"""
import argparse
import json
import math
import pathlib
import statistics
import subprocess
import tempfile
import time

import pyarrow.parquet as parquet
import sacrebleu
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

import artifacts
import networks
from parity import SIDES, toml
from rows import keep, line

EPOCHS, BATCH, RATE, WARMUP, LENGTH = 3, 128, 2e-3, 100, 64
RECURRENT = {"embedding": 128, "hidden": 128, "dropout": 0.1}
MODELS = {
    "rnn": {"kind": "rnn", **RECURRENT},
    "lstm": {"kind": "lstm", **RECURRENT},
    "attention_lstm": {"kind": "attention_lstm", **RECURRENT},
    "transformer": {"kind": "transformer", "width": 128, "heads": 4, "encoder_layers": 2, "decoder_layers": 2,
                    "feed_forward": 256, "dropout": 0.1},
}
SEEDS = (1, 2, 3)


def config(folder, data):
    text = f'name = "translation"\nstore = {{ url = "file://{folder}/store" }}\n'
    text += f'[ingest.captions]\nkind = "parallel_text"\npath = "{data}"\nsource = "fr"\ntarget = "en"\n'
    text += "[prepare]\nnear_duplicate_threshold = 1.0\nstructural_duplicates = false\n"
    for name, field in (("fr", "text"), ("en", "code")):
        text += f'[prepare.tokenizers.{name}]\nvocabulary = 5000\nfields = ["{field}"]\n'
    sides = SIDES.replace("TEXT", "fr").replace("CODE", "en")
    for name, model in MODELS.items():
        for seed in SEEDS:
            same = f"{sides}\nmodel = {toml(model)}\nseed = {seed}\nbatch_size = {BATCH}\nlearning_rate = {RATE}\n"
            same += f'schedule = {{ kind = "constant", warmup_steps = {WARMUP} }}\n'
            text += f"[train.{name}_{seed}]\n{same}epochs = {EPOCHS}\n"
            text += f"[train.{name}_{seed}_drawn]\n{same.replace(str(RATE), '1e-30')}epochs = 1\nmax_examples = 1\n"
    text += '[evaluate.test]\nkind = "generation"\nbeam_width = 1\nattention_rows = 0\n'
    path = folder + "/translation.toml"
    open(path, "w").write(text)
    return path


def bleu(written, references):
    return sacrebleu.corpus_bleu(written, [references]).score


def ours(store, path, name):
    """What our model wrote, its references, and the seconds of the training."""
    artifacts.run("codepair", path, "run", "--only", f"train:{name}")
    artifacts.run("codepair", path, "run", "--only", f"evaluate:{name}.test")
    rows = [row for file in artifacts.files(store, f"evaluate-{name}.test", "predictions/*.parquet") for row in parquet.read_table(file).to_pylist()]
    rows = sorted((row for row in rows if row["decoding"] == "greedy"), key=lambda row: row["ordinal"])
    notes = artifacts.newest(store, f"train-{name}")[1]["notes"]
    if notes["best_epoch"] != EPOCHS:
        print(f"{name}: the best epoch was {notes['best_epoch']}; PyTorch's is the last", flush=True)
    return [row["prediction"] for row in rows], [row["reference"] for row in rows], notes["training_seconds"]


def train(model, pairs, seed):
    """The same steps in PyTorch: AdamW as ours, the norm cut at 1, a linear warm-up."""
    command = [str(artifacts.BINARIES / "examples/order"), str(seed), str(BATCH), str(EPOCHS)]
    lengths = "\n".join(str(len(read) + len(written)) for read, written in pairs)
    order = [json.loads(line) for line in subprocess.run(command, input=lengths, check=True, capture_output=True, text=True).stdout.splitlines()]
    matrices = {id(parameter) for _, parameter, turned in networks.named(model) if turned}
    groups = [
        {"params": [p for p in model.parameters() if id(p) in matrices], "weight_decay": 0.01},
        {"params": [p for p in model.parameters() if id(p) not in matrices], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, RATE)
    torch.manual_seed(seed)
    model.train()
    began = time.monotonic()
    for step, batch in enumerate(order, 1):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, step / WARMUP)
        sources, mask, inputs, labels = artifacts.batch([pairs[at] for at in batch])
        loss = F.cross_entropy(model(sources, mask, inputs).flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return time.monotonic() - began


@torch.no_grad()
def write(model, sources):
    """The most probable token each time, until all ended."""
    model.eval()
    found = []
    for start in range(0, len(sources), 100):
        ids, mask, _, _ = artifacts.batch([(source, []) for source in sources[start:start + 100]])
        written = torch.full((len(ids), 1), artifacts.BEGIN)
        while written.shape[1] <= LENGTH and not (written == artifacts.END).any(1).all():
            best = model(ids, mask, written)[:, -1].argmax(1)
            written = torch.cat([written, best[:, None]], 1)
        rows = [row[1:] for row in written.tolist()]
        found += [row[:row.index(artifacts.END)] if artifacts.END in row else row for row in rows]
    return found


def theirs(store, path, name, seed):
    artifacts.run("codepair-train", path, "--model", f"{name}_drawn")
    card, weights, _ = artifacts.model(store, f"{name}_drawn")
    model = networks.build(card["model"], card["vocabularies"]["source"], card["vocabularies"]["target"])
    networks.load(model, weights)
    seconds = train(model, artifacts.pairs(store, "fr", "en", "train", (LENGTH, LENGTH)), seed)
    tokenizer = Tokenizer.from_file(str(artifacts.files(store, "tokenize-en", "tokenizers/en.json")[0]))
    tests = artifacts.pairs(store, "fr", "en", "test", (LENGTH, math.inf))
    return [tokenizer.decode(row) for row in write(model, [source for source, _ in tests])], seconds


def row(name, path, store):
    scores, seconds = {"ours": [], "theirs": []}, {"ours": 0, "theirs": 0}
    for seed in SEEDS:
        written, references, took = ours(store, path, f"{name}_{seed}")
        scores["ours"].append(bleu(written, references))
        seconds["ours"] += took
        written, took = theirs(store, path, f"{name}_{seed}", seed)
        assert len(written) == len(references)
        scores["theirs"].append(bleu(written, references))
        seconds["theirs"] += took
        print(f"{name}, seed {seed}: {scores['ours'][-1]:.2f} and {scores['theirs'][-1]:.2f}", flush=True)
    means = {side: statistics.mean(of) for side, of in scores.items()}
    errors = {side: statistics.stdev(of) / math.sqrt(len(of)) for side, of in scores.items()}
    apart, allowed = abs(means["ours"] - means["theirs"]), max(0.5, 2 * math.hypot(*errors.values()))
    cells = [name] + [f"{means[side]:.2f} ± {errors[side]:.2f} ({', '.join(f'{one:.2f}' for one in scores[side])})" for side in scores]
    return cells + [f"{apart:.2f}", f"{allowed:.2f}", "yes" if apart <= allowed else "no"]


HEAD = """| model | ours | PyTorch's | apart | allowed | within |
|---|---|---|---|---|---|"""


TEXT = f"""# Translation beside PyTorch's

Made by `just bench translation`, which can make a single row again: `just bench translation lstm`. sacreBLEU on Multi30k's
test_2016_flickr, French to English, greedily: mean ± standard error (the seeds {', '.join(map(str, SEEDS))}). Ours and the same model
in PyTorch {torch.__version__} (`bench/models/networks.py`) begin with the same weights and see the same {EPOCHS} epochs of batches of
{BATCH} in the same order, at a rate of {RATE}; each draws its own dropout of 0.1. Allowed is the larger of 0.5 and two standard
errors of the difference. The budget is small on purpose; what the same data gives a Transformer in an hour is in
[docs/measured.md](../../docs/measured.md).
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--multi30k", required=True)
    parser.add_argument("--out")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch's; ours takes one")
    parser.add_argument("models", nargs="*", default=list(MODELS))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        path = config(folder, options.multi30k)
        artifacts.run("codepair", path, "run", "--until", "tokenize")
        rows = {}
        for name in options.models:
            rows[name] = row(name, path, folder + "/store")
            if options.out:
                keep(options.out, rows, MODELS, HEAD, TEXT)
        print("\n".join([HEAD, *(line(cells) for cells in rows.values())]))
        raise SystemExit(any(cells[-1] == "no" for cells in rows.values()))


if __name__ == "__main__":
    main()
