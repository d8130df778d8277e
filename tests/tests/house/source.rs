//! Rust source as text: without comments and strings, with its paths.
//!
//! This is no parser. It knows enough of the language to find every path that is written out,
//! in `use` trees and in code, and the lines where they stand.

use std::fmt;

/// A rule broken at one line.
#[derive(Debug)]
pub struct Found {
    pub path: String,
    pub line: usize,
    pub message: String,
}

impl Found {
    /// Adds why it is wrong.
    pub fn because(&self, reason: &str) -> Found {
        let message = format!("{} ({reason})", self.message);
        Found { path: self.path.clone(), line: self.line, message }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// A path as written, e.g. `crate::store::Batch`. An absolute one begins with `""`.
#[derive(Debug, PartialEq, Eq)]
pub struct CodePath {
    pub line: usize,
    pub segments: Vec<String>,
    /// Whether it stands in a `use`.
    pub imported: bool,
}

/// One source file.
pub struct Source {
    pub path: String,
    /// The text with comments and the contents of strings blanked.
    code: String,
}

impl Source {
    pub fn new(path: String, text: &str) -> Self {
        Self { path, code: blank(text) }
    }

    /// The same file without its `#[cfg(test)] mod … { … }`, which stands at the end.
    pub fn without_tests(&self) -> Self {
        Self { path: self.path.clone(), code: self.production().to_owned() }
    }

    pub fn found(&self, line: usize, message: impl Into<String>) -> Found {
        Found { path: self.path.clone(), line, message: message.into() }
    }

    /// The lines of code, counted from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.code.lines())
    }

    /// All paths.
    pub fn paths(&self) -> Vec<CodePath> {
        paths(&self.code)
    }

    /// All paths outside the module of unit tests; none for a file of tests.
    pub fn production_paths(&self) -> Vec<CodePath> {
        if self.path.ends_with("/tests.rs") || self.path.contains("/tests/") {
            return vec![];
        }
        paths(self.production())
    }

    fn production(&self) -> &str {
        let mut from = 0;
        while let Some(at) = self.code[from..].find("#[cfg(test)]").map(|at| from + at) {
            let rest = &self.code[at + "#[cfg(test)]".len()..];
            let line = rest.lines().map(str::trim).find(|line| !is_attribute(line));
            if line.is_some_and(|line| line.starts_with("mod ") && line.ends_with('{')) {
                return &self.code[..at];
            }
            from = at + 1;
        }
        &self.code
    }

    /// Where the file names one of `crates`, other than as a room of ours with the same name.
    pub fn naming(&self, crates: &[&str], message: &str) -> Vec<Found> {
        let paths = self.paths();
        let ours = ["crate", "super", "self", "node"];
        let is_room_of_ours = |name: &str| {
            paths.iter().filter(|path| path.imported).any(|path| {
                ours.contains(&path.segments[0].as_str())
                    && path.segments.last().is_some_and(|last| last == name)
            })
        };
        paths
            .iter()
            .filter(|path| {
                let absolute = path.segments[0].is_empty();
                let Some(first) = path.segments.get(usize::from(absolute)) else {
                    return false;
                };
                crates.contains(&first.as_str())
                    && (path.imported || path.segments.len() > 1)
                    && (absolute || path.imported || !is_room_of_ours(first))
            })
            .map(|path| self.found(path.line, message))
            .collect()
    }
}

fn is_attribute(line: &str) -> bool {
    line.is_empty() || line.starts_with("#[")
}

/// Replaces comments and the contents of strings by spaces. Line breaks stay.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        let end = match (chars[i], chars.get(i + 1)) {
            ('/', Some('/')) => find(&chars, i, |at| chars[at] == '\n'),
            ('/', Some('*')) => block_comment_end(&chars, i),
            ('"', _) => string_end(&chars, i),
            ('r', Some('"' | '#')) if !follows_word(&chars, i) => raw_string_end(&chars, i),
            ('\'', Some('\\')) => find(&chars, i + 3, |at| chars[at] == '\'') + 1,
            // A character, not a lifetime.
            ('\'', Some(_)) if chars.get(i + 2) == Some(&'\'') => i + 3,
            _ => i,
        };
        if end == i {
            code.push(chars[i]);
            i += 1;
            continue;
        }
        let blanked = &chars[i..end.min(chars.len())];
        code.extend(blanked.iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        i = end;
    }
    code
}

/// The first place from `from` on where `wanted` holds, or the end.
fn find(chars: &[char], from: usize, wanted: impl Fn(usize) -> bool) -> usize {
    (from..chars.len()).find(|at| wanted(*at)).unwrap_or(chars.len())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn follows_word(chars: &[char], at: usize) -> bool {
    // `br"…"` is a string as well.
    at > 0 && is_word(chars[at - 1]) && chars[at - 1] != 'b'
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => depth += 1,
            ('*', Some('/')) => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            break;
        }
    }
    at
}

fn string_end(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// The end of `r#"…"#`, or `start` if it is a raw identifier.
fn raw_string_end(chars: &[char], start: usize) -> usize {
    let quote = find(chars, start + 1, |at| chars[at] != '#');
    if chars.get(quote) != Some(&'"') {
        return start;
    }
    let hashes = quote - start - 1;
    let ends =
        |at: usize| chars[at] == '"' && (1..=hashes).all(|n| chars.get(at + n) == Some(&'#'));
    find(chars, quote + 1, ends) + 1 + hashes
}

/// Finds all paths of `code`: those of `use` expanded, then those in code.
fn paths(code: &str) -> Vec<CodePath> {
    let chars: Vec<char> = code.chars().collect();
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 1);
    let mut previous = ' ';
    while at < chars.len() {
        let c = chars[at];
        let absolute = c == ':' && chars.get(at + 1) == Some(&':') && !is_word(previous);
        if is_word(c) && !is_word(previous) {
            let end = find(&chars, at, |at| !is_word(chars[at]));
            if chars[at..end].iter().collect::<String>() == "use" {
                let stop = find(&chars, end, |at| chars[at] == ';');
                expand(&chars[end..stop], line, &[], &mut found);
                line += chars[at..stop].iter().filter(|c| **c == '\n').count();
                (at, previous) = (stop, ';');
                continue;
            }
        }
        let starts_here = (is_word(c) && !is_word(previous) && previous != ':') || absolute;
        if starts_here && !c.is_ascii_digit() {
            let (segments, end) = written_path(&chars, at);
            if segments.len() > 1 {
                found.push(CodePath { line, segments, imported: false });
            }
            previous = chars[end - 1];
            at = end;
            continue;
        }
        line += usize::from(c == '\n');
        previous = c;
        at += 1;
    }
    found
}

/// Reads `a::b::c` from `at` on: its segments and its end.
fn written_path(chars: &[char], at: usize) -> (Vec<String>, usize) {
    let mut segments = Vec::new();
    let mut end = at;
    loop {
        let word_end = find(chars, end, |at| !is_word(chars[at]));
        segments.push(chars[end..word_end].iter().collect());
        let next_is_word = chars.get(word_end + 2).is_some_and(|c| is_word(*c));
        if chars[word_end..].starts_with(&[':', ':']) && next_is_word {
            end = word_end + 2;
        } else {
            return (segments, word_end.max(at + 1));
        }
    }
}

/// Expands one tree of a `use` into the paths it imports.
fn expand(tree: &[char], mut line: usize, prefix: &[String], found: &mut Vec<CodePath>) {
    // Branches of this level, split at its commas, each with its line.
    let mut depth = 0;
    let mut start = 0;
    let mut branches = Vec::new();
    for (at, c) in tree.iter().enumerate() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                branches.push(&tree[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    branches.push(&tree[start..]);
    for branch in branches {
        let brace = branch.iter().position(|c| *c == '{').unwrap_or(branch.len());
        let leading = branch.iter().take_while(|c| c.is_whitespace());
        let first_line = line + leading.filter(|c| **c == '\n').count();
        let head: String = branch[..brace].iter().collect();
        let head = head.split(" as ").next().unwrap_or_default().trim().trim_end_matches("::");
        let mut segments = prefix.to_vec();
        if !head.is_empty() {
            segments.extend(head.split("::").map(|segment| segment.trim().to_owned()));
        }
        if segments.last().is_some_and(|last| last == "self") && segments.len() > 1 {
            segments.pop();
        }
        if brace < branch.len() {
            let close = branch.iter().rposition(|c| *c == '}').unwrap_or(branch.len());
            let before = branch[..brace].iter().filter(|c| **c == '\n').count();
            expand(&branch[brace + 1..close], line + before, &segments, found);
        } else if !head.is_empty() {
            found.push(CodePath { line: first_line, segments, imported: true });
        }
        line += branch.iter().filter(|c| **c == '\n').count();
    }
}
