//! A config for a place that was looked at: a source, tokenizers and models that fit the number of its rows.

use std::fmt::Write as _;

use super::Seen;
use crate::keys::toml;

/// Steps after which a generator has learned what a few minutes on one core teach it.
const STEPS: u64 = 150;
const BATCH: u64 = 32;
/// Of fewer rows nothing can be learned that writes code.
const LEAST_TO_GENERATE: u64 = 50;
/// Longer targets take long to learn, and few are.
const LONGEST_TARGET: u64 = 96;

/// The text of the config.
pub(super) fn config(seen: &Seen, name: &str, path: &str) -> String {
    let mut text = String::new();
    // Writing to a text cannot fail.
    let _ = source(&mut text, seen, name, path).and_then(|()| models(&mut text, seen));
    text
}

fn source(text: &mut String, seen: &Seen, name: &str, path: &str) -> std::fmt::Result {
    writeln!(
        text,
        "# Made by codepair init of what {} looked like. Each key is explained by: codepair config\n",
        toml(&path.into())
    )?;
    writeln!(text, "name = {}\n", toml(&name.into()))?;
    writeln!(text, "[store]\nurl = \"file://.codepair\" # beside this file; s3://, gs:// and az:// do as well\n")?;
    writeln!(text, "# {}", rows(seen))?;
    seen.remarks.iter().try_for_each(|remark| writeln!(text, "# {}", plain(remark)))?;
    writeln!(text, "[ingest.{name}]\nkind = {}\npath = {}", toml(&seen.kind.as_str().into()), toml(&path.into()))?;
    for (key, value, why) in &seen.keys {
        let why = if why.is_empty() { String::new() } else { format!(" # {}", plain(why)) };
        writeln!(text, "{key} = {}{why}", toml(value))?;
    }
    Ok(())
}

fn models(text: &mut String, seen: &Seen) -> std::fmt::Result {
    let train = seen.rows * 8 / 10;
    let vocabulary = if train < 500 {
        1000
    } else if train < 5000 {
        3000
    } else if train < 50_000 {
        8000
    } else {
        16_000
    };
    let (source, target) = (rounded(seen.text_tokens, 16, 64), rounded(seen.code_tokens, 32, 256));
    let epochs = if train < 2000 {
        30
    } else if train < 20_000 {
        15
    } else {
        8
    };
    let batch = (train / 20).next_power_of_two().clamp(16, 256);
    writeln!(
        text,
        "\n# Finds code for a text, in seconds: two bags of words that are learned to lie near each other.\n\
         [prepare.tokenizers.search]\nvocabulary = {vocabulary}\ncut = \"words\"\n\n\
         [train.search]\nmodel = {{ kind = \"nbow\", embedding = 256, shared = true }}\n\
         source = {{ column = \"text\", tokenizer = \"search\", max_tokens = {source} }} # nine in ten texts are that short\n\
         target = {{ column = \"code\", tokenizer = \"search\", max_tokens = {target} }}\n\
         epochs = {epochs} # at most: it ends where validation gets no better\npatience = 3\nbatch_size = {batch}\nlearning_rate = 3e-3\nlog_steps = 5"
    )?;
    if seen.rows < LEAST_TO_GENERATE {
        return writeln!(
            text,
            "\n# With so few rows nothing can be learned that writes code: [train.NAME] with kind = \"attention_lstm\" does."
        );
    }
    let longest = rounded(seen.code_tokens, 32, LONGEST_TARGET);
    let longer = if seen.code_tokens > longest {
        "longer ones are left out; raise it for more, which takes longer"
    } else {
        "nine in ten are that short"
    };
    let examples = STEPS * BATCH;
    let epochs = (examples / train.max(1)).clamp(1, 20);
    writeln!(
        text,
        "\n# Writes code for a text. On one core it takes minutes; a GPU (--device cuda) makes larger ones worth while.\n\
         [prepare.tokenizers.text]\nvocabulary = {vocabulary}\nfields = [\"text\"]\n\n\
         [prepare.tokenizers.code]\nvocabulary = {vocabulary}\nfields = [\"code\"]\n\n\
         [train.generate]\nmodel = {{ kind = \"attention_lstm\", embedding = 128, hidden = 128 }}\n\
         source = {{ column = \"text\", tokenizer = \"text\", max_tokens = {source} }}\n\
         target = {{ column = \"code\", tokenizer = \"code\", max_tokens = {longest} }} # {longer}\n\
         epochs = {epochs} # raise it where the report's curve of the validation still falls\nbatch_size = {BATCH}\nlearning_rate = 2e-3\nlog_steps = 5"
    )?;
    if train > examples {
        writeln!(
            text,
            "max_examples = {examples} # of about {train}; without it training takes {} times as long",
            train / examples + 1
        )?;
    }
    writeln!(
        text,
        "\n[evaluate.search]\nkind = \"pairs\"\n\n[evaluate.generation]\nkind = \"generation\"\nrows = 96 # of the test split; without it all"
    )
}

/// A length within bounds, in eights.
fn rounded(tokens: u64, least: u64, most: u64) -> u64 {
    tokens.next_multiple_of(8).clamp(least, most)
}

/// What was found, in a sentence.
fn rows(seen: &Seen) -> String {
    let mut text = format!("{} rows to learn from", grouped(seen.rows));
    let language = if seen.language.is_empty() { String::new() } else { format!(", most of them {}", seen.language) };
    let files = if seen.files == 1 { "one file".to_owned() } else { format!("{} files", grouped(seen.files as u64)) };
    let _ = write!(text, " in {files}{language}");
    if seen.undocumented > 0.005 {
        let _ = write!(
            text,
            "; {:.0}% of all functions have no documentation, and are searched only",
            seen.undocumented * 100.0
        );
    }
    if seen.rejected > 0.005 {
        let _ = write!(
            text,
            "; {:.0}% of what was read is rejected, the dataset `rejected` says why",
            seen.rejected * 100.0
        );
    }
    text
}

/// What is printed of it.
pub(super) fn summary(seen: &Seen, path: &str) -> String {
    let splits: Vec<String> = seen.splits.iter().map(|(split, rows)| format!("{split} {rows}")).collect();
    let mut text =
        format!("{path}: {}\nread as {}; of those looked at: {}\n", rows(seen), seen.kind, splits.join(", "));
    for (key, value, why) in &seen.keys {
        let why = if why.is_empty() { String::new() } else { format!("  ({why})") };
        let _ = writeln!(text, "  {key} = {}{why}", toml(value));
    }
    seen.remarks.iter().for_each(|remark| text.push_str(&format!("{remark}\n")));
    text
}

/// What may stand in a comment: names of columns may hold anything.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// 1234567 as 1,234,567.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap_or_default()).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn seen(rows: u64, code_tokens: u64) -> Seen {
        Seen {
            kind: "jsonl".to_owned(),
            keys: vec![(
                "columns".to_owned(),
                json!({ "text": "question", "code": "answer" }),
                "not used: id".to_owned(),
            )],
            files: 1,
            rows,
            undocumented: 0.0,
            rejected: 0.02,
            splits: serde_json::Map::from_iter([("train".to_owned(), json!(rows))]),
            language: "python".to_owned(),
            text_tokens: 21,
            code_tokens,
            remarks: Vec::new(),
        }
    }

    #[test]
    fn a_config_fits_its_rows() {
        insta::assert_snapshot!(config(&seen(2000, 70), "rows", "rows.jsonl"));
        let large = config(&seen(100_000, 300), "rows", "rows.jsonl");
        assert!(
            large.contains("max_examples = 4800 # of about 80000; without it training takes 17 times as long"),
            "{large}"
        );
        assert!(large.contains("max_tokens = 96 } # longer ones are left out"), "{large}");
        assert!(!config(&seen(30, 70), "rows", "r").contains("[train.generate]"));
    }
}
