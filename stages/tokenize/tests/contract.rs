//! Tokenize examples written by the test.
#![allow(clippy::unwrap_used, reason = "a test stops at once")]

use arrow::array::{Array, AsArray};
use codepair_runtime::{
    Config, ExitStatus, Manifest, Store, column, describe, exit_status, integer_column, read_output, testing,
    text_column,
};
use codepair_schemas::rows::Example;
use codepair_tokenize::Tokenize;
use codepair_tokenizer::{Cut, Tokenizer, token_ids};

fn example(ordinal: u64, kind: &str, split: &str, text: &str) -> Example {
    Example {
        id: format!("row {ordinal}"),
        ordinal,
        kind: kind.into(),
        split: split.into(),
        name: format!("f_{ordinal}"),
        text: text.into(),
        code: format!("def f_{ordinal}(value):\n    return value + {ordinal}\n"),
        ..Example::default()
    }
}

const ROWS: [(&str, &str, &str); 4] = [
    ("original", "train", "Add a number to the value."),
    ("original", "test", "zzqq zzqq zzqq zzqq"),
    ("negative", "train", "jjkk jjkk jjkk jjkk"),
    ("original", "train", ""),
];

fn run(store: &Store, folder: &std::path::Path, table: &str) -> Manifest {
    testing::publish(store, "prepare", |attempt| {
        attempt.note("splits", serde_json::json!({ "train": 2, "test": 1 }));
        attempt.count_rejected("evaluation_only", 5);
        let rows = ROWS.iter().enumerate().map(|(at, (kind, split, text))| example(at as u64, kind, split, text));
        attempt.write_rows(rows)
    })
    .unwrap();
    let text = format!("name = \"t\"\n[prepare]\ntext = \"full\"\n[prepare.tokenizers.small]\n{table}\n");
    let config = Config::parse(&text, &folder.join("c.toml"), &[]).unwrap();
    testing::run::<Tokenize>(store, &config, Some("small"), &["examples"]).unwrap()
}

#[test]
fn every_example_has_its_tokens() {
    let folder = tempfile::tempdir().unwrap();
    testing::on_each_store(folder.path(), |store| {
        let manifest = run(store, folder.path(), "vocabulary = 300");
        let file = manifest.read_named(store, "tokenizers/small.json").unwrap();
        let tokenizer = Tokenizer::from_json(&file).unwrap();
        let batches = read_output(store, &manifest, "tokens_small", &[]).unwrap();
        let [batch] = &batches[..] else { panic!("{} batches", batches.len()) };
        assert_eq!(batch.schema().metadata()["token_bytes"], "2");
        for (field, length) in [("text", "text_length"), ("code", "code_length")] {
            let (tokens, lengths) =
                (column(batch, field).unwrap().as_binary::<i32>(), integer_column(batch, length).unwrap());
            for (row, (kind, split, text)) in ROWS.iter().enumerate() {
                let ids = token_ids(tokens.value(row), 2);
                let example = example(row as u64, kind, split, text);
                let expected = if field == "text" { example.text } else { example.code };
                assert_eq!((tokenizer.decode(&ids).unwrap(), ids.len() as u64), (expected, lengths[row]));
            }
        }
        // Learned is from the positives of the training split alone: what stands elsewhere stays in pieces.
        let length = |text: &str| tokenizer.encode(text).unwrap().len();
        assert!(length(ROWS[1].2) > 16 && length(ROWS[2].2) > 16 && length("def f_0(value):") < 10);
        assert_eq!(manifest.notes["vocabulary"], tokenizer.vocabulary());
        assert_eq!((&manifest.notes["splits"]["train"], &manifest.notes["rows_for_testing"]), (&2.into(), &5.into()));
        manifest
    });
}

#[test]
fn a_field_that_is_not_read_has_no_tokens() {
    let (folder, store) = (tempfile::tempdir().unwrap(), Store::memory());
    let manifest = run(&store, folder.path(), "vocabulary = 260\nfields = [\"text\"]\ntraining_rows = 1");
    let batches = read_output(&store, &manifest, "tokens_small", &[]).unwrap();
    let codes = column(&batches[0], "code").unwrap();
    assert_eq!((codes.null_count(), text_column(&batches[0], "id").unwrap().value(3)), (ROWS.len(), "row 3"));
    assert_eq!(integer_column(&batches[0], "code_length").unwrap(), [0; ROWS.len()]);
}

/// Names are read where they are asked for; what was made has none of its own.
#[test]
fn names_are_read_of_originals() {
    let (folder, store) = (tempfile::tempdir().unwrap(), Store::memory());
    let manifest = run(&store, folder.path(), "vocabulary = 300\nfields = [\"name\", \"code\"]");
    let file = manifest.read_named(&store, "tokenizers/small.json").unwrap();
    let tokenizer = Tokenizer::from_json(&file).unwrap();
    let batches = read_output(&store, &manifest, "tokens_small", &[]).unwrap();
    let (names, lengths) = (column(&batches[0], "name_tokens").unwrap().as_binary::<i32>(), "name_length");
    let lengths = integer_column(&batches[0], lengths).unwrap();
    for (row, (kind, split, text)) in ROWS.iter().enumerate() {
        let example = example(row as u64, kind, split, text);
        let expected = if *kind == "original" { example.name.as_str() } else { "" };
        let ids = token_ids(names.value(row), 2);
        assert_eq!((tokenizer.decode(&ids).unwrap().as_str(), ids.len() as u64), (expected, lengths[row]));
    }
    assert!(lengths.iter().any(|length| *length > 0));
    assert_eq!(column(&batches[0], "text").unwrap().null_count(), ROWS.len());
}

/// A tokenizer that somebody else made is taken as it is, wherever it lies; what is in it counts.
#[test]
fn a_tokenizer_is_taken_from_a_file() {
    let (folder, store) = (tempfile::tempdir().unwrap(), Store::memory());
    let given = Tokenizer::train(["def f_0(value):"].into_iter(), 270, Cut::Words).unwrap().to_json().unwrap();
    let place = folder.path().join("given.json");
    std::fs::write(&place, &given).unwrap();
    let manifest = run(&store, folder.path(), "file = \"given.json\"");
    let own = Tokenizer::from_json(&manifest.read_named(&store, "tokenizers/small.json").unwrap()).unwrap();
    assert_eq!(own.to_json().unwrap(), given);
    let batches = read_output(&store, &manifest, "tokens_small", &["text"]).unwrap();
    let ids = token_ids(column(&batches[0], "text").unwrap().as_binary::<i32>().value(0), 2);
    assert_eq!(ids, own.encode(&example(0, ROWS[0].0, ROWS[0].1, ROWS[0].2).text).unwrap());
    let text = "name = \"t\"\n[prepare.tokenizers.small]\nfile = \"given.json\"\n";
    let described =
        |text: &str| describe::<Tokenize>(&Config::parse(text, &folder.path().join("c.toml"), &[]).unwrap());
    let step = |text: &str| described(text).unwrap().steps.remove(0);
    let before = step(text);
    std::fs::rename(&place, folder.path().join("moved.json")).unwrap();
    let moved = step(&text.replace("given", "moved"));
    assert_eq!((&moved.overrides, &moved.sources), (&before.overrides, &before.sources));
    std::fs::write(&place, given + " ").unwrap();
    assert_ne!(step(text).sources, before.sources);
    let refused = |text: &str| format!("{:#}", described(text).unwrap_err());
    assert!(refused(&format!("{text}vocabulary = 300\n")).contains("small.file: it is taken as it is"));
    std::fs::write(folder.path().join("other.json"), "{}").unwrap();
    assert!(refused(&text.replace("given", "other")).contains("small.file is no tokenizer.json"));
    assert!(refused(&text.replace("given", "gone")).contains("prepare.tokenizers.small.file: cannot read"));
}

#[test]
fn wrong_tokenizers_are_config_errors() {
    for (table, words) in [
        ("small]\nvocabulary = 259", "prepare.tokenizers.small.vocabulary must be at least 260"),
        ("small]\nfields = []", "prepare.tokenizers.small: fields and training_rows"),
        ("small]\ntraining_rows = 0", "cannot be empty or 0"),
        ("\"a-b\"]\nvocabulary = 300", "it names a table"),
        ("small]\nvocabluary = 300", "did you mean `vocabulary`?"),
        ("small]\nfields = [\"url\"]", "prepare.tokenizers.small.fields[0]"),
    ] {
        let text = format!("name = \"t\"\n[prepare.tokenizers.{table}\n");
        let config = Config::parse(&text, std::path::Path::new("c.toml"), &[]).unwrap();
        let error = describe::<Tokenize>(&config).unwrap_err();
        assert_eq!(exit_status(&error), ExitStatus::WrongConfig);
        assert!(error.to_string().contains(words), "{error}");
    }
}
