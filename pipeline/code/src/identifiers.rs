//! Words of identifiers: `getHTTPResponse_code` is get, http, response, code.

/// Splits text into lower-case words: at everything that is no letter or digit, at underscores and at camel-case humps.
pub fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty()).flat_map(humps)
}

fn humps(part: &str) -> Vec<String> {
    let characters: Vec<char> = part.chars().collect();
    let mut words = Vec::new();
    let mut word = String::new();
    for (i, &c) in characters.iter().enumerate() {
        let after_lower = i > 0 && characters[i - 1].is_lowercase() && c.is_uppercase();
        let before_lower = i > 0
            && characters[i - 1].is_uppercase()
            && c.is_uppercase()
            && characters.get(i + 1).is_some_and(|next| next.is_lowercase());
        if (after_lower || before_lower) && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        word.extend(c.to_lowercase());
    }
    words.push(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_split() {
        let split = |text| words(text).collect::<Vec<_>>().join(" ");
        assert_eq!(split("getHTTPResponse_code(x1)"), "get http response code x1");
        assert_eq!(split("a.b  C"), "a b c");
        assert_eq!(split(""), "");
    }
}
