#!/usr/bin/env python3
"""Near-duplicates against brute force: every pair of rows compared by its 5-token shingles, written anew in Python.

  near_duplicates.py [--codepair PATH] [--config FILE] [--set KEY=VALUE]… [--threshold 0.7]

Prints which share of the pairs at or above the threshold landed in one cluster (at least 98% asked for), and the lowest
similarity of a merging edge (never below the threshold; structural duplicates may be less alike). Compared are the rows
that reach near-deduplication: original, with text, not contaminated, no exact duplicates.
"""
import argparse
import collections
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOKEN = re.compile(r"\w+|[^\w\s]")
ROWS = """
select c.id, code, coalesce(reason, '') = 'evaluation_only' as evaluation
from (select id, code from functions union all select id, code from problems) c
left join (select id, reason from rejected where stage = 'prepare') r on c.id = r.id
where coalesce(reason, '') not in ('no_text', 'contaminated', 'exact_duplicate')"""
EDGES = "select id, neighbour_id, kept_id, jaccard, kind from duplicates where kind in ('near', 'structural')"


def shingles(code):
    tokens = TOKEN.findall(code)
    return {tuple(tokens[i:i + 5]) for i in range(len(tokens) - 4)} if len(tokens) >= 5 else {tuple(tokens)}


def similar_pairs(sets, threshold):
    """All pairs with a Jaccard similarity of at least the threshold, found through an inverted index: exact."""
    index = collections.defaultdict(list)
    for number, one in enumerate(sets):
        common = collections.Counter()
        for shingle in one:
            for other in index[shingle]:
                common[other] += 1
            index[shingle].append(number)
        for other, both in common.items():
            if both / (len(one) + len(sets[other]) - both) >= threshold - 1e-12:
                yield other, number


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codepair", default=str(ROOT / "target/release/codepair"))
    parser.add_argument("--config", default=str(ROOT / "configs/sample.toml"))
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--threshold", type=float, default=0.7)
    options = parser.parse_args()
    tail = ["--config", options.config] + [word for value in options.set for word in ("--set", value)]
    # A query goes to runs that there are, and refuses values that would change nothing.
    asked = ["--config", options.config] + [word for value in options.set if value.startswith("store.") for word in ("--set", value)]
    subprocess.run([options.codepair, "run", "--until", "prepare", *tail], check=True, capture_output=True)
    ask = lambda query: json.loads(subprocess.run([options.codepair, "sql", "--format", "json", query, *asked],
                                                  check=True, capture_output=True).stdout)
    rows, edges = ask(ROWS), ask(EDGES)
    sets = [shingles(row["code"]) for row in rows]
    by_id = {row["id"]: number for number, row in enumerate(rows)}
    kept = {edge["id"]: edge["kept_id"] for edge in edges}
    cluster = [kept.get(row["id"], row["id"]) for row in rows]
    # Two rows that are only there to be evaluated on stay both, however alike.
    pairs = [(one, two) for one, two in similar_pairs(sets, options.threshold)
             if not (rows[one]["evaluation"] and rows[two]["evaluation"])]
    together = sum(cluster[a] == cluster[b] for a, b in pairs)
    lowest = 1.0
    for edge in edges:
        one, two = sets[by_id[edge["id"]]], sets[by_id[edge["neighbour_id"]]]
        true = len(one & two) / len(one | two)
        assert abs(true - edge["jaccard"]) < 1e-9, (edge, true)
        lowest = min(lowest, true) if edge["kind"] == "near" else lowest
    share = together / len(pairs) if pairs else 1.0
    print(f"{len(rows)} rows, {len(pairs)} pairs with Jaccard >= {options.threshold}: "
          f"{together} share a cluster ({100 * share:.1f}%); {len(edges)} merging edges, the lowest {lowest:.4f}")
    if share < 0.98 or lowest < options.threshold:
        sys.exit("at least 98% must share a cluster, and no edge be below the threshold")


if __name__ == "__main__":
    main()
