#!/usr/bin/env python3
"""Kills every stage with SIGKILL at random moments, reruns it, and compares the digests with an undisturbed run.

  kill_stages.py [--kills N] [--codepair PATH] [--seed S] [--models]

With --models the trainings alone, and those of the kinds that the quickstart has not besides, with everything on that a checkpoint
has to remember.

Works on the quickstart cut down to a few packages, in a folder of its own. Prints, for each stage, how many kills came
before its manifest existed; and of the trainings, how many starts went on from a checkpoint, and the most seconds of training
that a kill cost. A start that does not go on from the newest whole checkpoint, or a kill that cost more than the time between
two checkpoints and what it takes to save one, is an error: equal digests alone cannot see a restart from nothing.
"""
import argparse
import datetime
import json
import pathlib
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
CUT = [
    'ingest.stdlib.include=["json/**","email/**","http/**","urllib/**","calendar.py","collections/**","configparser.py","tarfile.py"]',
    "train.attention.epochs=2", "train.attention.max_examples=64", "train.attention.target.max_tokens=32",
    "train.attention.checkpoint_seconds=1", "train.lstm.epochs=2", "train.lstm.max_examples=96",
    "train.lstm.target.max_tokens=32", "train.transformer.epochs=2", "train.transformer.max_examples=96",
    "train.transformer.target.max_tokens=32", "train.nbow.epochs=3", "evaluate.generation.rows=8",
]
SIDE = '{{column="{}",tokenizer="{}",max_tokens=32}}'
LOOP = 'epochs=3,max_examples=96,checkpoint_seconds=1,checkpoint_steps=2,seed=5'
T5 = "width=64,heads=4,head_width=16,feed_forward=128"


def table(name, source, target, model, more):
    return f'train.{name}={{source={source},target={target},model={{{model}}},{LOOP},{more}}}'


TEXT, CODE, BOTH = SIDE.format("text", "text"), SIDE.format("code", "code"), SIDE.format("text", "search")
MORE = [
    table("rnn", TEXT, CODE, 'kind="rnn",hidden=128', 'best_by={metric="bleu",rows=24},average={kind="ema",decay=0.9}'),
    table("t5", BOTH, SIDE.format("code", "search"), f'kind="t5",{T5},encoder_layers=2,decoder_layers=2', 'optimizer="adafactor"'),
    table("paired", CODE, TEXT, f'kind="paired",encoder={{{T5},layers=2}},decoder={{{T5},layers=2}}', 'optimizer="muon",source_weights={stdlib=1.5}'),
    table("documents", BOTH, '{fields=["text","code"],field_dropout={text=0.5},tokenizer="search",max_tokens=64}', 'kind="nbow"', 'batch_size=8,best_by="mrr",optimizer="lazy_adamw"'),
]
# Seconds: one between two checkpoints; the rest is reading the rows, a step of training, validation and saving.
MOST_REDONE = 5.0
GOES_ON = re.compile(r"goes on after step (\d+)")
STEPS = ["ingest", "synth", "prepare", "tokenize:text", "tokenize:code", "tokenize:search",
         "train:attention", "train:lstm", "train:nbow", "train:transformer", "evaluate:attention.generation",
         "evaluate:bm25.search", "evaluate:lstm.generation", "evaluate:nbow.search", "evaluate:transformer.generation",
         "score", "report"]


# Trainings that may be done before they are worth a checkpoint.
QUICK = ("train:nbow", "train:documents")


def command(options, store, arguments):
    # What shows runs refuses values that would change nothing.
    values = [] if "status" in arguments else CUT + MORE * options.models
    sets = [word for value in values + [f"store.url=file://{store}"] for word in ("--set", value)]
    return [options.codepair, *arguments, "--config", str(ROOT / "configs/quickstart.toml"), *sets]


def codepair(options, store, *arguments):
    return subprocess.run(command(options, store, arguments), check=True, capture_output=True, text=True).stdout


def digests(options, store):
    steps = json.loads(codepair(options, store, "status", "--json"))["steps"]
    return {step["step"]: (step["manifest"] or {}).get("digest") for step in steps}


def stage_command(options, store, step):
    """The stage's own binary: killing `codepair` would only kill its parent."""
    stage, _, model = step.partition(":")
    words = command(options, store, [])
    words[0] = str(pathlib.Path(options.codepair).with_name(f"codepair-{stage}"))
    return words + (["--model", model] if model else [])


class Kill:
    """One start of a step that was killed after so many seconds, or without them as soon as it has a whole checkpoint."""

    def __init__(self, options, store, step, after=None):
        folder = artifact_of(store, step)
        before = newest_checkpoint(folder)
        began = time.time()
        command = stage_command(options, store, step)
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if after is None:
            while child.poll() is None and newest_checkpoint(folder)[0] == 0:
                time.sleep(0.002)
        else:
            time.sleep(after)
        child.send_signal(signal.SIGKILL)
        killed = time.time()
        log = child.communicate()[1]
        self.unpublished = not list(folder.glob("*/manifest.json"))
        went_on = GOES_ON.search(log)
        self.resumed = bool(went_on)
        # What the log says comes after the checkpoint was read; before that nothing is known.
        if went_on:
            assert int(went_on[1]) == before[0], (step, log, before)
        assert self.resumed or not before[0] or "validation loss" not in log, (step, log, before)
        after = newest_checkpoint(folder)
        # The start of the process counts where there is no checkpoint: reading the rows is done again as well.
        self.redone = killed - max(began, after[1]) if self.unpublished and folder.name.startswith("train") else 0.0


def artifact_of(store, step):
    return pathlib.Path(store) / "artifacts" / step.replace(":", "-")


def newest_checkpoint(folder):
    """The step of the newest whole checkpoint and when it was complete."""
    manifests = sorted(folder.glob("*/checkpoints/*/manifest.json"), key=lambda path: path.parent.name)
    if not manifests:
        return 0, 0.0
    return int(manifests[-1].parent.name.split("-")[0]), manifests[-1].stat().st_mtime


def published_digest(artifact):
    return json.loads(next(artifact.glob("*/manifest.json")).read_text())["digest"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--codepair", default=str(ROOT / "target/release/codepair"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", action="store_true")
    options = parser.parse_args()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        reference, store = f"{folder}/reference", f"{folder}/killed"
        codepair(options, reference, "run", "--jobs", "1")
        expected = digests(options, reference)
        took = {s["step"]: s["manifest"] for s in json.loads(codepair(options, reference, "status", "--json"))["steps"]}
        first = ["--until", "tokenize"] if options.models else ["--only", "ingest"]
        plan_only = subprocess.run(command(options, store, ["run", *first]), capture_output=True)
        assert plan_only.returncode == 0, plan_only.stderr
        print(f"{'step':20} kills  before the manifest  resumed  redone s  equal")
        others = [f"train:{value.removeprefix('train.').split('=')[0]}" for value in MORE]
        trainings = [step for step in STEPS if step.startswith("train:")] + others
        for step in trainings if options.models else STEPS:
            artifact = artifact_of(store, step)
            seconds = seconds_of(took[step])
            kills = []
            for kill in range(options.kills):
                # One in each part of the time, so that few kills come early and late as well.
                kills.append(Kill(options, store, step, seconds * random.uniform(kill, kill + 1) / options.kills))
                if not kills[-1].unpublished:
                    assert published_digest(artifact) == expected[step], step
                    # Begin anew, without the checkpoints of the attempts so far; and strike sooner.
                    shutil.rmtree(artifact)
                    seconds *= 0.7
            # Where chance left no checkpoint, one start is killed at its first, so that the last has one to go on from.
            while step.startswith("train:") and step not in QUICK and newest_checkpoint(artifact)[0] == 0:
                kills.append(Kill(options, store, step))
                if not kills[-1].unpublished:
                    shutil.rmtree(artifact)
            rest = newest_checkpoint(artifact)[0]
            last = subprocess.run(stage_command(options, store, step), check=True, capture_output=True, text=True)
            # The report holds times; all its outputs are volatile.
            equal = published_digest(artifact) == expected[step]
            before = sum(kill.unpublished for kill in kills)
            resumed = sum(kill.resumed for kill in kills) + bool(GOES_ON.search(last.stderr))
            redone = max(kill.redone for kill in kills)
            print(f"{step:20} {len(kills):5}  {before:19}  {resumed:7}  {redone:8.1f}  {'yes' if equal else 'NO'}", flush=True)
            assert equal, step
            assert redone < MOST_REDONE, (step, redone)
            assert not rest or GOES_ON.search(last.stderr), (step, "the last start began anew", last.stderr)
        print("all digests equal")


def seconds_of(manifest):
    """How long the undisturbed run of a step took."""
    moment = lambda text: datetime.datetime.fromisoformat(text.split(".")[0].rstrip("Z"))
    fraction = lambda text: float("0." + (text.rstrip("Z").split(".") + ["0"])[1])
    start, end = manifest["started_at"], manifest["ended_at"]
    return max(0.05, (moment(end) - moment(start)).total_seconds() + fraction(end) - fraction(start))


if __name__ == "__main__":
    main()
