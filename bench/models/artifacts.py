"""What the benches of models read of a store: token tables as a training sees them, models and losses."""
import json
import pathlib
import subprocess

import numpy as np
import pyarrow.parquet as parquet
import torch
from safetensors.torch import load_file

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BINARIES = ROOT / "target/release"
BEGIN, END = 1, 2


def run(binary, config, *words, settings=()):
    """Runs a binary of ours; its log is shown where it fails."""
    command = [str(BINARIES / binary), *words, "--config", str(config)]
    command += [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return done.stdout


def newest(store, step):
    """The attempt's folder and the manifest of the newest artifact of a step."""
    manifests = sorted(pathlib.Path(store).glob(f"artifacts/{step}/*/manifest.json"), key=lambda path: path.stat().st_mtime)
    manifest = json.loads(manifests[-1].read_text())
    return manifests[-1].parent, manifest


def files(store, step, pattern):
    folder, manifest = newest(store, step)
    return sorted(path for path in folder.glob(f"attempt-*/{pattern}") if path.is_file())


def model(store, name):
    """The card and the weights of a trained model, and its folder."""
    card = files(store, f"train-{name}", "models/config.json")[0]
    return json.loads(card.read_text()), load_file(card.parent / "model.safetensors"), card.parent


def losses(store, name, split):
    rows = [row for path in files(store, f"train-{name}", "training_steps/*.parquet") for row in parquet.read_table(path).to_pylist()]
    return [row["loss"] for row in rows if row["split"] == split]


def pairs(store, source, target, split, most):
    """The pairs of a split as a generator is trained on them: sources cut, longer targets left out."""
    sides = []
    for tokenizer, field in ((source, "text"), (target, "code")):
        rows = []
        for path in files(store, f"tokenize-{tokenizer}", f"tokens_{tokenizer}/*.parquet"):
            table = parquet.read_table(path)
            width = int(table.schema.metadata[b"token_bytes"])
            for row in table.select(["split", "kind", field]).to_pylist():
                ids = np.frombuffer(row[field] or b"", dtype=f"<u{width}").tolist()
                rows.append((row["split"], row["kind"], ids))
        sides.append(rows)
    found = []
    for (own, kind, read), (_, _, written) in zip(*sides):
        if own == split and kind == "original" and read and written and len(written) <= most[1]:
            found.append((read[:most[0]], written))
    return found


def batch(some):
    """Padded tensors of pairs: sources, where they are, inputs and labels; labels of padding are −100."""
    pad = lambda rows, value: torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True, value)
    sources = pad([read for read, _ in some], 0)
    mask = torch.arange(sources.shape[1])[None] < torch.tensor([len(read) for read, _ in some])[:, None]
    return sources, mask, pad([[BEGIN, *written] for _, written in some], 0), pad([[*written, END] for _, written in some], -100)
