//! Examples as evaluation sees them.

use anyhow::Result;
use arrow::array::RecordBatch;
use codepair_runtime::{integer_column, text_column};
use codepair_schemas::{DocumentField, Field};

/// An example.
#[derive(Clone, Debug, Default)]
pub struct Example {
    /// Its id.
    pub id: String,
    /// Its position.
    pub ordinal: u64,
    /// Qualified name.
    pub name: String,
    /// Where it came from.
    pub url: String,
    /// Natural language.
    pub text: String,
    /// Program text.
    pub code: String,
    /// original, positive or negative.
    pub kind: String,
    /// train, validation or test.
    pub split: String,
}

impl Example {
    /// The columns of `examples` that it is made of.
    pub const COLUMNS: &[&str] = &["id", "ordinal", "name", "url", "text", "code", "kind", "split"];

    /// What it has as a field of a document.
    #[must_use]
    pub fn field(&self, field: DocumentField) -> &str {
        match field {
            DocumentField::Name => &self.name,
            DocumentField::Text => &self.text,
            DocumentField::Code => &self.code,
        }
    }

    /// One of its columns.
    #[must_use]
    pub fn column(&self, column: Field) -> &str {
        match column {
            Field::Text => &self.text,
            Field::Code => &self.code,
        }
    }
}

/// The examples that `wanted` holds for, in order; one batch is in memory at a time.
///
/// # Errors
/// A batch cannot be read, or a column is missing.
pub fn examples(
    batches: impl Iterator<Item = Result<RecordBatch>>,
    wanted: impl Fn(&Example) -> bool,
) -> Result<Vec<Example>> {
    let mut examples = Vec::new();
    for batch in batches {
        let batch = &batch?;
        let column = |name| text_column(batch, name);
        let (ids, names, urls) = (column("id")?, column("name")?, column("url")?);
        let (texts, codes, kinds, splits) = (column("text")?, column("code")?, column("kind")?, column("split")?);
        for (row, ordinal) in integer_column(batch, "ordinal")?.into_iter().enumerate() {
            let example = Example {
                id: ids.value(row).to_owned(),
                ordinal,
                name: names.value(row).to_owned(),
                url: urls.value(row).to_owned(),
                text: texts.value(row).to_owned(),
                code: codes.value(row).to_owned(),
                kind: kinds.value(row).to_owned(),
                split: splits.value(row).to_owned(),
            };
            if wanted(&example) {
                examples.push(example);
            }
        }
    }
    Ok(examples)
}
