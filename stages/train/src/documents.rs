//! How the fields of a target become what a model sees.

use codepair_model::{Side, joined};
use codepair_schemas::DocumentField;
use codepair_tokenizer::Tokenizer;
use twox_hash::XxHash3_64;

/// Puts the fields of targets together.
#[derive(Clone)]
pub(crate) struct Documents {
    tokenizer: Tokenizer,
    most: usize,
    /// Between two fields.
    between: Vec<u32>,
    /// Of each field the share of documents that training shows without it.
    shares: Vec<f64>,
    /// The field that is asked with: validation shows no document with it.
    asked: Option<usize>,
    /// The field that no document is without.
    main: usize,
}

impl Documents {
    /// Of a target whose queries are the column of `source`.
    pub(crate) fn new(source: &Side, target: &Side, tokenizer: &Tokenizer) -> anyhow::Result<Self> {
        let fields = target.document();
        let share = |field: &DocumentField| target.field_dropout.get(field).copied().unwrap_or(0.0);
        Ok(Self {
            between: tokenizer.encode("\n")?,
            most: target.max_tokens,
            shares: fields.iter().map(share).collect(),
            asked: fields.iter().position(|field| *field == source.column.into()),
            main: fields.iter().position(|field| *field == target.column.into()).unwrap_or(0),
            tokenizer: tokenizer.clone(),
        })
    }

    /// How many fields there are.
    pub(crate) fn fields(&self) -> usize {
        self.shares.len()
    }

    /// Tokens that a document has at most.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// A document of its fields' tokens, as training shows it where there is a seed, and else as validation does.
    pub(crate) fn of(&self, parts: &[Vec<u32>], seed: Option<u64>) -> Vec<u32> {
        let is_shown = |at: usize| {
            let drawn = |seed| XxHash3_64::oneshot_with_seed(seed, &at.to_le_bytes()) as f64 / u64::MAX as f64;
            at == self.main || seed.map_or(self.asked != Some(at), |seed| drawn(seed) >= self.shares[at])
        };
        let shown = parts.iter().enumerate().filter(|(at, _)| is_shown(*at)).map(|(_, part)| part);
        let mut tokens = joined(shown, &self.between);
        self.tokenizer.fit(&mut tokens, self.most);
        tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use codepair_tokenizer::Cut;

    #[test]
    fn fields_are_dropped_as_often_as_is_said_and_the_query_s_own_never_validated() {
        let side = |text: &str| serde_json::from_str::<Side>(text).unwrap();
        let source = side(r#"{ "column": "text", "tokenizer": "a", "max_tokens": 8 }"#);
        let target = side(
            r#"{ "fields": ["name", "text", "code"], "field_dropout": { "text": 0.5, "name": 0.1 }, "tokenizer": "a", "max_tokens": 9 }"#,
        );
        let tokenizer = Tokenizer::train(["a\nb"].into_iter(), 300, Cut::Bytes).unwrap();
        let documents = Documents::new(&source, &target, &tokenizer).unwrap();
        let parts = [vec![100], vec![101, 102], vec![103; 3]];
        let line = tokenizer.encode("\n").unwrap()[0];
        assert_eq!(documents.of(&parts, None), [100, line, 103, 103, 103]);
        let all: Vec<Vec<u32>> = (0..2000).map(|seed| documents.of(&parts, Some(seed))).collect();
        let share = |token: u32| all.iter().filter(|one| one.contains(&token)).count() as f64 / 2000.0;
        assert!((share(101) - 0.5).abs() < 0.04 && (share(100) - 0.9).abs() < 0.03, "{} {}", share(101), share(100));
        assert_eq!(share(103), 1.0);
        assert!(all.contains(&vec![100, line, 101, 102, line, 103, 103, 103]));
        // What is empty leaves no break behind, and what is long is cut.
        assert_eq!(documents.of(&[vec![], vec![], vec![7; 20]], None), [7; 9]);
    }
}
