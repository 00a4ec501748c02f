//! Quality filters: expressions over a row that a config names, and the functions that they can call.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use anyhow::Result;
use codepair_runtime::{block_on, config_error};
use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::prelude::SessionContext;
use regex::Regex;

use crate::functions;

/// `[prepare.filters]`: a name, which is the reason of the rows left out, and an expression of SQL that is true for them.
pub(crate) type Filters = BTreeMap<String, String>;

/// Makes the functions known that filters call.
pub(crate) fn register(session: &SessionContext) {
    session.register_udf(functions::integer("longest_line", longest_line));
    session.register_udf(functions::integer("line_count", |text| text.lines().count() as i64));
    session.register_udf(functions::share("alphanumeric_share", |text| share(text, char::is_alphanumeric)));
    session.register_udf(functions::share("ascii_share", |text| share(text, |c| c.is_ascii())));
    session.register_udf(functions::predicate("is_generated", is_generated));
    session.register_udf(functions::predicate("is_english", is_english));
    session.register_udf(functions::predicate("has_email", |text| EMAIL.is_match(text)));
    session.register_udf(functions::predicate("has_secret", |text| SECRET.is_match(text)));
}

/// That all can be planned, over the view `candidates`.
///
/// # Errors
/// Exit 2: an expression is none, is not true or false, or says another thing the next time; its name and what is wrong.
pub(crate) fn check(session: &SessionContext, filters: &Filters) -> Result<()> {
    for (name, expression) in filters {
        let wrong = |why: &str| config_error(format!("prepare.filters.{name} = {expression:?}: {why}"));
        let frame = block_on(session.sql(&format!("select count(*) from candidates where ({expression})")))
            .map_err(|error| wrong(&error.strip_backtrace()))?;
        if let Some(function) = changing(frame.logical_plan()).map_err(|error| wrong(&error.strip_backtrace()))? {
            return Err(wrong(&format!(
                "{function}() says another thing the next time, and the same config is to make the same rows; use the row's \
                 own columns alone"
            )));
        }
    }
    Ok(())
}

/// The first function of a query whose value is not that of its arguments alone.
fn changing(plan: &LogicalPlan) -> datafusion::error::Result<Option<String>> {
    let mut found = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|inner| match inner {
                Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
                    found = Some(call.func.name().to_owned());
                    Ok(TreeNodeRecursion::Stop)
                }
                _ => Ok(TreeNodeRecursion::Continue),
            })
        })
    })?;
    Ok(found)
}

/// Of an error that came while rows were looked at: which filter it is of, where it is one's.
pub(crate) fn explain(session: &SessionContext, filters: &Filters, error: anyhow::Error) -> anyhow::Error {
    let fails = |expression: &String| {
        let alone =
            format!("select count(*) from candidates where split in ('train', 'validation') and ({expression})");
        let ran = block_on(async { session.sql(&alone).await?.collect().await });
        ran.err().filter(|error| !matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)))
    };
    for (name, expression) in filters {
        if let Some(why) = fails(expression) {
            let (why, advice) =
                (why.strip_backtrace(), "write it so that it holds for every row, as with nullif or a case");
            return config_error(format!("prepare.filters.{name} = {expression:?}: {why}; {advice}"));
        }
    }
    error
}

/// The arms of a `case` that gives the name of the first filter that holds. Evaluation rows are never filtered: scores on
/// them would no longer be comparable.
pub(crate) fn arms(filters: &Filters) -> String {
    let arm = |(name, expression): (&String, &String)| {
        format!("when split in ('train', 'validation') and ({expression}) then '{name}'\n")
    };
    filters.iter().map(arm).collect()
}

fn longest_line(text: &str) -> i64 {
    text.lines().map(|line| line.chars().count() as i64).max().unwrap_or(0)
}

/// Of the characters that are no white space; 1 where there are none.
fn share(text: &str, counts: impl Fn(char) -> bool) -> f64 {
    let (mut all, mut counted) = (0u64, 0u64);
    for c in text.chars().filter(|c| !c.is_whitespace()) {
        all += 1;
        counted += u64::from(counts(c));
    }
    if all == 0 { 1.0 } else { counted as f64 / all as f64 }
}

/// Words by which English is told from other languages that are written in its letters.
const ENGLISH: [&str; 40] = [
    "the", "a", "an", "of", "to", "in", "is", "and", "or", "for", "with", "from", "by", "on", "at", "as", "if", "this",
    "that", "it", "its", "be", "are", "not", "all", "given", "return", "returns", "get", "gets", "set", "sets",
    "check", "create", "make", "when", "which", "whether", "into", "each",
];
const OTHERS: [&str; 46] = [
    "el",
    "los",
    "las",
    "del",
    "una",
    "que",
    "para",
    "con",
    "por",
    "devuelve",
    "le",
    "les",
    "des",
    "une",
    "du",
    "et",
    "est",
    "pour",
    "dans",
    "avec",
    "renvoie",
    "der",
    "das",
    "und",
    "ist",
    "ein",
    "eine",
    "mit",
    "von",
    "auf",
    "gibt",
    "nicht",
    "il",
    "gli",
    "della",
    "di",
    "che",
    "restituisce",
    "um",
    "uma",
    "não",
    "retorna",
    "het",
    "een",
    "van",
    "voor",
];

/// Whether the text may be English: most of its letters are Latin without marks, and of the words that tell languages apart
/// no more are another's.
fn is_english(text: &str) -> bool {
    let letters = || text.chars().filter(|c| c.is_alphabetic());
    let (all, plain) = (letters().count(), letters().filter(char::is_ascii).count());
    if plain * 10 < all * 9 {
        return false;
    }
    let words: Vec<String> = text.split(|c: char| !c.is_alphabetic()).map(str::to_lowercase).collect();
    let count = |known: &[&str]| words.iter().filter(|word| known.contains(&word.as_str())).count();
    count(&OTHERS) <= count(&ENGLISH)
}

/// Whether the text says of itself that a program wrote it.
fn is_generated(text: &str) -> bool {
    const MARKS: [&str; 6] = [
        "auto-generated",
        "autogenerated",
        "automatically generated",
        "code generated by",
        "do not edit",
        "@generated",
    ];
    let lower = text.to_lowercase();
    MARKS.iter().any(|mark| lower.contains(mark))
}

static EMAIL: LazyLock<Regex> =
    LazyLock::new(|| regex(r"\b[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}\b"));

/// Private keys, and the access keys of AWS, GitHub, Google, Slack, Stripe and OpenAI, by the shapes they publish.
static SECRET: LazyLock<Regex> = LazyLock::new(|| {
    regex(concat!(
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\b(AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b",
        r"|\bAIza[0-9A-Za-z_-]{35}|\bxox[abprs]-[0-9A-Za-z-]{10,}|\b[rs]k_live_[0-9A-Za-z]{16,}|\bsk-[A-Za-z0-9_-]{32,}",
    ))
});

#[allow(clippy::expect_used, reason = "the two patterns are compiled by a test")]
fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the pattern is valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_measured() {
        assert_eq!(longest_line("ab\nçde\n"), 3);
        assert!((share("a1 _+", char::is_alphanumeric) - 0.5).abs() < 1e-12);
        assert!((share("  ", char::is_alphanumeric) - 1.0).abs() < 1e-12);
        assert!(is_generated("# This file is Auto-Generated") && !is_generated("generate a name"));
    }

    #[test]
    fn languages_are_told_apart() {
        for text in ["Return the name of the file.", "Parse it.", "", "x", "Naïve Bayes of a list"] {
            assert!(is_english(text), "{text}");
        }
        for text in [
            "Devuelve el nombre del archivo",
            "Renvoie le nom du fichier",
            "Gibt den Namen der Datei zurück, und nicht mehr",
            "Restituisce il nome della lista",
            "返回文件名",
            "Возвращает имя файла",
        ] {
            assert!(!is_english(text), "{text}");
        }
    }

    #[test]
    fn secrets_and_addresses_are_seen() {
        let key = format!("AKIA{}", "IOSFODNN7EXAMPLE");
        for secret in [key.as_str(), "-----BEGIN RSA PRIVATE KEY-----"] {
            assert!(SECRET.is_match(&format!("x = '{secret}'")), "{secret}");
        }
        assert!(!SECRET.is_match("AKIA is a prefix; sk-learn"));
        assert!(EMAIL.is_match("write to a.b+c@example.org.") && !EMAIL.is_match("@property and a @ b.c"));
    }
}
