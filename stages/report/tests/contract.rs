//! The report on artifacts written by the test.
#![allow(clippy::unwrap_used, reason = "a test stops at once")]

use codepair_report::Report;
use codepair_runtime::{Config, Store, testing};
use codepair_schemas::rows::{
    Attention, Comparison, Example, Prediction, Ranking, Rejected, Score, Source, SyntheticPair,
};

#[test]
fn the_page_shows_the_scores_and_escapes_what_it_quotes() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::parse("name = \"t\"\n", &folder.path().join("c.toml"), &[]).unwrap();
    let store = Store::memory();
    testing::publish(&store, "ingest", |attempt| {
        attempt.write_rows([Source {
            source: "s".into(),
            kind: "jsonl".into(),
            rows_read: 1234567,
            pairs: 1234567,
            digest: "0".repeat(64),
            ..Source::default()
        }])?;
        attempt.write_rows([Rejected {
            stage: "ingest".into(),
            source: "s".into(),
            reason: "syntax_error".into(),
            ..Rejected::default()
        }])
    })
    .unwrap();
    testing::publish(&store, "synth", |attempt| {
        attempt.write_rows([SyntheticPair {
            generator: "llm".into(),
            kind: "positive".into(),
            ..SyntheticPair::default()
        }])?;
        attempt.note("llm", serde_json::json!({ "requests": 1200, "cost_dollars": 0.25 }));
        attempt.write_rows::<Rejected>([])
    })
    .unwrap();
    let hostile = "<script>alert(1)</script>";
    testing::publish(&store, "prepare", |attempt| {
        attempt.write_rows::<Rejected>([])?;
        attempt.write_rows([Example {
            id: "e".into(),
            text: hostile.into(),
            code: "\n  return first".into(),
            split: "test".into(),
            ..Example::default()
        }])
    })
    .unwrap();
    testing::publish(&store, "score", |attempt| {
        let score = |metric: &str, value: f64| Score {
            benchmark: "search".into(),
            protocol: "test split, text → code".into(),
            low: value - 0.0111,
            high: value + 0.0111,
            model: "bm25".into(),
            task: "search".into(),
            decoding: "exact".into(),
            metric: metric.into(),
            bucket: "all".into(),
            value,
            count: 7,
            signature: "how exactly".into(),
        };
        attempt.write_rows([score("mrr", 0.4321), score("mrr_of_random", 0.1)])?;
        attempt.write_rows([Comparison {
            benchmark: "search".into(),
            model: "bm25".into(),
            other: "nbow".into(),
            task: "search".into(),
            decoding: "exact".into(),
            metric: "mrr".into(),
            difference: -0.0456,
            low: -0.0789,
            high: -0.0123,
            p_value: 0.0678,
            count: 7,
            signature: "1000 resamples".into(),
        }])
    })
    .unwrap();
    testing::publish(&store, "evaluate:bm25.search", |attempt| {
        attempt.write_rows([Ranking {
            benchmark: "search".into(),
            model: "bm25".into(),
            query_id: "e".into(),
            candidate_id: "e".into(),
            rank: 1,
            relevant: true,
            ..Ranking::default()
        }])?;
        attempt.write_rows::<Prediction>([])?;
        attempt.write_rows::<Attention>([])
    })
    .unwrap();
    let datasets = [
        "sources",
        "rejected",
        "synthetic_pairs",
        "examples",
        "scores",
        "comparisons",
        "predictions",
        "rankings",
        "attention",
    ];
    let manifest = testing::run::<Report>(&store, &config, None, &datasets).unwrap();
    let page = String::from_utf8(manifest.read_named(&store, "pages/report.html").unwrap().to_vec()).unwrap();
    for part in [
        "0.432",
        "0.421–0.443",
        "test split, text → code",
        "-0.046",
        "-0.079 to -0.012",
        "0.068",
        "reaches 4 times",
        "how exactly",
        "1,234,567",
        "syntax_error",
        "&lt;script&gt;",
        "the right one is at rank 1",
        "return first</span>",
        "1 positive",
        "cost dollars 0.25, requests 1,200",
    ] {
        assert!(page.contains(part), "{part} is not on the page");
    }
    assert!(!page.contains(hostile));
    let links = page.split("href=\"#").skip(1).map(|rest| rest.split('"').next().unwrap());
    for link in links {
        assert!(page.contains(&format!("id=\"{link}\"")), "nothing is at #{link}");
    }
    // There is one model, and none of its scores is the better one.
    assert!(!page.contains(">Generation") && !page.contains(" best\""));
    let data: serde_json::Value =
        serde_json::from_slice(&manifest.read_named(&store, "pages/report.json").unwrap()).unwrap();
    assert_eq!(data["benchmarks"][0]["models"][0]["scores"]["exact mrr"], 0.4321);
    assert!(manifest.files("pages").all(|page| page.volatile));
}
