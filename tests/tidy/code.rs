//! Rust without its comments, strings and characters, so that words in prose break no rule.
//!
//! Invariant: every character of those becomes a blank, of a string a quote, and every line end
//! stays, so that lines keep their numbers and characters their places. It is not a parser: it
//! knows what it needs, and its tests say what.

/// Code with blanks in place of comments and characters, quotes in place of strings.
pub struct Code(String);

impl Code {
    /// From the text of a file.
    pub fn of(text: &str) -> Code {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let length = blank_length(rest, out.chars().next_back());
            if length == 0 {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            } else {
                let string = first == '"' || first == 'r';
                let blank = if string { '"' } else { ' ' };
                out.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { blank }));
                rest = &rest[length..];
            }
        }
        Code(out)
    }

    /// Numbers, from 1, of the lines that have `word` as a whole word.
    pub fn lines_with(&self, word: &str) -> impl Iterator<Item = usize> {
        let hit = |line: &str| {
            line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|found| found == word)
        };
        let lines = self.0.lines().enumerate();
        lines
            .filter_map(|(index, line)| hit(line).then_some(index + 1))
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// Characters of each line that belong to strings.
    pub fn string_lengths(&self) -> Vec<usize> {
        let quotes = |line: &str| line.chars().filter(|c| *c == '"').count();
        self.0.lines().map(quotes).collect()
    }

    /// First line and number of lines of every function with a body.
    pub fn functions(&self) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        let mut starts = Vec::new();
        let mut offset = 0;
        for (index, line) in self.0.lines().enumerate() {
            let words = line.split_whitespace();
            let plain = ["pub", "const", "async", "unsafe", "pub(crate)", "pub(super)"];
            let mut words = words.skip_while(|word| plain.contains(word));
            if words.next() == Some("fn") {
                starts.push((index + 1, offset));
            }
            offset += line.len() + 1;
        }
        for (line, offset) in starts {
            if let Some(length) = body_lines(&self.0[offset..]) {
                found.push((line, length));
            }
        }
        found
    }
}

/// Lines from the start of a function to the end of its body; none if it has no body.
fn body_lines(text: &str) -> Option<usize> {
    let (mut braces, mut others, mut lines) = (0, 0, 1);
    for c in text.chars() {
        match c {
            '\n' => lines += 1,
            '(' | '[' => others += 1,
            ')' | ']' => others -= 1,
            ';' if braces == 0 && others == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces -= 1;
                if braces == 0 {
                    return Some(lines);
                }
            }
            _ => {}
        }
    }
    None
}

/// Bytes of the comment, string or character that `text` begins with; 0 if it begins with none.
fn blank_length(text: &str, before: Option<char>) -> usize {
    let word_before = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return text.find("*/").map_or(text.len(), |end| end + 2);
    }
    if text.starts_with('"') {
        return quoted(text, '"');
    }
    if text.starts_with('\'') {
        return character(text);
    }
    if !word_before && (text.starts_with("r\"") || text.starts_with("r#")) {
        let hashes = text[1..].chars().take_while(|c| *c == '#').count();
        if text[1 + hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let from = 2 + hashes;
            return text[from..].find(&end).map_or(text.len(), |at| from + at + end.len());
        }
    }
    0
}

/// A character, or 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text[1..].chars();
    match (chars.next(), chars.next()) {
        (Some('\\'), _) => quoted(text, '\''),
        (Some(c), Some('\'')) => 2 + c.len_utf8(),
        _ => 0,
    }
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if !escaped && c == quote {
            return at + 1;
        }
        escaped = !escaped && c == '\\';
    }
    text.len()
}

#[test]
fn words_count_in_code_alone() {
    let text = "let a = \"unsafe \\\" unsafe\"; // unsafe\nlet b = 'x'; unsafe { f::<'a>() }\n\
                /* unsafe\n*/ r#\"unsafe \" \"#; let c = '\\''; unsafe_code\nb\"unsafe\" ; unsafe";
    assert_eq!(Code::of(text).lines_with("unsafe").collect::<Vec<_>>(), [2, 5]);
}

#[test]
fn functions_are_measured_to_their_last_brace() {
    let text =
        "fn a(x: [u8; 2]) {\n  if x { y }\n}\ntrait T {\n  fn b();\n  pub fn c() { \"}\"; }\n}";
    assert_eq!(Code::of(text).functions(), [(1, 3), (6, 1)]);
}
