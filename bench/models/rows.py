"""Tables whose rows are made one at a time: each run puts its own beside those of earlier ones."""
import json
import pathlib


def line(cells):
    return "| " + " | ".join(cells) + " |"


def keep(out, rows, order, head, text):
    """Keeps rows in OUT.json, by model, and writes the table of all of them, in order, behind a text to OUT.md."""
    kept = pathlib.Path(out + ".json")
    rows = {**(json.loads(kept.read_text()) if kept.exists() else {}), **rows}
    kept.write_text(json.dumps(rows, indent=1) + "\n")
    lines = [line(rows[name]) for name in order if name in rows]
    pathlib.Path(out + ".md").write_text("\n".join([text, head, *lines]) + "\n")
