//! Values that come from elsewhere: from `--set`, and out of the environment.

use anyhow::{Context as _, Result};
use toml::{Table, Value};

use crate::config_error;

/// Applies `a.b=c`; `c` is TOML where it parses as such, else a string. Returns both as they were typed.
pub(super) fn apply_set(table: &mut Table, set: &str) -> Result<(String, String)> {
    let (key, text) = set
        .split_once('=')
        .ok_or_else(|| config_error(format!("--set {set}: expected KEY=VALUE, such as train.attention.epochs=8")))?;
    let value = toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .and_then(|mut t| t.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()));
    let key = key.trim();
    let mut keys: Vec<&str> = key.split('.').collect();
    if keys.iter().any(|part| part.trim().is_empty()) {
        return Err(config_error(format!("--set {set}: expected KEY=VALUE, such as train.attention.epochs=8")));
    }
    let last = keys.pop().context("a split has at least one part")?;
    let mut place = table;
    for part in keys {
        let next = place.entry(part).or_insert_with(|| Value::Table(Table::new()));
        place = next
            .as_table_mut()
            .ok_or_else(|| config_error(format!("--set {set}: `{part}` is a value, not a table")))?;
    }
    place.insert(last.to_owned(), value);
    Ok((key.to_owned(), text.to_owned()))
}

/// Makes the value at a path a text; false where it is one already, or is not there.
pub(super) fn make_text(table: &mut Value, path: &str, text: &str) -> bool {
    let place = path.split('.').try_fold(table, |place, key| place.get_mut(key));
    match place {
        Some(place) if !place.is_str() => {
            *place = Value::String(text.to_owned());
            true
        }
        _ => false,
    }
}

/// Expands `${NAME}` and `${NAME:-default}` in every string.
pub(super) fn expand(key: &str, value: &mut Value) -> Result<()> {
    match value {
        Value::String(text) if text.contains("${") => *text = expand_text(key, text)?,
        Value::Array(values) => values.iter_mut().try_for_each(|v| expand(key, v))?,
        Value::Table(table) => {
            for (name, inner) in table.iter_mut() {
                expand(&format!("{key}.{name}"), inner)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn expand_text(key: &str, text: &str) -> Result<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        out.push_str(&rest[..start]);
        let Some(length) = closing_brace(&rest[start + 2..]) else {
            return Err(config_error(format!("{key}: `${{` without its `}}` in {text:?}")));
        };
        let inner = &rest[start + 2..start + 2 + length];
        let (name, default) = inner.split_once(":-").map_or((inner, None), |(n, d)| (n, Some(d)));
        match (std::env::var(name), default) {
            (Ok(value), _) if !value.is_empty() => out.push_str(&value),
            // A default may name another variable.
            (_, Some(default)) => out.push_str(&expand_text(key, default)?),
            _ => return Err(config_error(format!("{key}: the environment variable {name} is not set"))),
        }
        rest = &rest[start + 2 + length + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Where the brace closes that was open before `text`, those of variables within it aside.
fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0;
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' if at > 0 && bytes[at - 1] == b'$' => depth += 1,
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_may_name_another_variable() {
        let home = std::env::var("HOME").unwrap();
        let expanded = |text: &str| expand_text("store.url", text).map_err(|error| error.to_string());
        for (text, wanted) in [
            ("${CODEPAIR_A:-${CODEPAIR_B:-x}}/y", "x/y".to_owned()),
            ("${CODEPAIR_A:-${HOME}}", home.clone()),
            ("${HOME:-${CODEPAIR_B}}", home),
            ("{${CODEPAIR_A:-}}", "{}".to_owned()),
            ("${CODEPAIR_A:-a${CODEPAIR_B:-b}c}${CODEPAIR_C:-d}", "abcd".to_owned()),
        ] {
            assert_eq!(expanded(text).unwrap(), wanted, "{text}");
        }
        assert!(expanded("${CODEPAIR_A:-${CODEPAIR_B}}").unwrap_err().contains("CODEPAIR_B is not set"));
        assert!(expanded("${CODEPAIR_A:-${CODEPAIR_B:-x}").unwrap_err().contains("without its `}`"));
    }
}
