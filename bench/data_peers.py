#!/usr/bin/env python3
"""The peers of bench/data.py, one a call; prints one line of JSON: seconds (imports left out), rows, version.

  data_peers.py duckdb|pyarrow CORPUS OUT          JSONL.gz to Parquet
  data_peers.py ast WHEELS                         functions out of wheels, Python's own parser in two processes
  data_peers.py tokenizers PARQUET... VOCABULARY   train on the training split, encode all rows
  data_peers.py datatrove PARQUET WORK             MinHash, from signatures to the rows that stay
  data_peers.py text-dedup PARQUET WORK
  data_peers.py mining-input FUNCTIONS VECTORS PAIRS WORK
  data_peers.py mine WORK                          hard negatives from the same vectors
  data_peers.py same-pairs WORK                    how many of them are those that codepair mined
"""
import glob
import json
import os
import subprocess
import sys
import time
import warnings
import zipfile

FIELDS = ["repo", "path", "func_name", "language", "url", "code", "docstring", "partition"]


def convert_duckdb(corpus, out):
    import duckdb
    connection = duckdb.connect()
    connection.execute("set threads = 2")
    columns = ", ".join(f"{field}: 'VARCHAR'" for field in FIELDS)
    began = time.time()
    connection.execute(f"""copy (select {', '.join(FIELDS)} from read_json('{corpus}/*/final/jsonl/*/*.jsonl.gz',
        format = 'newline_delimited', columns = {{{columns}}})) to '{out}' (format parquet, compression zstd)""")
    seconds = time.time() - began
    return seconds, connection.execute(f"select count(*) from '{out}'").fetchone()[0], duckdb.__version__


def convert_pyarrow(corpus, out):
    import pyarrow as pa
    import pyarrow.json
    import pyarrow.parquet
    pa.set_cpu_count(2)
    options = pyarrow.json.ReadOptions(block_size=8 << 20)
    wanted = pyarrow.json.ParseOptions(explicit_schema=pa.schema([(field, pa.string()) for field in FIELDS]),
                                       unexpected_field_behavior="ignore")
    began, rows, writer = time.time(), 0, None
    for file in sorted(glob.glob(f"{corpus}/*/final/jsonl/*/*.jsonl.gz")):
        with pa.input_stream(file, compression="gzip") as stream:
            # It takes no empty file, and the corpus has some.
            if not stream.read(1):
                continue
        with pa.input_stream(file, compression="gzip") as stream:
            table = pyarrow.json.read_json(stream, read_options=options, parse_options=wanted)
        writer = writer or pyarrow.parquet.ParquetWriter(out, table.schema, compression="zstd")
        writer.write_table(table)
        rows += len(table)
    writer.close()
    return time.time() - began, rows, pa.__version__


def functions(text):
    """Functions and methods (not those within functions), the docstring apart: what codepair's source_tree takes."""
    import ast
    import textwrap
    lines, found = text.split("\n"), []

    def visit(node, prefix):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                docstring = ast.get_docstring(child)
                body = lines[child.lineno - 1:child.end_lineno]
                if docstring is not None:
                    first = child.body[0]
                    body = lines[child.lineno - 1:first.lineno - 1] + lines[first.end_lineno:child.end_lineno]
                found.append((prefix + child.name, textwrap.dedent("\n".join(body)), docstring or "", child.lineno))
            elif isinstance(child, ast.ClassDef):
                visit(child, f"{prefix}{child.name}.")
            elif not isinstance(child, ast.expr):
                visit(child, prefix)

    visit(ast.parse(text), "")
    return found


def functions_of(job):
    wheel, names = job
    count = 0
    with zipfile.ZipFile(wheel) as archive:
        for name in names:
            try:
                count += len(functions(archive.read(name).decode().replace("\r\n", "\n")))
            except (SyntaxError, UnicodeDecodeError, ValueError, RecursionError):
                pass
    return count


def extract_ast(wheels):
    from multiprocessing import Pool
    warnings.filterwarnings("ignore")
    began, jobs = time.time(), []
    for wheel in sorted(glob.glob(f"{wheels}/*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            names = sorted(info.filename for info in archive.infolist() if info.filename.endswith(".py"))
        jobs += [(wheel, names[start:start + 200]) for start in range(0, len(names), 200)]
    with Pool(2) as pool:
        rows = sum(pool.imap_unordered(functions_of, jobs))
    return time.time() - began, rows, sys.version.split()[0]


def train_and_encode(*arguments):
    import duckdb
    import tokenizers
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    files, vocabulary = list(arguments[:-1]), int(arguments[-1])
    rows = duckdb.connect().execute("select code, split from read_parquet(?) order by ordinal", [files]).fetchall()
    codes, training = [code for code, _ in rows], [code for code, split in rows if split == "train"]
    began = time.time()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(training, trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=["<pad>", "<s>", "</s>"], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    # A text that spells a special token is text.
    tokenizer.encode_special_tokens = True
    tokens = sum(len(encoding.ids) for start in range(0, len(codes), 4096)
                 for encoding in tokenizer.encode_batch_fast(codes[start:start + 4096]))
    return time.time() - began, tokens, tokenizers.__version__


def dedup_datatrove(parquet, work):
    import importlib.metadata
    from datatrove.data import Document
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    import duckdb
    os.makedirs(work, exist_ok=True)
    rows = duckdb.connect().execute(f"select id, code from '{parquet}'").fetchall()

    def read(data=None, rank=0, world_size=1):
        for id, code in rows[rank::world_size]:
            yield Document(text=code, id=id)

    config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)

    def run(name, pipeline, tasks):
        LocalPipelineExecutor(pipeline=pipeline, tasks=tasks, workers=2, logging_dir=f"{work}/logs/{name}").run()

    began = time.time()
    run("signatures", [read, MinhashDedupSignature(output_folder=f"{work}/signatures", config=config)], 2)
    run("buckets", [MinhashDedupBuckets(f"{work}/signatures", f"{work}/buckets", config=config)], 14)
    run("cluster", [MinhashDedupCluster(f"{work}/buckets", f"{work}/remove", config=config)], 1)
    # Which rows stay; nothing is written.
    run("filter", [read, MinhashDedupFilter(f"{work}/remove")], 2)
    return time.time() - began, len(rows), importlib.metadata.version("datatrove")


def dedup_text_dedup(parquet, work):
    import importlib.metadata
    os.makedirs(work, exist_ok=True)
    command = [sys.executable, "-m", "text_dedup.minhash", "--path", "parquet", "--data_files", parquet, "--split", "train",
               "--cache_dir", f"{work}/cache", "--output", f"{work}/output", "--column", "code", "--ngram", "5",
               "--num_perm", "240", "--threshold", "0.7", "--num_proc", "2", "--batch_size", "10000"]
    began = time.time()
    subprocess.run([sys.executable, "-c", "import text_dedup.minhash"], capture_output=True)
    importing = time.time() - began
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        sys.exit(f"text-dedup fails: {ran.stderr.strip().splitlines()[-1]}")
    return time.time() - began - 2 * importing, 0, importlib.metadata.version("text-dedup")


def mining_input(functions, vectors, pairs, work):
    """What codepair mined with, as sentence-transformers wants it. Queries are those whose text is that of one function alone:
    for others the two count ranks differently."""
    import hashlib
    import duckdb
    import numpy
    began, connection = time.time(), duckdb.connect()
    mined = connection.execute(f"""select parent_id, text, list(code order by ordinal) from '{pairs}'
        group by all order by min(ordinal)""").fetchall()
    rows = connection.execute(f"""select id, docstring, code from '{functions}'
        where split in ('train', 'validation') order by ordinal""").fetchall()
    texts, code_of, corpus = {}, {}, {}
    for id, docstring, code in rows:
        texts[docstring] = texts.get(docstring, 0) + 1
        code_of[id] = code
        corpus.setdefault(code, id)
    mined = [(id, text, codes) for id, text, codes in mined if texts[text] == 1]
    query_of = {id: at for at, (id, _, _) in enumerate(mined)}
    code_at = {id: at for at, id in enumerate(corpus.values())}
    width = len(connection.execute(f"select vector from '{vectors}' limit 1").fetchone()[0])
    arrays = {"text": numpy.zeros((len(mined), width), dtype=numpy.float32),
              "code": numpy.zeros((len(corpus), width), dtype=numpy.float32)}
    cursor = connection.execute(f"select id, field, vector from '{vectors}'")
    while part := cursor.fetchmany(20_000):
        for id, field, vector in part:
            place = (query_of if field == "text" else code_at).get(id)
            if place is not None:
                arrays[field][place] = vector
    os.makedirs(work, exist_ok=True)
    queries, codes = [text for _, text, _ in mined], list(corpus)
    for kind, all_texts, array in (("query", queries, arrays["text"]), ("corpus", codes, arrays["code"])):
        digest = hashlib.sha256(repr(("given", None, None, all_texts)).encode(), usedforsecurity=False).hexdigest()
        numpy.save(f"{work}/{kind}_embeddings_{digest}.npy", array)
    with open(f"{work}/input.json", "w") as out:
        json.dump({"queries": queries, "positives": [code_of[id] for id, _, _ in mined], "codes": codes,
                   "mined": [codes for _, _, codes in mined], "width": width}, out)
    return time.time() - began, len(queries), ""


def mine(work):
    """The vectors come out of the library's own cache of embeddings, so that mining alone is timed; with FAISS, whose exact
    index is what the library offers against its own growth."""
    import sentence_transformers
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives
    with open(f"{work}/input.json") as file:
        given = json.load(file)

    class Given:
        """A model that was asked before: all it says is in the cache."""
        device = "cpu"
        model_card_data = type("Card", (), {"base_model": "given"})
        similarity = staticmethod(sentence_transformers.util.dot_score)
        similarity_pairwise = staticmethod(sentence_transformers.util.pairwise_dot_score)

        def get_embedding_dimension(self):
            return given["width"]

    dataset = Dataset.from_dict({"query": given["queries"], "positive": given["positives"]})
    del given["positives"], given["mined"]
    began = time.time()
    found = mine_hard_negatives(dataset, Given(), corpus=given["codes"], num_negatives=3, range_max=40, use_faiss=True,
                                output_format="n-tuple", cache_folder=work, verbose=False)
    seconds = time.time() - began
    with open(f"{work}/found.json", "w") as out:
        json.dump({row["query"]: [row[f"negative_{at}"] for at in (1, 2, 3)] for row in found}, out)
    return seconds, len(given["queries"]), sentence_transformers.__version__


def same_pairs(work):
    """How many pairs are the same, and how far the scores of those lie apart that are not."""
    import numpy
    began = time.time()
    with open(f"{work}/input.json") as file, open(f"{work}/found.json") as other:
        given, theirs = json.load(file), json.load(other)
    arrays = {kind: numpy.load(glob.glob(f"{work}/{kind}_embeddings_*.npy")[0]) for kind in ("query", "corpus")}
    place, same, apart = {code: at for at, code in enumerate(given["codes"])}, 0, 0.0
    for at, (query, ours) in enumerate(zip(given["queries"], given["mined"])):
        found = theirs.get(query, [])
        same += len(set(found) & set(ours))
        scores = [sorted(arrays["query"][at] @ arrays["corpus"][place[code]] for code in codes) for codes in (ours, found)]
        apart = max([apart] + [abs(float(one - two)) for one, two in zip(*scores)])
    counts = {"queries": len(given["queries"]), "codes": len(given["codes"]), "same": same, "apart": apart,
              "ours": sum(map(len, given["mined"])), "theirs": sum(map(len, theirs.values()))}
    return time.time() - began, counts, ""


PEERS = {"mining-input": mining_input, "mine": mine, "same-pairs": same_pairs, "duckdb": convert_duckdb, "pyarrow": convert_pyarrow, "ast": extract_ast, "tokenizers": train_and_encode,
         "datatrove": dedup_datatrove, "text-dedup": dedup_text_dedup}

if __name__ == "__main__":
    seconds, rows, version = PEERS[sys.argv[1]](*sys.argv[2:])
    print(json.dumps({"seconds": seconds, "rows": rows, "version": version}))
