#!/usr/bin/env python3
"""Do the offline generator's pairs say the truth? Runs the problems' own tests against every pair made from them.

  offline_honesty.py [--codepair PATH] [--config FILE] [--set KEY=VALUE]…

Positives must pass all tests, edited negatives should fail one. Each pair runs in a child process under limits of time
and memory. The default config is bench/honesty.toml: all of MBPP, where present, and the quickstart's problems.
"""
import argparse
import collections
import json
import multiprocessing
import pathlib
import resource
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
QUERY = """
select p.kind, p.edit, p.code, q.source, q.task_id, q.test_setup_code, q.test_list
from synthetic_pairs p join problems q on p.parent_id = q.id where p.edit <> 'nearest'"""
SECONDS, BYTES = 20, 1 << 30


def limits():
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def passes(pair):
    # The setup may use what the code defines, such as a Node class.
    program = "\n".join([pair["code"], pair["test_setup_code"], *pair["test_list"]])
    try:
        done = subprocess.run([sys.executable, "-I", "-S", "-"], input=program.encode(), timeout=2 * SECONDS,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=limits)
        return done.returncode == 0
    except subprocess.TimeoutExpired:
        return False


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codepair", default=str(ROOT / "target/release/codepair"))
    parser.add_argument("--config", default=str(ROOT / "bench/honesty.toml"))
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    tail = ["--config", options.config] + [word for value in options.set for word in ("--set", value)]
    # A query goes to runs that there are, and refuses values that would change nothing.
    asked = ["--config", options.config] + [word for value in options.set if value.startswith("store.") for word in ("--set", value)]
    subprocess.run([options.codepair, "run", "--until", "synth", *tail], check=True, capture_output=True)
    answer = subprocess.run([options.codepair, "sql", "--format", "json", QUERY, *asked], check=True, capture_output=True)
    pairs = json.loads(answer.stdout)
    with multiprocessing.Pool() as pool:
        results = pool.map(passes, pairs)
    counts = collections.Counter()
    for pair, passed in zip(pairs, results):
        for edit in (pair["edit"], "all"):
            counts[pair["kind"], edit, passed] += 1
        if passed != (pair["kind"] == "positive") and pair["kind"] == "positive":
            print(f"a positive fails: {pair['source']} task {pair['task_id']} ({pair['edit']})\n{pair['code']}", file=sys.stderr)
    print(f"{'kind':9} {'edit':18} pass  fail  honest")
    for kind, edit in sorted({key[:2] for key in counts}):
        good, bad = counts[kind, edit, True], counts[kind, edit, False]
        honest = good if kind == "positive" else bad
        print(f"{kind:9} {edit:18} {good:4}  {bad:4}  {100 * honest / (good + bad):5.1f}%")
    positives_fail = counts["positive", "all", False]
    negatives = counts["negative", "all", True] + counts["negative", "all", False]
    assert counts["positive", "all", True] and negatives, "no pairs were made"
    if positives_fail or counts["negative", "all", False] < 0.9 * negatives:
        sys.exit("not honest: every positive must pass, and 90% of the negatives fail")


if __name__ == "__main__":
    main()
