//! Score on predictions and rankings written by the test.
#![allow(clippy::unwrap_used, reason = "a test stops at once")]

use codepair_runtime::{Config, float_column, integer_column, read_output, testing, text_column};
use codepair_schemas::rows::{Prediction, Ranking};
use codepair_score::Score;

fn ranking(model: &str, ordinal: u64, rank: u32) -> Ranking {
    Ranking {
        benchmark: "search".into(),
        model: model.into(),
        ordinal,
        query_id: format!("e{ordinal}"),
        rank,
        candidate_id: format!("e{ordinal}"),
        relevant: true,
        candidates: 3,
        ..Ranking::default()
    }
}

fn prediction(model: &str, decoding: &str, ordinal: u64, prediction: &str, entropy: Option<f64>) -> Prediction {
    Prediction {
        benchmark: "generation".into(),
        model: model.into(),
        decoding: decoding.into(),
        ordinal,
        reference: "a b c d".into(),
        prediction: prediction.into(),
        source_length: if ordinal == 0 { 3 } else { 20 },
        tokens_right: 1,
        tokens: 5,
        attention_entropy: entropy,
        tokens_written: 5,
        signature: decoding.replace("beam", "beam 4"),
        ..Prediction::default()
    }
}

#[test]
fn predictions_and_rankings_are_scored_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::parse("name = \"t\"\n", &folder.path().join("c.toml"), &[]).unwrap();
    testing::on_each_store(folder.path(), |store| {
        let writes = [("lstm", "a b c d", Some(0.5)), ("rnn", "x", None)];
        for (model, text, entropy) in writes {
            testing::publish(store, &format!("evaluate:{model}.generation"), |attempt| {
                let rows = ["beam", "greedy"].into_iter().flat_map(|decoding| {
                    (0..2).map(move |ordinal| {
                        let entropy = entropy.filter(|_| decoding == "greedy");
                        prediction(model, decoding, ordinal, if ordinal == 0 { text } else { "a b c d" }, entropy)
                    })
                });
                attempt.write_rows(rows)?;
                attempt.write_rows::<Ranking>([])
            })
            .unwrap();
        }
        for (model, ranks) in [("bm25", [1, 3, 3, 3, 3, 3]), ("nbow", [1, 1, 1, 1, 1, 1])] {
            testing::publish(store, &format!("evaluate:{model}.search"), |attempt| {
                attempt.write_rows((0..).zip(ranks).map(|(ordinal, rank)| ranking(model, ordinal, rank)))?;
                attempt.write_rows::<Prediction>([])
            })
            .unwrap();
        }
        let manifest = testing::run::<Score>(store, &config, None, &["predictions", "rankings"]).unwrap();
        let scores = read_output(store, &manifest, "scores", &[]).unwrap();
        let find = |wanted: [&str; 4]| -> Option<([f64; 3], u64, String)> {
            let columns = ["model", "decoding", "metric", "bucket"].map(|name| text_column(&scores[0], name).unwrap());
            let is_it = |row: &usize| columns.iter().zip(wanted).all(|(column, wanted)| column.value(*row) == wanted);
            let row = (0..scores[0].num_rows()).find(is_it)?;
            let value = |name| float_column(&scores[0], name).unwrap().value(row);
            let count = integer_column(&scores[0], "count").unwrap()[row];
            let signature = text_column(&scores[0], "signature").unwrap().value(row).to_owned();
            Some((["value", "low", "high"].map(value), count, signature))
        };
        // Half of the lstm's rival is wrong, and a resample of two rows has none, one or two of them.
        let (exact, count, _) = find(["rnn", "greedy", "exact_match", "all"]).unwrap();
        assert_eq!((exact, count), ([0.5, 0.0, 1.0], 2));
        assert_eq!(find(["rnn", "greedy", "exact_match", "1-8"]).unwrap().0, [0.0; 3]);
        assert_eq!(find(["rnn", "greedy", "exact_match", "17-32"]).unwrap().0, [1.0; 3]);
        let (bleu, _, signature) = find(["lstm", "beam", "bleu", "all"]).unwrap();
        assert!((bleu[0] - 100.0).abs() < 1e-9 && signature.ends_with("smooth:exp, beam 4"), "{bleu:?} {signature}");
        assert_eq!(find(["lstm", "greedy", "attention_entropy", "all"]).unwrap().0, [0.5; 3]);
        assert_eq!(find(["rnn", "greedy", "attention_entropy", "all"]), None);
        let (mrr, count, _) = find(["bm25", "exact", "mrr", "all"]).unwrap();
        assert!((mrr[0] - (1.0 + 5.0 / 3.0) / 6.0).abs() < 1e-12 && mrr[1] < mrr[0] && mrr[0] < mrr[2], "{mrr:?}");
        assert_eq!(count, 6);
        let compared = read_output(store, &manifest, "comparisons", &[]).unwrap();
        let names = ["model", "other", "metric"].map(|name| text_column(&compared[0], name).unwrap());
        let row = (0..compared[0].num_rows()).find(|&row| names[2].value(row) == "mrr").unwrap();
        assert_eq!((names[0].value(row), names[1].value(row)), ("bm25", "nbow"));
        let value = |name| float_column(&compared[0], name).unwrap().value(row);
        assert!((value("difference") + 5.0 / 9.0).abs() < 1e-12 && value("high") < 0.0, "{}", value("high"));
        // Five of six rows differ, all for one side: of 32 exchanges two are as uneven.
        assert!((value("p_value") - 1.0 / 16.0).abs() < 0.025, "{}", value("p_value"));
        let compares = |metric: &str| (0..compared[0].num_rows()).any(|row| names[2].value(row) == metric);
        assert!(compares("bleu") && compares("recall@1") && !compares("mrr_of_random"));
        manifest
    });
}

#[test]
fn nothing_to_score_is_no_error_and_wrong_values_are() {
    let folder = tempfile::tempdir().unwrap();
    let parse = |rest: &str| {
        Config::parse(&format!("name = \"t\"\n[score]\n{rest}"), &folder.path().join("c.toml"), &[]).unwrap()
    };
    let store = codepair_runtime::Store::memory();
    testing::publish(&store, "evaluate:m.search", |attempt| {
        attempt.write_rows::<Ranking>([])?;
        attempt.write_rows::<Prediction>([])
    })
    .unwrap();
    let manifest = testing::run::<Score>(&store, &parse(""), None, &["predictions", "rankings"]).unwrap();
    assert_eq!((manifest.rows("scores"), manifest.rows("comparisons")), (0, 0));
    for wrong in ["resamples = 99", "confidence = 1.0", "confidence = 0.4"] {
        assert!(codepair_runtime::describe::<Score>(&parse(wrong)).is_err(), "{wrong}");
    }
    // Another metric is another fingerprint, and so is another seed.
    let steps = codepair_runtime::describe::<Score>(&parse("seed = 3")).unwrap();
    let step = &steps.steps[0];
    assert_eq!(step.overrides["score"]["seed"], 3);
    assert!(step.overrides["metrics"]["bleu"].as_str().unwrap().contains("tok:13a"));
}
