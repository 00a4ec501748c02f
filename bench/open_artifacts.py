#!/usr/bin/env python3
"""Opens every Parquet file of a store with DuckDB and with pyarrow, and compares their row counts.

  open_artifacts.py STORE        needs: pip install duckdb pyarrow        exit 77: they are not installed
"""
import pathlib
import sys

try:
    import duckdb
    import pyarrow.parquet
except ImportError as error:
    print(f"{error}; pip install duckdb pyarrow", file=sys.stderr)
    sys.exit(77)

files = sorted(pathlib.Path(sys.argv[1]).rglob("*.parquet"))
rows = 0
for path in files:
    table = pyarrow.parquet.read_table(path)
    counted = len(duckdb.sql(f"select * from read_parquet('{path}')").fetchall())
    assert counted == table.num_rows, f"{path}: {counted} rows by DuckDB, {table.num_rows} by pyarrow"
    rows += counted
assert files, f"{sys.argv[1]} holds no Parquet"
print(f"{len(files)} files opened by DuckDB and pyarrow, {rows} rows")
