//! Unknown keys: found with their line, and the nearest known key named.
//!
//! Invariant: a key that is not used is refused. A misspelt limit must not become a default.

use super::ConfigError;
use super::limits::Limits;
use toml::de::{DeTable, DeValue};

const SECTIONS: &[&str] = &["cluster", "node", "limits"];
const CLUSTER: &[&str] = &["id", "epoch", "durability", "block", "nodes"];
const MEMBER: &[&str] = &["id", "address", "http", "spare"];
const NODE: &[&str] = &["id", "dir", "development", "core"];

/// Refuses the first key of `text` that no code reads.
///
/// # Errors
/// [`ConfigError::Syntax`] if it is not TOML, [`ConfigError::UnknownKey`].
pub fn check_keys(text: &str) -> Result<(), ConfigError> {
    let table = DeTable::parse(text).map_err(|error| syntax(text, &error))?;
    check(text, "", table.get_ref(), SECTIONS)?;
    for (name, value) in table.get_ref() {
        let DeValue::Table(section) = value.get_ref() else { continue };
        let name = name.get_ref().as_ref();
        let known = match name {
            "cluster" => CLUSTER,
            "node" => NODE,
            _ => Limits::KEYS,
        };
        check(text, name, section, known)?;
        let Some(DeValue::Array(nodes)) = section.get("nodes").map(|nodes| nodes.get_ref()) else {
            continue;
        };
        for node in nodes.iter() {
            if let DeValue::Table(node) = node.get_ref() {
                check(text, "cluster.nodes", node, MEMBER)?;
            }
        }
    }
    Ok(())
}

/// A TOML error with the line that it names.
pub fn syntax(text: &str, error: &toml::de::Error) -> ConfigError {
    let line = error.span().map_or(0, |span| line_of(text, span.start));
    ConfigError::Syntax { line, message: error.message().to_owned() }
}

fn check(
    text: &str,
    section: &str,
    table: &DeTable<'_>,
    known: &'static [&'static str],
) -> Result<(), ConfigError> {
    for (key, _) in table {
        let name = key.get_ref().as_ref();
        if known.contains(&name) {
            continue;
        }
        let nearest = known.iter().min_by_key(|candidate| distance(name, candidate));
        return Err(ConfigError::UnknownKey {
            line: line_of(text, key.span().start),
            key: if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") },
            nearest: nearest.expect("no section is without keys"),
        });
    }
    Ok(())
}

fn line_of(text: &str, byte: usize) -> usize {
    text.as_bytes()[..byte.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// Edit distance (Levenshtein), letters inserted, deleted or replaced.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = corner + usize::from(from != *to);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in
            [("", "abc", 3), ("block", "block", 0), ("blok", "block", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn unknown_keys_are_named_with_line_and_neighbour() {
        for (text, line, key, nearest) in [
            ("[cluster]\nepoc = 1\n", 2, "cluster.epoc", "epoch"),
            ("[limit]\n", 1, "limit", "limits"),
            ("[limits]\n\nrecord_byte = 1\n", 3, "limits.record_byte", "record_bytes"),
            ("[node]\nid = 1\ndirectory = \"x\"\n", 3, "node.directory", "dir"),
            (
                "[cluster]\nnodes = [\n{ id = 1, adress = \"x\" }]\n",
                3,
                "cluster.nodes.adress",
                "address",
            ),
        ] {
            match check_keys(text) {
                Err(ConfigError::UnknownKey { line: l, key: k, nearest: n }) => {
                    assert_eq!((l, k.as_str(), n), (line, key, nearest));
                }
                other => panic!("{text}: {other:?}"),
            }
        }
        assert!(matches!(check_keys("[cluster\n"), Err(ConfigError::Syntax { line: 1, .. })));
        assert!(check_keys("[cluster]\nepoch = 1\n[limits]\ndrain_ms = 3\n").is_ok());
    }
}
