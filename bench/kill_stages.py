#!/usr/bin/env python3
"""Kills every stage with SIGKILL at random moments, reruns it, and compares the digests with an undisturbed run.

  kill_stages.py [--kills N] [--codepair PATH] [--seed S]

Works on the quickstart cut down to a few packages, in a folder of its own. Prints, for each stage, how many kills came
before its manifest existed.
"""
import argparse
import datetime
import json
import pathlib
import random
import shutil
import signal
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
CUT = [
    'ingest.stdlib.include=["json/**","email/**","http/**","urllib/**","calendar.py","collections/**","configparser.py","tarfile.py"]',
    "train.attention.epochs=2", "train.attention.max_examples=64", "train.attention.target.max_tokens=32",
    "train.attention.checkpoint_seconds=1", "train.nbow.epochs=3", "evaluate.generate_rows=8",
]
STEPS = ["ingest", "synth", "prepare", "train:attention", "train:nbow", "evaluate:bm25", "evaluate:attention", "evaluate:nbow", "report"]


def command(options, store, arguments):
    sets = [word for value in CUT + [f"store.url=file://{store}"] for word in ("--set", value)]
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


def kill_once(options, store, step, seconds):
    """Starts the step, kills it after a random part of the time it takes; whether it was still unpublished."""
    folder = pathlib.Path(store) / "artifacts" / step.replace(":", "-")
    child = subprocess.Popen(stage_command(options, store, step), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(random.uniform(0.0, seconds))
    child.send_signal(signal.SIGKILL)
    child.wait()
    return not list(folder.glob("*/manifest.json"))


def published_digest(artifact):
    return json.loads(next(artifact.glob("*/manifest.json")).read_text())["digest"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--codepair", default=str(ROOT / "target/release/codepair"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        reference, store = f"{folder}/reference", f"{folder}/killed"
        codepair(options, reference, "run", "--jobs", "1")
        expected = digests(options, reference)
        took = {s["step"]: s["manifest"] for s in json.loads(codepair(options, reference, "status", "--json"))["steps"]}
        plan_only = subprocess.run(command(options, store, ["run", "--only", "ingest"]), capture_output=True)
        assert plan_only.returncode == 0, plan_only.stderr
        print(f"{'step':20} kills  before the manifest  equal")
        for step in STEPS:
            artifact = pathlib.Path(store) / "artifacts" / step.replace(":", "-")
            seconds = seconds_of(took[step])
            before = 0
            for _ in range(options.kills):
                unpublished = kill_once(options, store, step, seconds)
                before += unpublished
                if not unpublished:
                    assert published_digest(artifact) == expected[step], step
                    # Begin anew, without the checkpoints of the attempts so far; and strike sooner.
                    shutil.rmtree(artifact)
                    seconds *= 0.7
            subprocess.run(stage_command(options, store, step), check=True, capture_output=True)
            # The report holds times; all its outputs are volatile.
            equal = published_digest(artifact) == expected[step]
            print(f"{step:20} {options.kills:5}  {before:19}  {'yes' if equal else 'NO'}", flush=True)
            assert equal, step
        print("all digests equal")


def seconds_of(manifest):
    """How long the undisturbed run of a step took."""
    moment = lambda text: datetime.datetime.fromisoformat(text.split(".")[0].rstrip("Z"))
    fraction = lambda text: float("0." + (text.rstrip("Z").split(".") + ["0"])[1])
    start, end = manifest["started_at"], manifest["ended_at"]
    return max(0.05, (moment(end) - moment(start)).total_seconds() + fraction(end) - fraction(start))


if __name__ == "__main__":
    main()
