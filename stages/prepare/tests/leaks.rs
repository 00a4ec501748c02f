//! What is tested on stays, and is found in what is trained on, whatever it is called.
#![allow(clippy::unwrap_used, reason = "a test stops at once")]

use codepair_prepare::Prepare;
use codepair_runtime::{Config, ExitStatus, Manifest, Store, exit_status, read_output, testing, text_column};
use codepair_schemas::rows::{Function, Pair, Problem, Query, SyntheticPair};

/// A program of many lines; `name` is its variable's, and `constant` what it counts by.
fn program(name: &str, constant: &str) -> String {
    let lines: String = (0..9).map(|n| format!("    {name} = {name} + check({name}, {constant}) * {n}\n")).collect();
    format!("def f({name}):\n{lines}    return {name}")
}

fn function(ordinal: u64, source: &str, split: &str, code: String) -> Function {
    Function {
        id: format!("{source}{ordinal}"),
        source: source.into(),
        ordinal,
        docstring: format!("Do the thing of {source} number {ordinal}."),
        language: "python".into(),
        split: split.into(),
        code,
        ..Function::default()
    }
}

fn pair(ordinal: u64, text: String, code: String) -> Pair {
    Pair {
        id: format!("q{ordinal}"),
        source: "q".into(),
        ordinal,
        text,
        code,
        language: "python".into(),
        split: "train".into(),
        ..Pair::default()
    }
}

fn prepare(
    functions: Vec<Function>,
    pairs: Vec<Pair>,
    synthetic: Vec<SyntheticPair>,
    more: &str,
) -> anyhow::Result<(Store, Manifest)> {
    let store = Store::memory();
    testing::publish(&store, "ingest", |attempt| {
        attempt.write_rows(functions)?;
        attempt.write_rows::<Problem>([])?;
        attempt.write_rows(pairs)?;
        attempt.write_rows::<Query>([])
    })?;
    testing::publish(&store, "synth", |attempt| attempt.write_rows(synthetic))?;
    let config = Config::parse(&format!("name = \"t\"\n[prepare]\n{more}\n"), "c.toml".as_ref(), &[])?;
    let inputs = ["functions", "problems", "pairs", "queries", "synthetic_pairs"];
    let manifest = testing::run::<Prepare>(&store, &config, None, &inputs)?;
    Ok((store, manifest))
}

fn column((store, manifest): &(Store, Manifest), dataset: &str, name: &str) -> Vec<String> {
    let batches = read_output(store, manifest, dataset, &[]).unwrap();
    let values = |batch| text_column(batch, name).unwrap().iter().map(|v| v.unwrap().to_owned()).collect::<Vec<_>>();
    batches.iter().flat_map(values).collect()
}

fn rejected(prepared: &(Store, Manifest)) -> Vec<(String, String)> {
    column(prepared, "rejected", "id").into_iter().zip(column(prepared, "rejected", "reason")).collect()
}

fn expected(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    rows.iter().map(|(id, reason)| ((*id).to_owned(), (*reason).to_owned())).collect()
}

/// A pair that is a test function with other names is found, generated or labelled; with another constant it is another one.
#[test]
fn renamed_test_code_is_found_in_pairs() {
    let functions = vec![
        function(0, "a", "test", program("total", "LIMIT")),
        function(1, "a", "train", "def plain():\n    return 1".into()),
    ];
    let labelled = |ordinal: u64, code: String| pair(ordinal, format!("question {ordinal}"), code);
    let pairs = vec![labelled(0, program("amount_of_it", "LIMIT")), labelled(1, program("amount_of_it", "OTHER"))];
    let generated = SyntheticPair {
        id: "g0".into(),
        generator: "g".into(),
        kind: "positive".into(),
        parent_id: "a1".into(),
        parent_dataset: "functions".into(),
        source: "a".into(),
        text: "Said otherwise.".into(),
        code: program("what_is_summed", "LIMIT"),
        language: "python".into(),
        split: "train".into(),
        ..SyntheticPair::default()
    };
    let found = prepare(functions.clone(), pairs.clone(), vec![generated.clone()], "").unwrap();
    assert_eq!(rejected(&found), expected(&[("g0", "contaminated"), ("q0", "contaminated")]));
    let without = prepare(functions, pairs, vec![generated], "structural_duplicates = false").unwrap();
    assert_eq!(rejected(&without), []);
}

/// Test rows that resemble each other, within a source or between two, are marked and stay.
#[test]
fn a_test_set_does_not_depend_on_other_sources() {
    let own = || {
        vec![
            function(0, "a", "test", program("x", "ONE")),
            function(1, "a", "test", program("x", "ONE")),
            function(2, "a", "test", program("x", "ONE").replace("* 8", "* 80")),
            function(3, "a", "train", program("x", "ONE")),
        ]
    };
    let tested = |functions: Vec<Function>| {
        let found = prepare(functions, Vec::new(), Vec::new(), "").unwrap();
        let rows = column(&found, "examples", "id").into_iter().zip(column(&found, "examples", "split"));
        let tested: Vec<String> = rows.filter(|(_, split)| split == "test").map(|(id, _)| id).collect();
        (tested, column(&found, "duplicates", "id"), rejected(&found))
    };
    let (rows, marked, out) = tested(own());
    assert_eq!(rows, ["a0", "a1", "a2"]);
    // The code of a test row is found in the training row before anything else is.
    assert_eq!(out, expected(&[("a3", "contaminated")]));
    assert_eq!(marked, ["a1", "a2"]);
    let other = [own(), vec![function(0, "b", "test", program("x", "ONE"))]].concat();
    let (rows, ..) = tested(other);
    assert_eq!(rows, ["a0", "a1", "a2", "b0"]);
}

#[test]
fn a_repository_is_tested_on_in_all_sources_or_in_none() {
    let of = |row: Function, repo: &str| Function { repo: repo.into(), ..row };
    let functions = vec![
        of(function(0, "a", "test", "def one():\n    return 1".into()), "owner/name"),
        of(function(1, "a", "train", "def two():\n    return 2".into()), "owner/name"),
        of(function(0, "b", "train", "def three():\n    return 3".into()), "owner/name"),
        of(function(1, "b", "validation", "def four():\n    return 4".into()), "owner/name"),
        of(function(2, "b", "train", "def five():\n    return 5".into()), "owner/other"),
        of(function(3, "b", "train", "def six():\n    return 6".into()), ""),
    ];
    let pairs = ["Owner/Name", "owner/else"].into_iter().zip(0..).map(|(repo, n)| Pair {
        group: repo.into(),
        ..pair(n, format!("question {n}"), format!("def pair{n}():\n    return {n}"))
    });
    let found = prepare(functions, pairs.collect(), Vec::new(), "").unwrap();
    assert_eq!(rejected(&found), expected(&[("b0", "tested_repo"), ("b1", "tested_repo"), ("q0", "tested_repo")]));
}

/// Twelve thousand rows of one template share their bands; those that are nearly a test row are all found.
#[test]
fn copies_of_test_rows_are_found_in_large_buckets() {
    let filled = |number: usize, kind: &str| {
        let lines: String = (0..30).map(|n| format!("    value_{n} = compute(value_{n}, {n})\n")).collect();
        format!("def f(x):\n{lines}    {kind}_{number} = {number}\n    return {kind}_{number} * {number}")
    };
    let mut functions: Vec<Function> =
        (0..3000).map(|n| function(n, "a", "train", filled(n as usize, "plain"))).collect();
    functions.extend((3000..3020).map(|n| function(n, "a", "test", filled(n as usize, "plain"))));
    let found = prepare(functions, Vec::new(), Vec::new(), "structural_duplicates = false").unwrap();
    let splits = column(&found, "examples", "split");
    assert!(splits.iter().all(|split| split == "test") && splits.len() == 20, "{}", splits.len());
    assert!(found.1.notes["pairs_not_compared"].as_u64().unwrap() > 0);
}

#[test]
fn boilerplate_among_tested_texts_may_be_left_alone() {
    let notice = "This file is part of the project and is provided without any warranty of any kind.";
    let documented = |row: Function, text: &str| Function { docstring: text.into(), ..row };
    let rows = || {
        let code = |n: u64| format!("def f{n}(a):\n    return a + {n}");
        let mut rows = vec![documented(function(0, "a", "test", code(0)), notice)];
        rows.extend((1..8).map(|n| documented(function(n, "a", "train", code(n)), &format!("{notice} Number {n}."))));
        rows.push(documented(function(8, "a", "test", code(8)), "Compute the checksum of a file in chunks of bytes."));
        rows.push(documented(
            function(9, "a", "train", code(9)),
            "It will compute the checksum of a file in chunks of bytes.",
        ));
        rows
    };
    let all = prepare(rows(), Vec::new(), Vec::new(), "").unwrap();
    assert_eq!(all.1.rejected["contaminated"], 8);
    assert_eq!(all.1.notes["costliest_tested_texts"][0], serde_json::json!({ "id": "a0", "rows": 7 }));
    let some = prepare(rows(), Vec::new(), Vec::new(), "boilerplate_texts = 5").unwrap();
    assert_eq!(some.1.rejected["contaminated"], 1);
    assert_eq!(some.1.notes["boilerplate_texts"], serde_json::json!(["a0"]));
    assert_eq!(column(&some, "examples", "split").iter().filter(|split| *split == "test").count(), 2);
    // The code of such a row is looked for all the same, and does not make its text boilerplate.
    let mut copied = rows();
    copied[0].code = program("x", "ONE");
    let copies = (0..7).map(|n| pair(n, format!("question {n}"), format!("{}  # {n}", program("x", "ONE")))).collect();
    let found = prepare(copied, copies, Vec::new(), "boilerplate_texts = 5").unwrap();
    assert_eq!(found.1.rejected["contaminated"], 8);
}

#[test]
fn examples_say_where_they_are_from_and_filters_may_ask() {
    let row = Function {
        repo: "o/n".into(),
        path: "a/b.py".into(),
        licence: "MIT".into(),
        origin: "x".into(),
        ..function(0, "a", "train", "def one():\n    return 1".into())
    };
    let other = Function { licence: "GPL-3.0".into(), ..function(1, "a", "train", "def two():\n    return 2".into()) };
    let filters =
        "[prepare.filters]\ncopyleft = \"licence like 'GPL%'\"\nelsewhere = \"repo = 'o/n' and path = 'c.py'\"";
    let found = prepare(vec![row, other], Vec::new(), Vec::new(), filters).unwrap();
    for (name, value) in
        [("repo", "o/n"), ("path", "a/b.py"), ("licence", "MIT"), ("origin", "x"), ("language", "python")]
    {
        assert_eq!(column(&found, "examples", name), [value], "{name}");
    }
    assert_eq!(rejected(&found), expected(&[("a1", "copyleft")]));
}

#[test]
fn thresholds_below_what_the_bands_find_are_refused() {
    let error = prepare(Vec::new(), Vec::new(), Vec::new(), "near_duplicate_threshold = 0.5").unwrap_err();
    assert_eq!(exit_status(&error), ExitStatus::WrongConfig);
    assert!(error.to_string().contains("from 0.65 to 1"), "{error}");
}
