//! Which of the nearest are hard negatives: near enough to teach something, far enough to be wrong. The options are those of
//! sentence-transformers' `mine_hard_negatives`; the relative margin is that of NV-Retriever (Moreira et al., 2024).

use anyhow::Result;
use codepair_runtime::{config_error, sha256};
use codepair_search::Hit;
use rand::SeedableRng;
use rand::seq::index;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// How negatives are taken when more fit than are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sample {
    /// The nearest.
    Top,
    /// Any, by the seed.
    Random,
}

/// The rules by which negatives are chosen.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Rules {
    /// Negatives of a query.
    pub(crate) negatives: usize,
    /// The first so many candidates are left out: the nearest of all are often right.
    pub(crate) range_min: usize,
    /// Candidates that are looked at.
    pub(crate) range_max: usize,
    pub(crate) max_score: Option<f32>,
    pub(crate) min_score: Option<f32>,
    /// A negative scores at least so much less than the positive.
    pub(crate) absolute_margin: Option<f32>,
    /// The same as a share of the positive's score.
    pub(crate) relative_margin: Option<f32>,
    pub(crate) sample: Sample,
    pub(crate) seed: u64,
}

/// A negative that was chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Chosen {
    pub(crate) hit: Hit,
    /// Among the candidates that are no positives, from 1.
    pub(crate) rank: usize,
}

impl Chosen {
    /// Which row's code it is and how it was found, as JSON.
    pub(crate) fn parameters(&self, code_id: &str, by: &str, rules: &Rules) -> String {
        json!({ "code_id": code_id, "rank": self.rank, "score": self.hit.score, "by": by, "rules": rules }).to_string()
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            negatives: 1,
            range_min: 0,
            range_max: 1,
            max_score: None,
            min_score: None,
            absolute_margin: None,
            relative_margin: None,
            sample: Sample::Top,
            seed: 0,
        }
    }
}

impl Rules {
    /// Errors of the config.
    pub(crate) fn check(&self) -> Result<()> {
        if self.negatives == 0 || self.range_max < self.range_min + self.negatives {
            return Err(config_error(format!(
                "negatives must be at least 1, and range_max at least range_min + negatives ({} + {})",
                self.range_min, self.negatives
            )));
        }
        Ok(())
    }

    /// Chooses among the nearest candidates, which come best first; `positives`, ascending, are left out, and so is what
    /// `is_copy` says to be nearly one of them. `positive` is the lowest score of the positives; `query` decides, with the seed,
    /// what is drawn.
    ///
    /// # Errors
    /// Those of `is_copy`.
    pub(crate) fn choose(
        &self,
        hits: &[Hit],
        positives: &[u32],
        positive: Option<f32>,
        query: &str,
        is_copy: impl Fn(usize) -> Result<bool>,
    ) -> Result<Vec<Chosen>> {
        let others = hits.iter().filter(|hit| positives.binary_search(&(hit.candidate as u32)).is_err());
        let ranked = others.take(self.range_max).enumerate().map(|(at, hit)| Chosen { hit: *hit, rank: at + 1 });
        let fits = |chosen: &Chosen| {
            let score = chosen.hit.score;
            let margins = positive.is_none_or(|positive| {
                self.absolute_margin.is_none_or(|margin| score + margin <= positive)
                    && self.relative_margin.is_none_or(|margin| score <= positive - positive.abs() * margin)
            });
            margins
                && self.max_score.is_none_or(|most| score <= most)
                && self.min_score.is_none_or(|least| score >= least)
        };
        let fitting = ranked.filter(fits).skip(self.range_min);
        // Codes are compared for those alone that would be taken.
        let mut wrong = fitting.map(|chosen| anyhow::Ok((!is_copy(chosen.hit.candidate)?).then_some(chosen)));
        let mut taken: Vec<Chosen> = Vec::new();
        let wanted = if self.sample == Sample::Random { usize::MAX } else { self.negatives };
        while taken.len() < wanted
            && let Some(chosen) = wrong.next()
        {
            taken.extend(chosen?);
        }
        if taken.len() > self.negatives {
            let digest = sha256(format!("{} {query}", self.seed).as_bytes());
            let seed = u64::from_str_radix(&digest[..16], 16).unwrap_or_default();
            let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let mut drawn = index::sample(&mut random, taken.len(), self.negatives).into_vec();
            drawn.sort_unstable();
            return Ok(drawn.into_iter().map(|at| taken[at]).collect());
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules { negatives: 2, range_max: 5, ..Rules::default() }
    }

    /// Candidates 0 to 7 with scores 0.9, 0.8 … 0.2; 1 is the positive.
    fn choose(rules: &Rules) -> Vec<usize> {
        chosen(rules, |_| false)
    }

    fn chosen(rules: &Rules, is_copy: impl Fn(usize) -> bool) -> Vec<usize> {
        let hits: Vec<Hit> = (0..8).map(|candidate| Hit { candidate, score: 0.9 - 0.1 * candidate as f32 }).collect();
        let chosen = rules.choose(&hits, &[1], Some(0.8), "q", |at| Ok(is_copy(at))).unwrap();
        chosen.into_iter().map(|chosen| chosen.hit.candidate).collect()
    }

    #[test]
    fn copies_of_right_answers_are_passed_over() {
        assert_eq!(chosen(&rules(), |at| at == 0 || at == 3), [2, 4]);
        assert_eq!(chosen(&rules(), |_| true), [0; 0]);
        let random = Rules { sample: Sample::Random, negatives: 3, ..rules() };
        assert_eq!(chosen(&random, |at| at > 3), [0, 2, 3]);
    }

    #[test]
    fn each_rule_holds() {
        assert_eq!(choose(&rules()), [0, 2]);
        assert_eq!(choose(&Rules { range_min: 1, ..rules() }), [2, 3]);
        assert_eq!(choose(&Rules { max_score: Some(0.65), ..rules() }), [3, 4]);
        assert_eq!(choose(&Rules { min_score: Some(0.75), ..rules() }), [0]);
        assert_eq!(choose(&Rules { absolute_margin: Some(0.15), ..rules() }), [3, 4]);
        assert_eq!(choose(&Rules { relative_margin: Some(0.3), ..rules() }), [4, 5]);
        // The range is counted before the margins, and ends at candidate 5.
        assert_eq!(choose(&Rules { relative_margin: Some(0.5), ..rules() }), [5]);
        assert_eq!(choose(&Rules { max_score: Some(0.65), range_min: 1, ..rules() }), [4, 5]);
    }

    #[test]
    fn draws_are_repeatable_and_within_the_range() {
        let drawn = |seed| choose(&Rules { sample: Sample::Random, seed, ..rules() });
        assert_eq!(drawn(1), drawn(1));
        let all: std::collections::BTreeSet<usize> = (0..40).flat_map(drawn).collect();
        assert_eq!(all.into_iter().collect::<Vec<_>>(), [0, 2, 3, 4, 5]);
    }

    #[test]
    fn ranges_that_hold_nothing_are_refused() {
        assert!(rules().check().is_ok());
        assert!(Rules { range_max: 1, ..rules() }.check().is_err());
        assert!(Rules { negatives: 0, ..rules() }.check().is_err());
    }
}
