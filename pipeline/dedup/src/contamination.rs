//! Training rows that hold what the models are tested on: queries, problems and solutions, test rows of at least eight
//! words, found word for word anywhere in a row's text or code.

use std::collections::HashMap;

/// Shorter texts are too common to count.
const WORDS: usize = 8;

/// Texts that no training row may hold, by their first eight words.
#[derive(Debug, Default)]
pub struct ContaminationIndex {
    /// Position in `texts`, by the first eight words joined.
    anchors: HashMap<String, Vec<usize>>,
    texts: Vec<(String, Vec<String>)>,
}

impl ContaminationIndex {
    /// Adds a text under a name; texts of fewer than eight words are left out.
    pub fn add(&mut self, name: &str, text: &str) {
        let words = words(text);
        if words.len() >= WORDS {
            self.anchors.entry(words[..WORDS].join(" ")).or_default().push(self.texts.len());
            self.texts.push((name.to_owned(), words));
        }
    }

    /// The name of a text that `row` holds.
    #[must_use]
    pub fn find(&self, row: &str) -> Option<&str> {
        if self.anchors.is_empty() {
            return None;
        }
        let words = words(row);
        (0..words.len().saturating_sub(WORDS - 1)).find_map(|start| {
            let anchored = self.anchors.get(&words[start..start + WORDS].join(" "))?;
            anchored
                .iter()
                .map(|&i| &self.texts[i])
                .find(|(_, text)| words[start..].starts_with(text))
                .map(|(n, _)| n.as_str())
        })
    }

    /// Texts in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }
}

/// Lower-case words of letters, digits and underscores.
fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|w| !w.is_empty()).map(str::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_anywhere_and_whole() {
        let mut index = ContaminationIndex::default();
        index.add("q1", "Write a function to find the sum of two numbers.");
        index.add("short", "find the sum");
        assert_eq!(index.len(), 1);
        assert_eq!(index.find("# Task: write a FUNCTION, to find the sum of two numbers!"), Some("q1"));
        assert_eq!(index.find("Write a function to find the sum of two"), None);
        assert_eq!(index.find("find the sum"), None);
        assert_eq!(ContaminationIndex::default().find("anything at all, however long the text may be here"), None);
    }
}
