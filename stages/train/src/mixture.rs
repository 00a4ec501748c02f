//! How often the rows of each source are trained on.

use std::collections::BTreeMap;

use anyhow::Result;
use codepair_runtime::{Paged, input_error};

use crate::batches::Permutation;
use crate::data::CACHE;

/// The rows of an epoch: of each source as many as its own number times its weight. A weight of 2 takes each row twice; one of 0.5
/// takes a half of them in an epoch, and the other half in the next.
pub(crate) struct Mixture {
    parts: Vec<Part>,
    seed: u64,
}

/// The rows of a source.
struct Part {
    name: String,
    /// Numbers of its examples.
    examples: Paged<u64>,
    rows: u64,
    weight: f64,
}

impl Part {
    /// How many of its rows an epoch takes.
    fn taken(&self) -> u64 {
        (self.rows as f64 * self.weight).round() as u64
    }
}

impl Mixture {
    pub(crate) fn new(seed: u64) -> Self {
        Self { parts: Vec::new(), seed }
    }

    /// Adds an example of a source.
    pub(crate) fn push(&mut self, source: &str, example: u64, weights: &BTreeMap<String, f64>) -> Result<()> {
        let at = match self.parts.iter().position(|part| part.name == source) {
            Some(at) => at,
            None => {
                let weight = weights.get(source).copied().unwrap_or(1.0);
                self.parts.push(Part { name: source.to_owned(), examples: Paged::new(CACHE)?, rows: 0, weight });
                self.parts.len() - 1
            }
        };
        let part = &mut self.parts[at];
        part.examples.set(part.rows, example)?;
        part.rows += 1;
        Ok(())
    }

    /// That all sources with a weight are there, and that an epoch has rows.
    pub(crate) fn check(&self, key: &str, weights: &BTreeMap<String, f64>) -> Result<()> {
        let known: Vec<&str> = self.parts.iter().map(|part| part.name.as_str()).collect();
        let known_here = known.join(", ");
        if let Some(name) = weights.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(input_error(format!(
                "{key}.{name}: no training row is of that source; there are {known_here}"
            )));
        }
        if self.rows() == 0 {
            return Err(input_error(format!("{key} leaves no training row; give one of {known_here} more weight")));
        }
        Ok(())
    }

    /// Rows of an epoch.
    pub(crate) fn rows(&self) -> u64 {
        self.parts.iter().map(Part::taken).sum()
    }

    /// The example that is a row of an epoch, epochs counted from 1.
    pub(crate) fn example(&self, epoch: u32, mut row: u64) -> Result<u64> {
        for part in &self.parts {
            let taken = part.taken();
            if row >= taken {
                row -= taken;
                continue;
            }
            let rest = taken % part.rows;
            let place = if row < taken - rest {
                row % part.rows
            } else {
                // What is over goes through all rows in one random order, epoch after epoch.
                let at = (u64::from(epoch - 1) * rest + row - (taken - rest)) % part.rows;
                Permutation::new(part.rows, self.seed).at(at)
            };
            return part.examples.get(place);
        }
        anyhow::bail!("an epoch has no row {row} more")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_taken_by_their_weights() {
        let weights: BTreeMap<String, f64> = [("twice", 2.0), ("half", 0.5), ("more", 1.3), ("never", 0.0)]
            .map(|(name, weight)| (name.to_owned(), weight))
            .into();
        let mut mixture = Mixture::new(3);
        let names = ["twice", "half", "more", "never", "plain"];
        for example in 0..100u64 {
            mixture.push(names[example as usize % 5], example, &weights).unwrap();
        }
        mixture.check("weights", &weights).unwrap();
        assert_eq!(mixture.rows(), 40 + 10 + 26 + 20);
        let mut counts = BTreeMap::new();
        for epoch in 1..=10 {
            for row in 0..mixture.rows() {
                *counts.entry(mixture.example(epoch, row).unwrap()).or_insert(0u32) += 1;
            }
        }
        // Over ten epochs every row of a source is taken as often as every other.
        for example in 0..100u64 {
            let wanted = [20, 5, 13, 0, 10][example as usize % 5];
            assert_eq!(counts.get(&example).copied().unwrap_or(0), wanted, "{example}");
        }
        let unknown = BTreeMap::from([("other".to_owned(), 1.0)]);
        let said = mixture.check("weights", &unknown).unwrap_err().to_string();
        assert!(said.contains("weights.other") && said.contains("twice, half"), "{said}");
    }
}
