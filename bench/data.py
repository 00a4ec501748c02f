#!/usr/bin/env python3
"""The data half beside its peers, in one run on the same rows and both cores; prints a table and keeps it.

  data.py --corpus DIR --wheels DIR [--codepair PATH] [--python PYTHON-WITH-PEERS] [--out FILE] [--dedup-rows N] [STEP ...]

Steps: convert, extract, tokenise, dedup, mine, growth (all of them by default), many, for which --many rows are made up, and
paired, which runs an older build (--before PATH) and this one in turn on the same rows. `just bench data` builds the corpus (about 430,000 functions; CODEPAIR_TOOLS names the folder of python_corpus.py), installs the peers and calls this. Peers are timed from
within, without their imports. codepair is timed as a whole process where it converts and extracts, and by the seconds in its
manifest where its stage does more than the peer does (writing, decontamination, structural duplicates). Memory is the resident
peak of the largest process.
"""
import argparse
import gzip
import glob
import json
import os
import pathlib
import platform
import random
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROUNDS = 7
STEPS = ["convert", "extract", "tokenise", "dedup", "mine", "growth"]
ON_DEMAND = ["many", "paired"]


class Bench:
    def __init__(self, options, work):
        self.options, self.work, self.rows, self.notes = options, work, [], []

    def run(self, command):
        """Seconds, resident peak in MB, standard output; nothing where it fails."""
        began = time.time()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
            process = subprocess.Popen([str(word) for word in command], stdout=out, stderr=errors)
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.time() - began
            out.seek(0), errors.seek(0)
            if status:
                lines = errors.read().decode(errors="replace").strip().splitlines() or [f"status {status}"]
                return None, None, next((line for line in lines if " ERROR " in line), lines[-1])
            return seconds, usage.ru_maxrss / 1024, out.read().decode()

    def codepair(self, name, config):
        """The binary of a stage, with a config of its own; its seconds, peak and manifest."""
        path = self.work / "config.toml"
        path.write_text(config)
        seconds, peak, said = self.run([pathlib.Path(self.options.codepair).parent / f"codepair-{name}", "--config", path])
        if seconds is None:
            sys.exit(f"codepair-{name} failed: {said}")
        newest = max(glob.glob(f"{self.work}/store/artifacts/{name}/*/manifest.json"), key=os.path.getmtime)
        manifest = json.loads(pathlib.Path(newest).read_text())
        return seconds, manifest["peak_memory_bytes"] / 2**20, manifest

    def peer(self, name, *arguments):
        seconds, peak, said = self.run([self.options.python, ROOT / "bench/data_peers.py", name, *arguments])
        if seconds is None:
            self.notes.append(f"{name} failed: {said}")
            return None
        return {**json.loads(said.strip().splitlines()[-1]), "peak": peak}

    def config(self, more):
        return f'name = "bench"\n[store]\nurl = "file://{self.work}/store"\n{more}'

    def corpus(self, folder=None):
        return f'[ingest.corpus]\nkind = "codesearchnet"\npath = "{folder or self.options.corpus}"\n'

    def add(self, step, ours, peak, peer, version, wanted, result):
        """One row of the table; `result` is the peer's answer or nothing."""
        if result is None:
            self.rows.append((step, f"{ours:.1f} s", f"{peak:.0f} MB", peer, "failed", "", "", wanted, ""))
            return
        ratio = result["seconds"] / ours
        met = "met" if ratio >= wanted else "**not met**"
        self.rows.append((step, f"{ours:.1f} s", f"{peak:.0f} MB", f"{peer} {version}", f"{result['seconds']:.1f} s",
                          f"{result['peak']:.0f} MB", f"{ratio:.1f}×", f"{wanted}×", met))

    def convert(self):
        """Each ran once a round, in turn, so that a slow minute of the machine is everybody's; the round with the median ratio
        counts."""
        ours, peers = [], {"duckdb": [], "pyarrow": []}
        for _ in self.fresh(ROUNDS):
            ours.append(self.codepair("ingest", self.config(self.corpus())))
            for name, found in peers.items():
                found.append(self.peer(name, self.options.corpus, self.work / f"{name}.parquet"))
        manifest = ours[0][2]
        rows = sum(output["rows"] for output in manifest["outputs"] if output["dataset"] == "functions")
        for name, wanted in (("duckdb", 1.5), ("pyarrow", 2)):
            found = [one for one in peers[name] if one]
            rounds = [(ran, one) for ran, one in zip(ours, peers[name]) if one]
            (seconds, peak, _), result = median(rounds, lambda pair: pair[1]["seconds"] / pair[0][0]) if rounds else (ours[0], None)
            if result and result["rows"] != rows:
                self.notes.append(f"{name} wrote {result['rows']} rows, codepair {rows}: the others hold no code, and are rejected ones")
            self.add(f"JSONL.gz → Parquet, {rows} rows", seconds, peak, name, result and result["version"], wanted, result)
            self.notes.append(f"{name} made {os.path.getsize(self.work / f'{name}.parquet') / 2**20:.0f} MB of 8 columns, codepair "
                              f"{sum(output['bytes'] for output in manifest['outputs']) / 2**20:.0f} MB of 14; both with zstd, each at its "
                              "own level")
            if len(found) == len(ours):
                ratios = sorted(one["seconds"] / ran[0] for one, ran in zip(found, ours))
                self.notes.append(f"{name}, round by round: {', '.join(f'{ratio:.2f}×' for ratio in ratios)}")

    def fresh(self, times):
        """So many times, with nothing in the store."""
        for number in range(times):
            subprocess.run(["rm", "-rf", self.work / "store"], check=True)
            yield number

    def extract(self):
        tree = f'[ingest.tree]\nkind = "source_tree"\npath = "{self.options.wheels}"\narchives = true\nexclude = []\nshares = {{ validation = 0.0, test = 0.0 }}\n'
        seconds, peak, manifest = min((self.codepair("ingest", self.config(tree)) for _ in self.fresh(3)),
                                      key=lambda ran: ran[0])
        rows = sum(output["rows"] for output in manifest["outputs"])
        found = [one for one in (self.peer("ast", self.options.wheels) for _ in range(3)) if one]
        result = min(found, key=lambda one: one["seconds"], default=None)
        version = f"Python {result['version']}" if result else ""
        self.add(f"source_tree, {rows} functions", seconds, peak, "ast, 2 processes,", version, 5, result)
        if not result:
            return
        self.notes.append(f"source_tree: codepair found {rows - 1} functions (those that its rules leave out are rejected ones), "
                          f"ast {result['rows']}")

    def prepare(self, more, folder=None):
        return self.to_prepare(self.corpus(folder) + "[prepare]\nkeep_rows_without_text = true\n" + more)

    def to_prepare(self, config, codepair=None):
        """Ingest, prepare under a limit, and tokenize what there are tokenizers for: of each the seconds, the manifest and its folder."""
        config = self.config(config + '[resources.prepare]\nmemory_limit = "1GiB"\n')
        path, codepair = self.work / "config.toml", codepair or self.options.codepair
        path.write_text(config)
        # An older build has its tokenizers in `prepare`.
        tokenizes = "[prepare.tokenizers" in config and pathlib.Path(codepair).with_name("codepair-tokenize").exists()
        ran = self.run([codepair, "run", "--config", path, "--until", "tokenize" if tokenizes else "prepare", "--jobs", "1"])
        if ran[0] is None:
            sys.exit(f"codepair run failed: {ran[2]}")
        manifests = {}
        for stage in ("ingest", "prepare", "tokenize-code")[:3 if tokenizes else 2]:
            newest = max(glob.glob(f"{self.work}/store/artifacts/{stage}/*/manifest.json"), key=os.path.getmtime)
            manifest = json.loads(pathlib.Path(newest).read_text())
            began, ended = (manifest[key] for key in ("started_at", "ended_at"))
            manifests[stage] = (seconds_between(began, ended), manifest, pathlib.Path(newest).parent)
        return manifests

    def tokenise(self):
        for _ in self.fresh(1):
            table = '[prepare.tokenizers.code]\nvocabulary = 16000\nfields = ["code"]\ntraining_rows = 1000000\n'
            stages = self.prepare(table)
        _, manifest, folder = stages["tokenize-code"]
        ours = manifest["notes"]["training_seconds"] + manifest["notes"]["encoding_seconds"]
        files = sorted(glob.glob(f"{stages['prepare'][2]}/attempt-*/examples/*.parquet"))
        result = self.peer("tokenizers", *files, 16000)
        self.add("BPE, 16,000 tokens, train and encode", ours, manifest["peak_memory_bytes"] / 2**20, "tokenizers",
                 result and result["version"], 1.3, result)
        if result:
            query = "select sum(code_length) from read_parquet(?)"
            script = f"import duckdb, sys; print(duckdb.connect().execute({query!r}, [sys.argv[1:]]).fetchone()[0])"
            tokens = sorted(glob.glob(f"{folder}/attempt-*/tokens_code/*.parquet"))
            own = int(subprocess.run([self.options.python, "-c", script, *tokens], check=True, capture_output=True).stdout)
            self.notes.append(f"BPE: both wrote {own} tokens" if own == result["rows"]
                              else f"**BPE: codepair wrote {own} tokens, tokenizers {result['rows']}**")

    def dedup(self):
        folder = self.subset("dedup", self.options.dedup_rows) if self.options.dedup_rows else None
        # What the peers do: exact and near.
        runs = [self.prepare("structural_duplicates = false\n", folder)["prepare"][1] for _ in self.fresh(3)]
        manifest = sorted(runs, key=lambda run: run["notes"]["seconds_to_verdicts"])[1]
        seconds = manifest["notes"]["seconds_to_verdicts"]
        self.notes.append("dedup, run by run: " + ", ".join(f"{run['notes']['seconds_to_verdicts']:.1f} s" for run in runs))
        ingested = max(glob.glob(f"{self.work}/store/artifacts/ingest/*/attempt-*/functions"), key=os.path.getmtime)
        rows = sum(output["rows"] for output in manifest["outputs"] if output["dataset"] in ("examples", "rejected"))
        for name in self.options.dedup_peers.split(","):
            result = self.peer(name, f"{ingested}/*.parquet", self.work / name)
            self.add(f"dedup and decontamination, {rows} rows, signatures to keepers", seconds, manifest["peak_memory_bytes"] / 2**20, name,
                     result and result["version"], 30, result)
        checked = self.subset("checked", 20_000)
        ran = self.run([sys.executable, ROOT / "bench/near_duplicates.py", "--codepair", self.options.codepair,
                        "--config", self.checked_config(checked)])
        self.notes.append(f"near-duplicates by brute force: {ran[2].strip()}")

    def checked_config(self, folder):
        path = self.work / "checked.toml"
        path.write_text(self.config(self.corpus(folder) + "[prepare]\nkeep_rows_without_text = true\n"))
        return path

    def subset(self, name, rows):
        """The first rows of each file in turn, so that every package is there."""
        folder = self.work / f"corpus-{name}"
        if folder.exists():
            return folder
        files = sorted(glob.glob(f"{self.options.corpus}/*/final/jsonl/*/*.jsonl.gz"))
        counts = {file: sum(1 for _ in gzip.open(file)) for file in files}
        share = min(1.0, rows / sum(counts.values()))
        left = rows
        for file in files:
            target = folder / pathlib.Path(file).relative_to(self.options.corpus)
            target.parent.mkdir(parents=True, exist_ok=True)
            wanted = min(left, round(counts[file] * share) if file != files[-1] else left)
            left -= wanted
            with gzip.open(file) as source, gzip.open(target, "wb", compresslevel=4) as out:
                for line, _ in zip(source, range(wanted)):
                    out.write(line)
        return folder

    def mine(self):
        """A model trained on a tenth of the corpus embeds all of it; both mine with its vectors. Memory is what counts here, and
        codepair's is that of the whole stage, embedding included."""
        path, small = self.work / "mine.toml", self.subset("model", 40_000)
        nbow = ("[prepare.tokenizers.search]\nvocabulary = 10000\n[train.nbow]\nepochs = 2\nbatch_size = 256\n"
                'source = { column = "text", tokenizer = "search", max_tokens = 48 }\n'
                'target = { column = "code", tokenizer = "search", max_tokens = 200 }\n'
                'model = { kind = "nbow", embedding = 256, shared = true }\n')
        for _ in self.fresh(1):
            path.write_text(self.config(self.corpus(small) + nbow))
            self.must_run([self.options.codepair, "run", "--config", path, "--until", "train"])
        model = self.newest("train-nbow")
        generators = (f'[synth.vectors]\nkind = "embed"\nmodel = "nbow@{model.name}"\n[synth.hard]\nkind = "mined"\nby = "vectors"\n'
                      "limit = 38500\nrange_max = 40\n")
        path.write_text(self.config(self.corpus() + generators))
        self.must_run([self.options.codepair, "run", "--config", path, "--until", "synth"])
        functions, synth = self.newest("ingest"), self.newest("synth")
        manifest = json.loads((synth / "manifest.json").read_text())
        parts = [f"{folder}/attempt-*/{dataset}/*.parquet" for folder, dataset in
                 ((functions, "functions"), (synth, "embeddings"), (synth, "synthetic_pairs"))]
        work = self.work / "mining"
        self.peer("mining-input", *parts, work)
        result = self.peer("mine", work)
        peak = manifest["peak_memory_bytes"] / 2**20
        if not result:
            return
        same = self.peer("same-pairs", work)["rows"]
        ratio = result["peak"] / peak
        self.rows.append((f"hard negatives, {same['queries']} queries × {same['codes']} functions, 256 floats",
                          f"{manifest['notes']['hard']['seconds']:.1f} s", f"{peak:.0f} MB", f"sentence-transformers {result['version']}, FAISS",
                          f"{result['seconds']:.1f} s", f"{result['peak']:.0f} MB", f"1/{ratio:.1f} of the memory", "1/4",
                          "met" if ratio >= 4 else "**not met**"))
        self.notes.append(f"hard negatives: {same['same']} of {same['ours']} pairs are the same (the peer found {same['theirs']}); the "
                          f"scores of the others are {same['apart']:.1e} apart at most. codepair mined for 38500 queries, of which "
                          "those count whose text is that of one function alone, and leaves out copies of a right answer, near and "
                          "structural, where the peer takes them")

    def must_run(self, command):
        seconds, _, said = self.run(command)
        if seconds is None:
            sys.exit(f"{' '.join(map(str, command))}: {said}")

    def newest(self, step):
        """The folder of a step's newest artifact."""
        return pathlib.Path(max(glob.glob(f"{self.work}/store/artifacts/{step}/*/manifest.json"), key=os.path.getmtime)).parent

    def growth(self):
        table = '[prepare.tokenizers.code]\nvocabulary = 16000\n'
        seen = []
        for rows in (100_000, 200_000, 400_000):
            folder = self.subset(f"growth-{rows}", rows)
            runs = [self.prepare(table, folder) for _ in self.fresh(3)]
            stages = min(runs, key=lambda stages: sum(stage[0] for stage in stages.values()))
            seconds = sum(stage[0] for stage in stages.values())
            peaks = [stage[1]["peak_memory_bytes"] / 2**20 for stage in stages.values()]
            seen.append((rows, seconds, peaks))
        self.growth_rows, before = [], None
        for rows, seconds, peaks in seen:
            more = 1e6 * (seconds - before[1]) / (rows - before[0]) if before else None
            self.growth_rows.append((f"{rows}", f"{seconds:.1f} s", f"{1e6 * seconds / rows:.1f}", f"{more:.1f}" if more else "",
                                     *(f"{peak:.0f} MB" for peak in peaks), "met" if max(peaks) <= 1536 else "**not met**"))
            before = rows, seconds
        (first, least, _), (middle, time, _), (last, most, _) = seen
        line = least + (most - least) * (middle - first) / (last - first)
        away = (time / line - 1) * 100
        self.notes.append(f"growth: the time for 200,000 rows lies {away:+.0f}% off the straight line between those for 100,000 and "
                          f"400,000 (linear within 15%: {'met' if abs(away) <= 15 else '**not met**'})")

    def many(self):
        """Rows so small and so many that what is kept for each row counts: one in three is a near-duplicate, one in ten is tested on."""
        rows, file = self.options.many, self.work / "many.jsonl.gz"
        chance = random.Random(7)
        with gzip.open(file, "wt", compresslevel=1) as out:
            for row in range(rows):
                if row % 3 == 2:
                    body += f"    last = value_{name} + {chance.randrange(1000)}\n"
                else:
                    name = row
                    body = "".join(f"    value_{name} = call_{chance.randrange(3000)}(value_{name}, {chance.randrange(1000)})\n"
                                   for _ in range(8))
                words = " ".join(f"word{chance.randrange(5000)}" for _ in range(9))
                split = ("test", "validation", *["train"] * 8)[chance.randrange(10)]
                out.write(json.dumps({"text": words, "code": f"def f{row}(value_{name}):\n{body}", "partition": split}) + "\n")
        stages = self.to_prepare(f'[ingest.many]\nkind = "jsonl"\npath = "{file}"\ncolumns = {{ code = "code", docstring = "text", '
                                 'split = "partition" }\n')
        for name, (seconds, manifest, _) in stages.items():
            peak, counts = manifest["peak_memory_bytes"] / 2**20, {}
            for output in manifest["outputs"]:
                counts[output["dataset"]] = counts.get(output["dataset"], 0) + (output["rows"] or 0)
            counts = ", ".join(f"{rows} {dataset}" for dataset, rows in counts.items() if rows)
            self.notes.append(f"{rows} small rows through {name} under 1 GiB: {seconds:.0f} s, peak {peak:.0f} MB of 1,536 "
                              f"({'met' if peak <= 1536 else '**not met**'}); {counts}; {manifest['notes']}")

    def paired(self):
        """An older build and this one in turn, so that a slow minute of the machine is both's. The spread is that of the older one:
        how far its rounds lie apart."""
        corpus = self.corpus() + "[prepare]\nkeep_rows_without_text = true\n[prepare.tokenizers.code]\nvocabulary = 16000\n"
        tree = f'[ingest.tree]\nkind = "source_tree"\npath = "{self.options.wheels}"\narchives = true\nexclude = []\nshares = {{ validation = 0.0, test = 0.0 }}\n'
        rows = {"JSONL.gz → Parquet": [], "source_tree": [], "prepare, BPE included": []}
        for _ in range(ROUNDS):
            ran = {name: [] for name in rows}
            for codepair in (self.options.before, self.options.codepair):
                for _ in self.fresh(1):
                    ran["source_tree"].append(self.ended(codepair, "ingest", tree))
                for _ in self.fresh(1):
                    stages = [stage for name, stage in self.to_prepare(corpus, codepair).items() if name != "ingest"]
                    peak = max(manifest["peak_memory_bytes"] for _, manifest, _ in stages)
                    ran["prepare, BPE included"].append((sum(stage[0] for stage in stages), peak / 2**20))
                for _ in self.fresh(1):
                    ran["JSONL.gz → Parquet"].append(self.ended(codepair, "ingest", corpus))
            for name, pair in ran.items():
                rows[name].append(pair)
        self.paired_rows = []
        for name, pairs in rows.items():
            before, now = ([pair[side] for pair in pairs] for side in (0, 1))
            seconds = [sorted(run[0] for run in side) for side in (before, now)]
            peaks = [sorted(run[1] for run in side) for side in (before, now)]
            ratios = sorted(new[0] / old[0] for old, new in pairs)
            middle = [side[len(side) // 2] for side in seconds]
            spread = (seconds[0][-1] / seconds[0][0] - 1) * 100
            memory = [f"{side[len(side) // 2]:.0f} MB ({side[0]:.0f}–{side[-1]:.0f})" for side in peaks]
            self.paired_rows.append((name, f"{middle[0]:.1f} s", f"{middle[1]:.1f} s", f"{ratios[len(ratios) // 2]:.2f}",
                                     f"{ratios[0]:.2f}–{ratios[-1]:.2f}", f"{spread:.0f}%", *memory))

    def ended(self, codepair, stage, config):
        """Seconds and peak of a stage's binary beside a `codepair`."""
        path = self.work / "config.toml"
        path.write_text(self.config(config))
        seconds, peak, said = self.run([pathlib.Path(codepair).parent / f"codepair-{stage}", "--config", path])
        if seconds is None:
            sys.exit(f"{codepair}: codepair-{stage} failed: {said}")
        return seconds, peak

    def report(self):
        head = ("step", "codepair", "memory", "peer", "its time", "its memory", "faster", "asked for", "")
        lines = ["# The data half beside its peers", "",
                 f"Made by `just bench data` on {time.strftime('%Y-%m-%d')}: {cpu()}, {os.cpu_count()} cores, "
                 f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB, {platform.platform()}. The median of "
                 f"{ROUNDS} rounds for converting, best of three for extracting and growth, the median of three for dedup's own side, one run of the rest.", ""]
        if self.rows:
            lines += table(head, self.rows)
        if getattr(self, "paired_rows", None):
            lines += ["", f"Before ({self.options.before_name}) and now, in {ROUNDS} paired rounds:", ""]
            lines += table(("stage", "before", "now", "now / before", "rounds from–to", "spread before", "memory before (from–to)", "now"), self.paired_rows)
        if getattr(self, "growth_rows", None):
            lines += ["", "Ingest, prepare under `memory_limit = \"1GiB\"` and one tokenizer (at most 1,536 MB allowed):", ""]
            lines += table(("rows", "time", "µs a row", "µs for each row more", "peak of ingest", "of prepare", "of tokenize", "memory"),
                           self.growth_rows)
        lines += [""] + [f"- {note}" for note in self.notes]
        text = "\n".join(lines) + "\n"
        print(text)
        if self.options.out:
            pathlib.Path(self.options.out).write_text(text)


def median(found, key):
    return sorted(found, key=key)[len(found) // 2]


def table(head, rows):
    line = lambda cells: "| " + " | ".join(str(cell) for cell in cells) + " |"
    return [line(head), line("---" for _ in head)] + [line(row) for row in rows]


def seconds_between(began, ended):
    from datetime import datetime
    read = lambda text: datetime.fromisoformat(text[:26].rstrip("Z") + "+00:00")
    return (read(ended) - read(began)).total_seconds()


def cpu():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True, type=pathlib.Path)
    parser.add_argument("--wheels", required=True, type=pathlib.Path)
    parser.add_argument("--codepair", default=str(ROOT / "target/release/codepair"))
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has the peers")
    parser.add_argument("--out", help="write the table there as well")
    parser.add_argument("--dedup-rows", type=int, default=0, help="deduplicate only so many rows (datatrove takes minutes)")
    parser.add_argument("--dedup-peers", default="datatrove,text-dedup", help="beside whom to deduplicate")
    parser.add_argument("--many", type=int, default=5_000_000, help="rows of the step `many`")
    parser.add_argument("--before", help="an older codepair, with its binaries beside it, for the step `paired`")
    parser.add_argument("--before-name", default="an older build", help="what to call it, such as its commit")
    parser.add_argument("steps", nargs="*", metavar="STEP")
    options = parser.parse_args()
    if unknown := set(options.steps) - set(STEPS + ON_DEMAND):
        parser.error(f"no such step: {', '.join(unknown)}; there are {', '.join(STEPS + ON_DEMAND)}")
    if "paired" in options.steps and not options.before:
        parser.error("the step paired wants --before, an older codepair")
    options.corpus, options.wheels = options.corpus.resolve(), options.wheels.resolve()
    with tempfile.TemporaryDirectory(prefix="codepair-bench-") as work:
        bench = Bench(options, pathlib.Path(work))
        for step in options.steps or STEPS:
            print(f"{step} …", file=sys.stderr)
            getattr(bench, step)()
        bench.report()


if __name__ == "__main__":
    main()
