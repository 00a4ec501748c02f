//! Tables whose keys have lists of values: each value, and each combination of them, is a table of its own.

use codepair_schemas::Stage;
use toml::{Table, Value};

/// One of the tables that a table with lists stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct Variation {
    /// Its own name: `NAME-1`, `NAME-2`, ….
    pub name: String,
    /// The name of the table that was written.
    pub of: String,
    /// What it has of each list, by the key.
    pub values: Vec<(String, Value)>,
}

impl Variation {
    /// What it has of each list but that of seeds, in words.
    #[must_use]
    pub fn settings(&self) -> String {
        let others = self.values.iter().filter(|(key, _)| key != SEED);
        others.map(|(key, value)| format!("{key} = {value}")).collect::<Vec<_>>().join(", ")
    }

    /// What it has of each list, in words.
    #[must_use]
    pub fn all_settings(&self) -> String {
        self.values.iter().map(|(key, value)| format!("{key} = {value}")).collect::<Vec<_>>().join(", ")
    }
}

/// More tables than this of one are taken for a mistake.
const MOST: usize = 1000;

/// The key whose list of values gives [`SEED`].
const SEEDS: &str = "seeds";
const SEED: &str = "seed";

/// Puts in place of each table of a stage that has lists the tables that it stands for.
///
/// # Errors
/// The key, and why not.
pub(super) fn vary(stage: &Stage, tables: &mut Table) -> Result<Vec<Variation>, String> {
    let Some(lists) = stage.lists else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    let names: Vec<String> = tables.keys().cloned().collect();
    for name in names {
        let Some(Value::Table(written)) = tables.get(&name) else { continue };
        let mut written = written.clone();
        let mut axes = Vec::new();
        if let Some(seeds) = written.remove(SEEDS) {
            let Value::Array(seeds) = seeds else { return Err(format!("{name}.{SEEDS} is a list, such as [1, 2, 3]")) };
            if written.contains_key(SEED) {
                return Err(format!("{name} has {SEEDS} and {SEED}, which say the same; give one of them"));
            }
            if seeds.is_empty() {
                return Err(format!("{name}.{SEEDS} is an empty list: it would make no table"));
            }
            axes.push((SEED.to_owned(), seeds));
        }
        axes.extend(lists_of(&written, "", lists));
        if axes.is_empty() {
            continue;
        }
        if let Some((key, _)) = axes.iter().find(|(_, values)| values.is_empty()) {
            return Err(format!("{name}.{key} is an empty list: it would make no table"));
        }
        let double = |values: &[Value]| (1..values.len()).find(|at| values[..*at].contains(&values[*at]));
        if let Some((key, value)) = axes.iter().find_map(|(key, values)| Some((key, &values[double(values)?]))) {
            return Err(format!("{name}.{key} lists {value} twice"));
        }
        let count = axes.iter().try_fold(1usize, |all, (_, values)| all.checked_mul(values.len()));
        let Some(count) = count.filter(|count| *count <= MOST) else {
            return Err(format!("{name}: its lists make more than {MOST} tables"));
        };
        tables.remove(&name);
        for number in 0..count {
            let own = format!("{name}-{}", number + 1);
            let mut table = written.clone();
            // The last list changes first.
            let mut rest = number;
            let mut values = Vec::new();
            for (key, choices) in axes.iter().rev() {
                let value = choices[rest % choices.len()].clone();
                rest /= choices.len();
                set(&mut table, key, value.clone());
                values.insert(0, (key.clone(), value));
            }
            if tables.insert(own.clone(), Value::Table(table)).is_some() {
                return Err(format!("{own} is there, and the lists of {name} make a table of that name too"));
            }
            found.push(Variation { name: own, of: name.clone(), values });
        }
    }
    Ok(found)
}

/// Keys with lists, joined by dots; some keys are lists by themselves.
fn lists_of(table: &Table, within: &str, own: &[&str]) -> Vec<(String, Vec<Value>)> {
    let list = |(key, value): (&String, &Value)| match value {
        // One that is a list by itself is varied by a list of lists.
        Value::Array(values) if own.contains(&key.as_str()) && !values.iter().any(Value::is_array) => Vec::new(),
        Value::Array(values) => vec![(format!("{within}{key}"), values.clone())],
        Value::Table(inner) => lists_of(inner, &format!("{within}{key}."), own),
        _ => Vec::new(),
    };
    table.iter().flat_map(list).collect()
}

fn set(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => drop(table.insert(key.to_owned(), value)),
        Some((first, rest)) => {
            if let Some(Value::Table(inner)) = table.get_mut(first) {
                set(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn varied(text: &str) -> Result<(Table, Vec<Variation>), String> {
        let mut tables: Table = toml::from_str(text).unwrap();
        let stage = codepair_schemas::stage("train").unwrap();
        let found = vary(stage, &mut tables)?;
        Ok((tables, found))
    }

    #[test]
    fn each_combination_is_a_table() {
        let text = "[a]\nrate = [0.1, 0.2]\nseeds = [1, 2]\nnegatives = [\"x\"]\n[a.model]\nkind = \"lstm\"\nhidden = [8]\n[b]\nseed = 3\n";
        let (tables, found) = varied(text).unwrap();
        assert_eq!(tables.keys().collect::<Vec<_>>(), ["a-1", "a-2", "a-3", "a-4", "b"]);
        let of = |name: &str| toml::to_string(&tables[name]).unwrap();
        assert_eq!(of("a-2"), "negatives = [\"x\"]\nrate = 0.2\nseed = 1\n\n[model]\nhidden = 8\nkind = \"lstm\"\n");
        let seeds: Vec<&str> = found.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(seeds, ["a-1", "a-2", "a-3", "a-4"]);
        let keys = |at: usize| found[at].values.iter().map(|(key, value)| format!("{key} {value}")).collect::<Vec<_>>();
        assert_eq!(keys(0), ["seed 1", "model.hidden 8", "rate 0.1"]);
        assert_eq!(keys(2), ["seed 2", "model.hidden 8", "rate 0.1"]);
        assert!(found.iter().all(|one| one.of == "a"));
    }

    #[test]
    fn lists_are_varied_by_lists_of_lists() {
        let (tables, _) =
            varied("[a.target]\nfields = [[\"name\", \"code\"], [\"code\"]]\n[b.target]\nfields = [\"code\"]\n")
                .unwrap();
        assert_eq!(tables.keys().collect::<Vec<_>>(), ["a-1", "a-2", "b"]);
        assert_eq!(tables["a-2"]["target"]["fields"], Value::Array(vec![Value::String("code".into())]));
    }

    #[test]
    fn wrong_lists_are_named() {
        for (text, words) in [
            ("[a]\nseeds = 3", "a.seeds is a list"),
            ("[a]\nseeds = [1]\nseed = 2", "a has seeds and seed"),
            ("[a]\nmodel = { hidden = [] }", "a.model.hidden is an empty list"),
            ("[a]\nseeds = []", "a.seeds is an empty list"),
            ("[a]\nrate = [0.1, 0.2, 0.1]", "a.rate lists 0.1 twice"),
            ("[a]\nseeds = [1]\n[a-1]\nseed = 2", "a-1 is there"),
        ] {
            let said = varied(text).unwrap_err();
            assert!(said.contains(words), "{said}");
        }
        let many: Vec<String> = (0..1001).map(|seed| seed.to_string()).collect();
        assert!(varied(&format!("[a]\nseeds = [{}]", many.join(", "))).unwrap_err().contains("more than 1000"));
    }
}
