//! What is said of a wrong config: where it is wrong, and what may be meant.

use codepair_schemas::STAGES;

use crate::config::kind::WITHIN;

/// Where in the config an error lies, and what is wrong there.
pub(super) fn place_and_message(
    mut place: String,
    error: serde_path_to_error::Error<toml::de::Error>,
) -> (String, String) {
    let mut message = String::new();
    // Within a table of some kind the path begins anew.
    let mut next = Some((error.path().to_string(), error.into_inner().to_string()));
    while let Some((path, said)) = next.take() {
        if path != "." {
            place = format!("{place}.{path}");
        }
        next = said.strip_prefix(WITHIN).and_then(|said| said.split_once(WITHIN)).map(|(p, m)| (p.into(), m.into()));
        message = said;
    }
    (place, message)
}

/// Rewrites serde's "unknown field" so that it names the nearest known key.
pub(super) fn explain(message: &str, place: &str) -> String {
    let message = message.lines().next().unwrap_or_default();
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if let (true, Some((key, known))) = (message.starts_with("unknown field"), quoted.split_first()) {
        let place = place.strip_suffix(&format!(".{key}")).unwrap_or(place);
        // A table within it may be another stage's.
        let inner = STAGES.iter().filter_map(|stage| stage.table.strip_prefix(place)?.strip_prefix('.'));
        let known: Vec<&str> = known.iter().copied().chain(inner).collect();
        return unknown_key(key, &format!("[{place}]"), &known);
    }
    if let (true, Some((value, known))) = (message.starts_with("unknown variant"), quoted.split_first()) {
        return format!("{place}: unknown value `{value}`{}", suggestion(value, known));
    }
    // Rust's names of types are none of the config's.
    let types = [
        ("u32", "a whole number"),
        ("u64", "a whole number"),
        ("usize", "a whole number"),
        ("f64", "a number"),
        ("a boolean", "true or false"),
        ("a string", "a text"),
        ("a sequence", "a list, such as [\"a\"]"),
    ];
    for rust in
        ["expected internally tagged enum ", "expected struct ", "expected a map", "expected adjacently tagged enum "]
    {
        if let Some((start, _)) = message.split_once(rust) {
            return format!("{place}: {start}expected a table, such as {{ key = value }}");
        }
    }
    for (name, words) in types {
        if let Some(start) = message.strip_suffix(&format!("expected {name}")) {
            return format!("{place}: {start}expected {words}");
        }
    }
    format!("{place}: {message}")
}

pub(super) fn unknown_key(key: &str, place: &str, known: &[&str]) -> String {
    format!("unknown key `{key}` in {place}{}", suggestion(key, known))
}

fn suggestion(word: &str, known: &[&str]) -> String {
    match nearest(word, known) {
        Some(nearest) => format!("; did you mean `{nearest}`?"),
        None if known.is_empty() => String::new(),
        None => format!("; known are {}", known.join(", ")),
    }
}

/// The known word that another one may be meant for.
#[must_use]
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let likeness = |known: &str| strsim::jaro_winkler(word, known);
    let nearest = known.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    nearest.filter(|nearest| likeness(nearest) > 0.7)
}
