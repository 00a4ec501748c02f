//! Texts and codes in one spelling, so that what is equal compares equal.

/// A text with its white space folded: one space between words, none at the ends.
#[must_use]
pub fn normal_text(text: &str) -> String {
    let mut normal = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !normal.is_empty() {
            normal.push(' ');
        }
        normal.push_str(word);
    }
    normal
}

/// Program text with line feeds only, no trailing white space and no empty lines at its ends.
#[must_use]
pub fn normal_code(code: &str) -> String {
    let mut normal = String::with_capacity(code.len() + 1);
    for line in code.lines() {
        let line = match line.as_bytes().last() {
            // Most lines end with a mark or a letter.
            Some(byte) if byte.is_ascii_graphic() => line,
            _ => line.trim_end(),
        };
        if !(normal.is_empty() && line.is_empty()) {
            normal.push_str(line);
            normal.push('\n');
        }
    }
    normal.truncate(normal.trim_end_matches('\n').len());
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_codes_have_one_spelling() {
        assert_eq!(normal_text(" a\n\nb\tc "), "a b c");
        assert_eq!(normal_code("\r\ndef f():  \r\n    pass\n\n"), "def f():\n    pass");
        assert_eq!(normal_code("\n\n"), "");
        assert_eq!(normal_code("a\u{a0}\nb \t\n\nc"), "a\nb\n\nc");
    }
}
