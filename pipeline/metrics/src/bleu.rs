//! BLEU (Papineni et al., 2002) as sacreBLEU computes it: tokenizer 13a, exponential smoothing, mixed case.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;

use crate::{Better, Generated, Metric};

/// The signature is sacreBLEU's own.
pub(crate) const METRICS: &[Metric<Generated>] = &[Metric {
    name: "bleu",
    signature: "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp",
    better: Better::Higher,
    sums,
    value,
}];

const ORDER: usize = 4;

/// What one sample adds: n-grams that are right and all, by their order, and both lengths.
fn sums(sample: &Generated) -> Vec<f64> {
    let Counts { right, total, reference_length, prediction_length } =
        Counts::of(&sample.reference, &sample.prediction);
    let all = right.into_iter().chain(total).chain([reference_length, prediction_length]);
    all.map(|count| count as f64).collect()
}

/// Corpus BLEU, 0 to 100.
fn value(sums: &[f64]) -> Option<f64> {
    let counts: Vec<u64> = sums.iter().map(|sum| *sum as u64).collect();
    let (right, rest) = counts.split_first_chunk::<ORDER>()?;
    let (total, lengths) = rest.split_first_chunk::<ORDER>()?;
    let [reference_length, prediction_length] = lengths.try_into().ok()?;
    Some(Counts { right: *right, total: *total, reference_length, prediction_length }.score(false))
}

/// Sentence BLEU, 0 to 100, with the effective order (`eff:yes`), as sacreBLEU's `sentence_bleu`.
#[must_use]
pub fn sentence(reference: &str, prediction: &str) -> f64 {
    Counts::of(reference, prediction).score(true)
}

#[derive(Default)]
struct Counts {
    right: [u64; ORDER],
    total: [u64; ORDER],
    reference_length: u64,
    prediction_length: u64,
}

impl Counts {
    fn of(reference: &str, prediction: &str) -> Self {
        let (reference, prediction) = (tokens(reference), tokens(prediction));
        let mut counts = Self {
            reference_length: reference.len() as u64,
            prediction_length: prediction.len() as u64,
            ..Self::default()
        };
        for order in 1..=ORDER {
            let available = ngrams(&reference, order);
            for (ngram, count) in ngrams(&prediction, order) {
                counts.right[order - 1] += count.min(available.get(ngram).copied().unwrap_or(0));
                counts.total[order - 1] += count;
            }
        }
        counts
    }

    fn score(&self, effective_order: bool) -> f64 {
        if self.right.iter().all(|&right| right == 0) {
            return 0.0;
        }
        let mut smoothing = 1.0;
        let mut order = ORDER;
        let mut precisions = [0.0f64; ORDER];
        for (n, precision) in precisions.iter_mut().enumerate() {
            if self.total[n] == 0 {
                break;
            }
            if effective_order {
                order = n + 1;
            }
            *precision = if self.right[n] == 0 {
                smoothing *= 2.0;
                100.0 / (smoothing * self.total[n] as f64)
            } else {
                100.0 * self.right[n] as f64 / self.total[n] as f64
            };
        }
        let brevity = if self.prediction_length < self.reference_length {
            (1.0 - self.reference_length as f64 / self.prediction_length as f64).exp()
        } else {
            1.0
        };
        let logs: f64 = precisions[..order].iter().map(|p| p.ln()).sum();
        brevity * (logs / order as f64).exp()
    }
}

fn ngrams(tokens: &[String], order: usize) -> HashMap<&[String], u64> {
    let mut counts = HashMap::new();
    for ngram in tokens.windows(order) {
        *counts.entry(ngram).or_default() += 1;
    }
    counts
}

/// The tokenizer of mteval-v13a.
fn tokens(text: &str) -> Vec<String> {
    static RULES: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        [
            (r"([\{-\~\[-` -\&\(-\+:-@/])", " $1 "),
            (r"([^0-9])([\.,])", "$1 $2 "),
            (r"([\.,])([^0-9])", " $1 $2"),
            (r"([0-9])(-)", "$1 $2 "),
        ]
        .into_iter()
        // They do not depend on the input: one that is wrong is to be seen, for without it every score would be another.
        .map(|(rule, by)| (Regex::new(rule).unwrap_or_else(|error| panic!("{rule}: {error}")), by))
        .collect()
    });
    let mut text = text.trim_end().replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    if text.contains('&') {
        for (escape, plain) in [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")] {
            text = text.replace(escape, plain);
        }
    }
    text = format!(" {text} ");
    for (rule, by) in RULES.iter() {
        text = rule.replace_all(&text, *by).into_owned();
    }
    text.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scores printed by sacreBLEU 2.6.0: `corpus_bleu(predictions, [references]).score` and `sentence_bleu`.
    const GOLDEN: &str = include_str!("../tests/bleu.tsv");

    #[test]
    fn equals_sacrebleu() {
        let mut samples = Vec::new();
        let mut checked = 0;
        for line in GOLDEN.lines().filter(|line| !line.is_empty()) {
            let fields: Vec<String> = line.split('\t').map(|f| f.replace("\\n", "\n")).collect();
            let [reference, prediction, sentence_score, corpus_score] = &fields[..] else { panic!("{line}") };
            samples.push(Generated {
                reference: reference.clone(),
                prediction: prediction.clone(),
                ..Generated::default()
            });
            let close = |ours: f64, theirs: &str| {
                let theirs: f64 = theirs.parse().unwrap();
                assert!((ours - theirs).abs() < 1e-6, "{line}: {ours} and not {theirs}");
            };
            close(sentence(reference, prediction), sentence_score);
            close(METRICS[0].score(&samples).unwrap(), corpus_score);
            checked += 1;
        }
        assert!(checked >= 12, "{checked}");
        assert_eq!(METRICS[0].score(&[]), None);
    }
}
