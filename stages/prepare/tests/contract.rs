//! Prepare on rows written by the test: what becomes of each.
#![allow(clippy::unwrap_used, reason = "a test stops at once")]

use std::collections::BTreeMap;

use codepair_prepare::Prepare;
use codepair_runtime::{
    Config, ExitStatus, Manifest, Store, exit_status, float_column, read_output, testing, text_column,
};
use codepair_schemas::rows::{Function, Pair, Problem, Query, Request, SyntheticPair};

/// Twelve lines that differ in the lines of `changed`.
fn program(name: &str, changed: usize) -> String {
    let line = |n: usize| {
        if n < changed {
            format!("    {name}_{n} = {n}\n")
        } else {
            format!("    value_{n} = compute(value_{n}, {n})\n")
        }
    };
    format!("def f(x):\n{}", (0..12).map(line).collect::<String>())
}

fn function(ordinal: u64, id: &str, split: &str, docstring: &str, code: String) -> Function {
    Function {
        id: id.into(),
        ordinal,
        source: "s".into(),
        docstring: docstring.into(),
        code,
        split: split.into(),
        ..Function::default()
    }
}

const SIMILAR: &str = "Sort the given list of tuples by the second element of every tuple, largest first, and give back \
                       the names that stand in the first place of each one, joined by a comma and a space, as one text.";
const LEAK: &str = "Compute the checksum of a file in chunks of bytes.";

fn inputs(store: &Store) {
    let functions = [
        function(0, "plain", "train", "Train row.\n\nMore of it.", "def plain():\n    return 1".into()),
        function(1, "near", "train", "Near to the test row.", program("near", 1)),
        function(2, "tested", "test", "The test row.", program("tested", 0)),
        function(3, "exact", "train", "Same code.", "def plain():\n    return 1  \n".into()),
        function(4, "silent", "train", "", "def silent():\n    return 2".into()),
        function(5, "leak", "train", &format!("Do this: {LEAK}"), "def leak():\n    return 3".into()),
        function(6, "far", "train", "Far from it.", program("far", 9)),
        function(7, "held", "validation", "Held back.", "def held():\n    return 4".into()),
        function(8, "long", "train", "Too long.", "x = 1\n".repeat(21)),
        function(9, "long test", "test", "Long too, but tested on.", "y = 1\n".repeat(22)),
        function(10, "mail", "train", "Ask a@example.org for it.", "def mail():\n    return 6".into()),
        function(11, "base", "train", "A base.", program("base", 11)),
        function(12, "renamed", "train", "The same, renamed.", program("other", 11)),
        // One word of twenty differs from the leaked problem's text below.
        function(13, "similar", "train", &SIMILAR.replace("every", "any"), "def similar():\n    return 7".into()),
        function(14, "searched", "corpus", "To be found.", "def searched():\n    return 8".into()),
        // Nearly the code of a pair to be tested on.
        function(15, "paired", "train", "Near to a test pair.", program("judge", 12).replace("= 11", "= 99")),
    ];
    let problem = |ordinal: u64, id: &str, split: &str, text: &str, code: &str| Problem {
        id: id.into(),
        ordinal,
        source: "p".into(),
        text: text.into(),
        code: code.into(),
        split: split.into(),
        ..Problem::default()
    };
    let pair = |ordinal: u64, id: &str, parent: &str, kind: &str, code: &str| SyntheticPair {
        id: id.into(),
        generator: "g".into(),
        ordinal,
        kind: kind.into(),
        edit: "e".into(),
        parent_id: parent.into(),
        parent_dataset: "functions".into(),
        source: "s".into(),
        text: "Train row.".into(),
        code: code.into(),
        split: "train".into(),
        ..SyntheticPair::default()
    };
    let asked = SyntheticPair {
        text: "a question of a user, of eight words or more".into(),
        parent_dataset: "queries".into(),
        ..pair(6, "answer", "question", "positive", "def answer():\n    return 42")
    };
    let told = SyntheticPair {
        text: "Says two.".into(),
        ..pair(5, "told", "silent", "positive", "def silent():\n    return 2")
    };
    testing::publish(store, "ingest", |attempt| {
        attempt.write_rows(functions.clone())?;
        attempt.write_rows([
            problem(0, "task", "train", "Add two numbers.", "def add(a, b):\n    return a + b"),
            problem(1, "hidden", "test", LEAK, "def checksum(path):\n    pass"),
        ])?;
        let labelled = |ordinal: u64, id: &str, label: f64, text: &str| Pair {
            id: id.into(),
            ordinal,
            source: "q".into(),
            text: text.into(),
            code: "def plain():\n    return 1".into(),
            label: Some(label),
            language: "python".into(),
            split: "train".into(),
            ..Pair::default()
        };
        attempt.write_rows([
            labelled(0, "fits", 1.0, "give one"),
            labelled(1, "fits again", 1.0, "give  one"),
            labelled(2, "fits not", 0.0, "give two"),
            // A short query is too common to be looked for within rows, but no row may be one.
            labelled(3, "asked too", 1.0, "Read a JSON file!"),
            Pair { split: "test".into(), code: program("judge", 12), ..labelled(4, "judged", 0.0, "judge it") },
        ])?;
        let query = |ordinal: u64, id: &str, text: &str| Query {
            id: id.into(),
            ordinal,
            source: "q".into(),
            text: text.into(),
            ..Query::default()
        };
        let learnt =
            Query { split: "train".into(), ..query(2, "question", "a question of a user, of eight words or more") };
        attempt.write_rows([query(0, "asked", SIMILAR), query(1, "short", "read a json file"), learnt])
    })
    .unwrap();
    testing::publish(store, "synth", |attempt| {
        attempt.write_rows([
            pair(0, "child", "plain", "positive", "def plain():\n    return 0 + 1"),
            pair(1, "twin", "plain", "positive", "def plain():\n    return 0 + 1"),
            pair(2, "wrong", "plain", "negative", "def plain():\n    return 0 + 1"),
            pair(3, "orphan", "near", "positive", "def orphan():\n    return 5"),
            // Made from a training row, and nearly what the model is tested on.
            pair(4, "copied", "plain", "positive", &program("copied", 1)),
            // Nobody documented its parent.
            told,
            asked,
        ])?;
        attempt.write_rows::<Request>([])
    })
    .unwrap();
}

const INPUTS: [&str; 5] = ["functions", "problems", "pairs", "queries", "synthetic_pairs"];

fn reasons(store: &Store, manifest: &Manifest) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (dataset, column) in [("rejected", "reason"), ("examples", "kind")] {
        for batch in read_output(store, manifest, dataset, &[]).unwrap() {
            let (ids, values) = (text_column(&batch, "id").unwrap(), text_column(&batch, column).unwrap());
            found.extend((0..batch.num_rows()).map(|row| (ids.value(row).to_owned(), values.value(row).to_owned())));
        }
    }
    found
}

#[test]
fn every_row_is_kept_or_rejected_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    for (threads, memory) in [(1, "1GiB"), (2, "64MiB"), (16, "64MiB")] {
        let text = format!(
            "name = \"t\"\n[prepare.filters]\ntoo_long = \"line_count(code) > 20\"\nmail = \"has_email(text)\"\n\
             [resources.prepare]\nthreads = {threads}\nmemory_limit = \"{memory}\"\n"
        );
        let config = Config::parse(&text, &folder.path().join("c.toml"), &[]).unwrap();
        testing::on_each_store(&folder.path().join(threads.to_string()), |store| {
            inputs(store);
            let manifest = testing::run::<Prepare>(store, &config, None, &INPUTS).unwrap();
            let expected = [
                ("child", "positive"),
                ("copied", "contaminated"),
                ("base", "original"),
                ("exact", "exact_duplicate"),
                ("fits", "original"),
                ("fits again", "exact_duplicate"),
                ("fits not", "negative"),
                ("long", "too_long"),
                ("long test", "original"),
                ("mail", "mail"),
                ("renamed", "structural_duplicate"),
                ("asked too", "contaminated"),
                ("judged", "negative"),
                ("paired", "contaminated"),
                ("searched", "corpus_only"),
                ("similar", "contaminated"),
                ("far", "original"),
                ("held", "original"),
                ("hidden", "evaluation_only"),
                ("leak", "contaminated"),
                ("near", "near_duplicate"),
                ("orphan", "parent_rejected"),
                ("plain", "original"),
                ("silent", "no_text"),
                ("task", "original"),
                ("tested", "original"),
                ("told", "positive"),
                ("answer", "positive"),
                ("twin", "exact_duplicate"),
                ("wrong", "negative"),
            ];
            let expected: BTreeMap<String, String> = expected.map(|(a, b)| (a.to_owned(), b.to_owned())).into();
            assert_eq!(reasons(store, &manifest), expected);
            let duplicates = read_output(store, &manifest, "duplicates", &[]).unwrap();
            let kept: Vec<_> = text_column(&duplicates[0], "kept_id").unwrap().iter().flatten().collect();
            assert_eq!(kept, ["child", "fits", "tested", "plain", "base"]);
            let near = float_column(&duplicates[0], "jaccard").unwrap().value(2);
            assert!((0.7..1.0).contains(&near), "{near}");
            let texts = read_output(store, &manifest, "examples", &["text"]).unwrap();
            let texts: Vec<_> = text_column(&texts[0], "text").unwrap().iter().flatten().collect();
            assert!(texts.contains(&"Train row.") && texts.contains(&"give one"), "{texts:?}");
            manifest
        });
    }
}

/// Rows enough for every thread to have a share of each file and of each sort: near and exact duplicates, contaminated rows
/// and clusters over several of them, and more queries than an eighth of 64 MiB holds.
fn many(store: &Store) {
    let mut state = 7u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let texts: Vec<String> =
        (0..15_000).map(|_| (0..10).map(|_| format!("word{} ", random(3000))).collect::<String>()).collect();
    let query = |ordinal: u64| Query {
        id: format!("query{ordinal}"),
        ordinal,
        source: "q".into(),
        text: texts[ordinal as usize % texts.len()].clone(),
        ..Query::default()
    };
    let queries: Vec<Query> = (0..20_000).map(query).collect();
    let mut rows: Vec<Function> = Vec::new();
    for n in 0..6000u64 {
        let mut code = format!("def f{n}(x):\n");
        for _ in 0..8 + random(8) {
            code.push_str(&format!("    v{} = compute(w{}, {})\n", random(900), random(900), random(50)));
        }
        if n > 100 && random(4) == 0 {
            // One line more than another row, of any split.
            code = format!("{}    last = {}\n", rows[random(n) as usize].code, random(2));
        }
        let split = ["train", "train", "train", "validation", "test"][random(5) as usize];
        let mut text = format!("Say {} of {}.", random(5000), random(9));
        if n % 20 == 0 {
            // It holds two queries, each perhaps twice there.
            let mut query = || &queries[random(20_000) as usize].text;
            text = format!("{text} {} or {}", query(), query());
        }
        rows.push(function(n, &format!("row{n}"), split, &text, code));
    }
    let made = (0..500u64).map(|ordinal| SyntheticPair {
        id: format!("made{ordinal}"),
        generator: "g".into(),
        ordinal,
        kind: "positive".into(),
        edit: "e".into(),
        parent_id: format!("row{}", random(6000)),
        parent_dataset: "functions".into(),
        source: "s".into(),
        text: format!("Say {ordinal}."),
        code: format!("def made():\n    return {ordinal}"),
        split: "train".into(),
        ..SyntheticPair::default()
    });
    let made: Vec<_> = made.collect();
    testing::publish(store, "ingest", |attempt| {
        attempt.write_rows(rows.clone())?;
        attempt.write_rows::<Problem>([])?;
        attempt.write_rows::<Pair>([])?;
        attempt.write_rows(queries.clone())
    })
    .unwrap();
    testing::publish(store, "synth", |attempt| attempt.write_rows(made.clone())).unwrap();
}

#[test]
fn partitions_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let run = |threads: usize, memory: &str| {
        let text = format!(
            "name = \"t\"\n[resources.prepare]\nthreads = {threads}\n\
             memory_limit = \"{memory}\"\n"
        );
        let config = Config::parse(&text, &folder.path().join("c.toml"), &[]).unwrap();
        let store = Store::memory();
        many(&store);
        testing::run::<Prepare>(&store, &config, None, &INPUTS).unwrap()
    };
    let one = run(1, "1GiB");
    assert!(one.rows("duplicates") > 1000 && one.rows("examples") > 3000, "{} duplicates", one.rows("duplicates"));
    assert_eq!(one.rejected["contaminated"], 595);
    for (threads, memory, passes) in [(2, "1GiB", 1), (16, "64MiB", 2)] {
        let other = run(threads, memory);
        assert_eq!(other.digest, one.digest, "{threads} threads");
        assert_eq!(other.notes["passes_over_rows"], passes, "{memory}");
    }
}

#[test]
fn a_filter_that_is_no_expression_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for (filter, words) in [
        ("nonsense(code) > 1", "nonsense"),
        ("length(", "prepare.filters.short"),
        ("code", "non-boolean"),
        ("uuid() > code", "says another thing the next time"),
        ("exists (select now() < now())", "says another thing"),
        ("1 / (length(code) - length(code)) > 0", "prepare.filters.short = \"1 / (length(code)"),
    ] {
        let text = format!("name = \"t\"\n[prepare.filters]\nshort = '{filter}'\n");
        let config = Config::parse(&text, &folder.path().join("c.toml"), &[]).unwrap();
        let store = Store::memory();
        inputs(&store);
        let error = testing::run::<Prepare>(&store, &config, None, &INPUTS).err().unwrap();
        assert_eq!(exit_status(&error), ExitStatus::WrongConfig, "{error:#}");
        assert!(format!("{error:#}").contains(words), "{error:#}");
    }
}

#[test]
fn empty_inputs_give_empty_outputs() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::parse("name = \"t\"\n", &folder.path().join("c.toml"), &[]).unwrap();
    testing::on_each_store(folder.path(), |store| {
        testing::publish(store, "ingest", |attempt| {
            attempt.write_rows::<Function>([])?;
            attempt.write_rows::<Problem>([])?;
            attempt.write_rows::<Pair>([])?;
            attempt.write_rows::<Query>([])
        })
        .unwrap();
        testing::publish(store, "synth", |attempt| attempt.write_rows::<SyntheticPair>([])).unwrap();
        let manifest = testing::run::<Prepare>(store, &config, None, &INPUTS).unwrap();
        assert_eq!(manifest.rows("examples") + manifest.rows("rejected"), 0);
        manifest
    });
}
