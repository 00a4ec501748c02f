//! Which names a function binds itself: its parameters, and what it assigns to. It reads words and marks, not grammar.

use std::num::NonZeroU32;

use crate::token::{Language, Token, Tokens, word};

/// Tokens that are looked at on either side of a name: a row may be a table of half a million names.
const NEAR: usize = 64;
/// Tokens of a list of parameters at most.
const FAR: usize = 1024;
/// Tokens of the names that a loop goes through with, and of a type, at most.
const FEW: usize = 24;

/// Which names a program binds itself, by their numbers.
pub(crate) struct Bound(Vec<u8>);

/// A name that the program binds.
const BOUND: u8 = 1;
/// A name that is meant to be another's, wherever it is bound.
const FREE: u8 = 2;

impl Bound {
    /// Whether a name is the program's own.
    pub(crate) fn has(&self, name: NonZeroU32) -> bool {
        self.0[name.get() as usize] == BOUND
    }

    fn mark(&mut self, token: &Token, how: u8) {
        if let Some(name) = token.name {
            self.0[name.get() as usize] |= how;
        }
    }

    fn bind(&mut self, token: &Token) {
        self.mark(token, BOUND);
    }
}

/// What the names of a program, so many, are.
pub(crate) fn bindings(tokens: &Tokens, names: usize, language: Language) -> Bound {
    let mut bound = Bound(vec![0; names + 1]);
    let is_python = language == Language::Python;
    let mut depth = 0usize;
    // Of Java the first brackets hold the parameters of the method, which no keyword announces.
    let mut has_parameters = language != Language::Java;
    for (at, token) in tokens.0.iter().enumerate() {
        match token.mark {
            b'(' if !has_parameters => {
                has_parameters = true;
                parameters(tokens, at, language, &mut bound);
                depth += 1;
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            // A block of Ruby.
            b'|' if language == Language::Ruby => block(tokens, at, &mut bound),
            _ if token.is_word => {
                let is_outside = depth == 0 || !is_python;
                if !keyword(tokens, at, language, &mut bound)
                    && token.is_name()
                    && (token.is_variable && token.hash != word::THIS || is_bound(tokens, at, language, is_outside))
                {
                    bound.bind(token);
                }
            }
            _ => {}
        }
    }
    bound
}

/// Binds what stands behind a keyword that binds names; whether there is one.
fn keyword(tokens: &Tokens, at: usize, language: Language, bound: &mut Bound) -> bool {
    let is_python = language == Language::Python;
    match tokens.at(at).hash {
        word::DEF if is_python || language == Language::Ruby => function(tokens, at, language, bound),
        word::FUNC if language == Language::Go => function(tokens, at, language, bound),
        word::FN if language == Language::Php => function(tokens, at, language, bound),
        word::FUNCTION if matches!(language, Language::JavaScript | Language::Php) => {
            function(tokens, at, language, bound);
        }
        word::LAMBDA => lambda(tokens, at, bound),
        word::FOR | word::FOREACH => targets(tokens, at + 1, language, bound),
        word::AS if is_python => bound.bind(tokens.at(at + 1)),
        word::CATCH if tokens.mark(at + 1) == b'(' => drop(parameters(tokens, at + 1, Language::Java, bound)),
        word::LET | word::CONST | word::VAR if !is_python && language != Language::Ruby => {
            declared(tokens, at + 1, bound);
        }
        word::GLOBAL | word::NONLOCAL => {
            let line = (at + 1..tokens.len().min(at + NEAR)).map(|inner| tokens.at(inner));
            line.take_while(|token| !token.begins_line).for_each(|token| bound.mark(token, FREE));
        }
        _ => return false,
    }
    true
}

/// Binds the name of a function and its parameters.
fn function(tokens: &Tokens, at: usize, language: Language, bound: &mut Bound) {
    bound.bind(tokens.at(at + 1));
    let mut open = at + 1;
    while open < at + 4 && tokens.mark(open) != b'(' {
        open += 1;
    }
    let close = parameters(tokens, open, language, bound);
    // A method of Go has its receiver in brackets of its own.
    if language == Language::Go && open == at + 1 {
        parameters(tokens, close + 2, language, bound);
    }
}

fn lambda(tokens: &Tokens, at: usize, bound: &mut Bound) {
    for inner in at + 1..tokens.len().min(at + NEAR) {
        let before = tokens.at(inner - 1);
        match tokens.mark(inner) {
            b':' => return,
            _ if inner == at + 1 || matches!(before.mark, b',' | b'*') => bound.bind(tokens.at(inner)),
            _ => {}
        }
    }
}

/// Binds the names between the marks of a block.
fn block(tokens: &Tokens, at: usize, bound: &mut Bound) {
    let before = tokens.at(at.wrapping_sub(1));
    if before.mark == b'{' || before.hash == word::DO {
        let names = (at + 1..tokens.len()).map(|inner| tokens.at(inner)).take_while(|token| token.mark != b'|');
        names.take(16).for_each(|token| bound.bind(token));
    }
}

/// Binds the parameters in the brackets that open at `open`, if they do, and says where these close.
fn parameters(tokens: &Tokens, open: usize, language: Language, bound: &mut Bound) -> usize {
    if tokens.mark(open) != b'(' {
        return open;
    }
    // The type stands before the name in Java, behind it elsewhere.
    let is_java = language == Language::Java;
    let (mut depth, mut last) = (0usize, None);
    for at in open + 1..tokens.len().min(open + FAR) {
        let token = tokens.at(at);
        match token.mark {
            b'(' | b'[' | b'{' | b'<' => depth += 1,
            b')' if depth == 0 => {
                last.into_iter().for_each(|name| bound.bind(name));
                return at;
            }
            b')' | b']' | b'}' | b'>' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => last.take().into_iter().for_each(|name| bound.bind(name)),
            _ if depth > 0 || !token.is_name() => {}
            _ if is_java => last = Some(token),
            _ if matches!(tokens.mark(at - 1), b'(' | b',' | b'*' | b'&' | b'.') => bound.bind(token),
            _ => {}
        }
    }
    tokens.len()
}

/// Binds what a loop goes through with: as far as `in`, `of` or a mark ends it.
fn targets(tokens: &Tokens, from: usize, language: Language, bound: &mut Bound) {
    let mut last = None;
    for token in tokens.0.iter().skip(from).take(FEW) {
        match (token.mark, token.hash) {
            (b':' | b'=' | b';' | b'{', _) | (_, word::IN | word::OF) => break,
            _ if token.is_name() && language == Language::Java => last = Some(token),
            _ => bound.bind(token),
        }
    }
    last.into_iter().for_each(|token| bound.bind(token));
}

/// Binds what stands behind `let` and the like: a name, or several in brackets.
fn declared(tokens: &Tokens, from: usize, bound: &mut Bound) {
    let is_pattern = matches!(tokens.mark(from), b'{' | b'[');
    for token in tokens.0.iter().skip(from).take(NEAR) {
        match (token.mark, token.hash) {
            (b'}' | b']' | b'=' | b';', _) | (_, word::IN | word::OF) => return,
            _ if token.is_name() => {
                bound.bind(token);
                if !is_pattern {
                    return;
                }
            }
            _ => {}
        }
    }
}

/// Whether a name is bound where it stands: assigned to, or the parameter of an arrow function.
fn is_bound(tokens: &Tokens, at: usize, language: Language, is_outside: bool) -> bool {
    (is_outside && is_assigned(tokens, at))
        || is_walrus(tokens, at, language)
        || (language == Language::JavaScript && is_arrow(tokens, at))
}

/// Whether a name is assigned to: alone, with a type, by an operator, or among others.
fn is_assigned(tokens: &Tokens, at: usize) -> bool {
    let mark = |at: usize| tokens.mark(at);
    let is_equals =
        |at: usize| mark(at) == b'=' && mark(at + 1) != b'=' && !matches!(mark(at - 1), b'=' | b'!' | b'<' | b'>');
    if mark(at.wrapping_sub(1)) == b'.' {
        return false;
    }
    let mut next = at + 1;
    // Twice for `**=`, `//=` and `<<=`.
    for _ in 0..2 {
        if matches!(mark(next), b'+' | b'-' | b'*' | b'/' | b'%' | b'&' | b'|' | b'^') {
            next += 1;
        }
    }
    if mark(next) == b'=' && !matches!(mark(next + 1), b'=' | b'>') {
        return true;
    }
    match (mark(at + 1), mark(at + 2)) {
        (b'+', b'+') | (b'-', b'-') => return true,
        // `name: type = value`, at the beginning of a line.
        (b':', other) if tokens.at(at).begins_line => {
            let mut line = (at + 2..tokens.len()).take_while(|inner| !tokens.at(*inner).begins_line).take(FEW);
            return line.any(is_equals) && other != b'=';
        }
        _ => {}
    }
    // `one, two = values`: names and commas on to the mark, and back to the beginning of the line.
    let is_list = |token: &Token| token.is_name() || matches!(token.mark, b',' | b'(' | b')' | b'*' | b'[' | b']');
    let mut end = at + 1;
    while end < tokens.len().min(at + NEAR) && is_list(tokens.at(end)) && !tokens.at(end).begins_line {
        end += 1;
    }
    if !is_equals(end) {
        return false;
    }
    let mut start = at;
    while start > 0 && at - start < NEAR && !tokens.at(start).begins_line && is_list(tokens.at(start - 1)) {
        start -= 1;
    }
    let is_several = (start..end).any(|inner| mark(inner) == b',');
    is_several && (tokens.at(start).begins_line || start == 0)
}

/// `name := value`, and of Go `one, two := values`.
fn is_walrus(tokens: &Tokens, at: usize, language: Language) -> bool {
    let mut end = at;
    if language == Language::Go {
        while end < at + NEAR && tokens.at(end).is_name() && tokens.mark(end + 1) == b',' {
            end += 2;
        }
    }
    tokens.at(end).is_name() && tokens.mark(end + 1) == b':' && tokens.mark(end + 2) == b'='
}

/// Whether it is a parameter of an arrow function: `name => …`, or in brackets before the arrow.
fn is_arrow(tokens: &Tokens, at: usize) -> bool {
    let is_arrow = |at: usize| tokens.mark(at) == b'=' && tokens.mark(at + 1) == b'>';
    if is_arrow(at + 1) {
        return true;
    }
    let is_list = |at: usize| tokens.at(at).is_name() || tokens.mark(at) == b',';
    let mut end = at + 1;
    while end < at + NEAR && is_list(end) {
        end += 1;
    }
    if tokens.mark(end) != b')' || !is_arrow(end + 1) {
        return false;
    }
    let mut start = at;
    while start > 0 && at - start < NEAR && is_list(start - 1) {
        start -= 1;
    }
    tokens.mark(start.wrapping_sub(1)) == b'('
}
