//! Which names a function binds itself: its parameters, and what it assigns to. It reads words and marks, not grammar.

use crate::token::Token;

/// Tokens that are looked at on either side of a name: a row may be a table of half a million names.
const NEAR: usize = 64;
/// Tokens of a list of parameters at most.
const FAR: usize = 1024;

/// Whether a word begins a function in a language.
fn defines(word: &str, language: &str) -> bool {
    match word {
        "def" => matches!(language, "python" | "ruby"),
        "func" => language == "go",
        "fn" => language == "php",
        _ => matches!(language, "javascript" | "php"),
    }
}

/// The positions of tokens at which a name is bound, told to `bind`; those whose name is meant to be another's, to `free`.
pub(crate) fn bindings(tokens: &[Token], language: &str, mut bind: impl FnMut(usize), mut free: impl FnMut(usize)) {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let mut depth = 0usize;
    // Of Java the first brackets hold the parameters of the method, which no keyword announces.
    let mut has_parameters = language != "java";
    for at in 0..tokens.len() {
        let is_outside = depth == 0 || language != "python";
        match text(at) {
            "(" if !has_parameters => {
                has_parameters = true;
                parameters(tokens, at, language, &mut bind);
                depth += 1;
            }
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            word @ ("def" | "func" | "function" | "fn") if defines(word, language) => {
                if tokens.get(at + 1).is_some_and(|next| next.is_name) {
                    bind(at + 1);
                }
                // A method of Go has its receiver in brackets of its own.
                let mut open = at + 1;
                while open < at + 4 && text(open) != "(" {
                    open += 1;
                }
                let close = parameters(tokens, open, language, &mut bind);
                if language == "go" && open == at + 1 && text(close + 2) == "(" {
                    parameters(tokens, close + 2, language, &mut bind);
                }
            }
            "lambda" => {
                let mut inner = at + 1;
                while inner < tokens.len().min(at + NEAR) && text(inner) != ":" {
                    if tokens[inner].is_name && matches!(text(inner - 1), "lambda" | "," | "*") {
                        bind(inner);
                    }
                    inner += 1;
                }
            }
            "for" | "foreach" if tokens[at].is_word => targets(tokens, at + 1, language, &mut bind),
            "as" if language == "python" && tokens.get(at + 1).is_some_and(|next| next.is_name) => bind(at + 1),
            "catch" if text(at + 1) == "(" => drop(parameters(tokens, at + 1, "java", &mut bind)),
            "let" | "const" | "var" if !matches!(language, "python" | "ruby") => declared(tokens, at + 1, &mut bind),
            "global" | "nonlocal" => {
                let mut inner = at + 1;
                while inner < at + NEAR && tokens.get(inner).is_some_and(|token| !token.begins_line) {
                    if tokens[inner].is_name {
                        free(inner);
                    }
                    inner += 1;
                }
            }
            // A block of Ruby.
            "|" if language == "ruby" && matches!(text(at.wrapping_sub(1)), "{" | "do") => {
                let names = (at + 1..tokens.len()).take_while(|inner| tokens[*inner].text != "|").take(16);
                names.filter(|inner| tokens[*inner].is_name).for_each(&mut bind);
            }
            name if tokens[at].is_name => {
                let is_variable = name.starts_with('$') && name != "$this";
                if is_variable
                    || (is_outside && is_assigned(tokens, at))
                    || is_walrus(tokens, at)
                    || is_arrow(tokens, at)
                {
                    bind(at);
                }
            }
            _ => {}
        }
    }
}

/// Binds the parameters in the brackets that open at `open`, and says where these close.
fn parameters(tokens: &[Token], open: usize, language: &str, bind: &mut impl FnMut(usize)) -> usize {
    if tokens.get(open).is_none_or(|token| token.text != "(") {
        return open;
    }
    let (mut depth, mut last) = (0usize, None);
    for at in open..tokens.len().min(open + FAR) {
        match tokens[at].text {
            "(" | "[" | "{" | "<" if at > open => depth += 1,
            ")" if depth == 0 => {
                if language == "java" {
                    last.take().map(&mut *bind);
                }
                return at;
            }
            ")" | "]" | "}" | ">" => depth = depth.saturating_sub(1),
            "," if depth == 0 && language == "java" => drop(last.take().map(&mut *bind)),
            // The type stands before the name in Java, behind it elsewhere.
            _ if tokens[at].is_name && depth == 0 && language == "java" => last = Some(at),
            _ if tokens[at].is_name && depth == 0 && matches!(tokens[at - 1].text, "(" | "," | "*" | "&" | ".") => {
                bind(at);
            }
            _ => {}
        }
    }
    tokens.len()
}

/// Binds what a loop goes through with: as far as `in`, `of` or a mark ends it.
fn targets(tokens: &[Token], from: usize, language: &str, bind: &mut impl FnMut(usize)) {
    let mut last = None;
    for (at, token) in tokens.iter().enumerate().skip(from).take(24) {
        match token.text {
            "in" | "of" | ":" | "=" | ";" | "{" => break,
            _ if token.is_name && language == "java" => last = Some(at),
            _ if token.is_name => bind(at),
            _ => {}
        }
    }
    last.map(bind);
}

/// Binds what stands behind `let` and the like: a name, or several in brackets.
fn declared(tokens: &[Token], from: usize, bind: &mut impl FnMut(usize)) {
    let is_pattern = tokens.get(from).is_some_and(|token| matches!(token.text, "{" | "["));
    for (at, token) in tokens.iter().enumerate().skip(from).take(NEAR) {
        match token.text {
            "}" | "]" | "=" | ";" | "in" | "of" => return,
            _ if token.is_name => {
                bind(at);
                if !is_pattern {
                    return;
                }
            }
            _ => {}
        }
    }
}

/// Whether a name is assigned to: alone, with a type, by an operator, or among others.
fn is_assigned(tokens: &[Token], at: usize) -> bool {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let is_equals =
        |at: usize| text(at) == "=" && text(at + 1) != "=" && !matches!(text(at - 1), "=" | "!" | "<" | ">");
    if text(at.wrapping_sub(1)) == "." {
        return false;
    }
    let mut next = at + 1;
    // Twice for `**=`, `//=` and `<<=`.
    for _ in 0..2 {
        if matches!(text(next), "+" | "-" | "*" | "/" | "%" | "&" | "|" | "^") {
            next += 1;
        }
    }
    if text(next) == "=" && text(next + 1) != "=" && text(next + 1) != ">" {
        return true;
    }
    if matches!((text(at + 1), text(at + 2)), ("+", "+") | ("-", "-")) {
        return true;
    }
    // `name: type = value`, at the beginning of a line.
    if text(at + 1) == ":" && tokens[at].begins_line {
        let line = (at + 2..tokens.len()).take_while(|inner| !tokens[*inner].begins_line).take(24);
        return line.clone().any(is_equals) && text(at + 2) != "=";
    }
    // `one, two = values`: names and commas back to the beginning of the line, and on to the mark.
    let is_list = |token: &Token| token.is_name || matches!(token.text, "," | "(" | ")" | "*" | "[" | "]");
    let mut start = at;
    while start > 0 && at - start < NEAR && !tokens[start].begins_line && is_list(&tokens[start - 1]) {
        start -= 1;
    }
    let mut end = at + 1;
    while end < at + NEAR && tokens.get(end).is_some_and(|token| is_list(token) && !token.begins_line) {
        end += 1;
    }
    let is_several = tokens[start..end].iter().any(|token| token.text == ",");
    is_several && (tokens[start].begins_line || start == 0) && is_equals(end)
}

fn is_walrus(tokens: &[Token], at: usize) -> bool {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    if text(at + 1) == ":" && text(at + 2) == "=" {
        return true;
    }
    // `one, two := values` of Go.
    let mut end = at;
    while end < at + NEAR && tokens.get(end).is_some_and(|token| token.is_name) && text(end + 1) == "," {
        end += 2;
    }
    end > at && tokens.get(end).is_some_and(|token| token.is_name) && text(end + 1) == ":" && text(end + 2) == "="
}

/// Whether it is a parameter of an arrow function: `name => …`, or in brackets before the arrow.
fn is_arrow(tokens: &[Token], at: usize) -> bool {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    if text(at + 1) == "=" && text(at + 2) == ">" {
        return true;
    }
    let mut end = at + 1;
    while end < at + NEAR && tokens.get(end).is_some_and(|token| token.is_name || token.text == ",") {
        end += 1;
    }
    let mut start = at;
    while start > 0 && at - start < NEAR && (tokens[start - 1].is_name || tokens[start - 1].text == ",") {
        start -= 1;
    }
    text(end) == ")" && text(start.wrapping_sub(1)) == "(" && text(end + 1) == "=" && text(end + 2) == ">"
}
