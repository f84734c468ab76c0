//! The rules of the house, as tests: layers, `unsafe`, lints, sizes, words, dependencies.
//!
//! Invariants: every rule lists all its violations with file and line; a rule reads every file of
//! the checkout that it speaks of, and fails if it finds none. Nothing is exempt by name except
//! in the lists of this file.

#[path = "tidy/code.rs"]
mod code;
#[path = "tidy/files.rs"]
mod files;
#[path = "tidy/manifests.rs"]
mod manifests;

use code::Code;
use files::{File, below, is_test, rust, text};
use manifests::Manifest;

/// Who may contain `unsafe` in the product: the kernel's interfaces, and nobody else.
const UNSAFE: [&str; 4] =
    ["net/src/uring.rs", "net/src/pool.rs", "net/src/mailbox.rs", "tuning/src/host.rs"];
/// Who may contain it in tests: an allocator that counts cannot be written without.
const UNSAFE_TESTS: [&str; 1] = ["tests/fuzz/src/counting.rs"];
/// Lines of a file. A longer one has two purposes.
const FILE_LINES_MAX: usize = 499;
/// Lines of a function.
const FUNCTION_LINES_MAX: usize = 70;
/// Characters of a line of code; of prose, where tables and drawings are wider.
const LINE_MAX: usize = 100;
const PROSE_LINE_MAX: usize = 128;
/// Lines above an `unsafe` among which its reason must stand.
const SAFETY_LINES: usize = 6;

/// Package, folder, and which of ours it may import (design, "Structure"). Nobody imports up.
const LAYERS: [(&str, &str, &[&str]); 7] = [
    ("chainring-ring", "ring", &[]),
    ("chainring-tuning", "tuning", &[]),
    ("chainring-net", "net", &["chainring-ring"]),
    ("chainring-storage", "storage", &["chainring-ring"]),
    (
        "chainring",
        ".",
        &["chainring-ring", "chainring-tuning", "chainring-net", "chainring-storage"],
    ),
    ("chainring-bench", "bench", &["chainring"]),
    (
        "chainring-fuzz",
        "tests/fuzz",
        &["chainring", "chainring-ring", "chainring-net", "chainring-storage"],
    ),
];

fn none(rule: &str, violations: &[String]) {
    assert!(violations.is_empty(), "{rule}:\n  {}", violations.join("\n  "));
}

#[test]
fn nobody_imports_up_or_sideways() {
    let manifests = manifests::all();
    let mut wrong = Vec::new();
    for manifest in &manifests {
        let layer = LAYERS.iter().find(|(package, ..)| *package == manifest.package);
        let Some((_, folder, allowed)) = layer else {
            wrong.push(format!("{} has no layer", manifest.package));
            continue;
        };
        if *folder != manifest.folder {
            wrong.push(format!("{} lies in {}, not {folder}", manifest.package, manifest.folder));
        }
        let ours = manifest.dependencies.iter().filter(|d| d.name.starts_with("chainring"));
        let forbidden = ours.filter(|d| !allowed.contains(&d.name.as_str()));
        wrong.extend(forbidden.map(|d| format!("{} imports {}", manifest.package, d.name)));
    }
    none("layers", &wrong);
    assert_eq!(manifests.len(), LAYERS.len(), "a member is missing from the workspace");
}

#[test]
fn the_core_reaches_no_world() {
    let manifests = manifests::all();
    let ring = manifests.iter().find(|m| m.package == "chainring-ring").unwrap();
    let dependencies: Vec<_> =
        ring.dependencies.iter().filter(|d| !d.dev).map(|d| d.name.as_str()).collect();
    assert_eq!(dependencies, ["xxhash-rust"], "the core depends on hashing alone");
    let root = files::read("ring/src/lib.rs");
    assert!(root.text.contains("no_std)]"), "ring/src/lib.rs is not no_std");
    assert!(root.text.contains("#![forbid(unsafe_code)]"), "ring/src/lib.rs allows unsafe");
    let sources = below("ring/src");
    let names = ["std", "HashMap", "HashSet", "thread_local", "f32", "f64"];
    none("outside the core's world", &words(&sources, &names));
}

#[test]
fn peers_reach_sockets_and_clocks_in_one_file() {
    let mut sources = below("src/peers");
    sources.retain(|file| !is_test(&file.path));
    let count = sources.len();
    sources.retain(|file| file.path != "src/peers/tcp.rs");
    assert_eq!(sources.len() + 1, count, "the one file is gone");
    let names = ["Instant", "SystemTime", "Timer", "Async", "TcpStream", "thread", "fs"];
    none("around src/peers/net.rs", &words(&sources, &names));
}

/// Every place where a file's code, outside comments and strings, has one of `words`.
fn words(files: &[File], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        let code = Code::of(&file.text);
        for word in words {
            found.extend(code.lines_with(word).map(|line| format!("{}:{line}: {word}", file.path)));
        }
    }
    found
}

#[test]
fn unsafe_lies_in_listed_files_and_gives_its_reason() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for file in rust() {
        let code = Code::of(&file.text);
        let path = file.path.as_str();
        let listed = UNSAFE.contains(&path) || UNSAFE_TESTS.contains(&path);
        let lines: Vec<&str> = file.text.lines().collect();
        for line in code.lines_with("unsafe") {
            seen += 1;
            let above = &lines[line.saturating_sub(SAFETY_LINES + 1)..line];
            let reason = above.iter().any(|l| l.contains("SAFETY:") || l.contains("# Safety"));
            if !listed || !reason {
                let what = if listed { "no `// SAFETY:` above it" } else { "file not listed" };
                wrong.push(format!("{path}:{line}: unsafe, {what}"));
            }
        }
        let allows = code.lines_with("allow").filter(|line| {
            let text = lines[line - 1];
            text.contains("unsafe_code") && !listed
        });
        wrong.extend(allows.map(|line| format!("{path}:{line}: allows unsafe_code")));
    }
    none("unsafe", &wrong);
    assert!(seen > 0, "found no unsafe at all: does this test still read the sources?");
}

#[test]
fn warnings_are_errors_everywhere() {
    let root = files::read("Cargo.toml");
    let root: toml::Table = toml::from_str(&root.text).unwrap();
    let lints = &root["workspace"]["lints"];
    let level = |group: &str, lint: &str| lints[group][lint].as_str().map(str::to_owned);
    for lint in ["warnings", "unsafe_code", "missing_docs"] {
        assert_eq!(level("rust", lint).as_deref(), Some("deny"), "{lint}");
    }
    assert_eq!(lints["clippy"]["all"]["level"].as_str(), Some("deny"), "clippy::all");
    assert_eq!(level("rustdoc", "broken_intra_doc_links").as_deref(), Some("deny"));
    let without = manifests::all().into_iter().filter(|manifest| !manifest.inherits_lints);
    let without: Vec<_> = without.map(|manifest| manifest.package).collect();
    none("members that do not inherit the workspace's lints", &without);
    // `allow` takes back what is denied; only `unsafe_code`, in the files listed above, may be.
    let mut wrong = Vec::new();
    for file in rust() {
        let lines: Vec<&str> = file.text.lines().collect();
        for line in Code::of(&file.text).lines_with("allow") {
            let text = lines[line - 1].trim();
            let lint = text.starts_with("#[allow") || text.starts_with("#![allow");
            let blanket = ["warnings", "missing_docs", "clippy::all", "dead_code", "unused)"];
            // What tests share is seldom used whole by each of them.
            let shared = is_test(&file.path) && text.contains("dead_code");
            if lint && !shared && blanket.iter().any(|name| text.contains(name)) {
                wrong.push(format!("{}:{line}: {text}", file.path));
            }
        }
    }
    none("lints taken back", &wrong);
}

#[test]
fn no_member_enables_a_feature_for_tests() {
    let mut wrong = Vec::new();
    for Manifest { package, defaults, dependencies, .. } in manifests::all() {
        if !defaults.is_empty() {
            wrong.push(format!("{package} has default features {defaults:?}"));
        }
        for dependency in dependencies.iter().filter(|dependency| !dependency.dev) {
            let test = |feature: &&String| feature.contains("test") || feature.contains("sim");
            let ours = dependency.name.starts_with("chainring") && !dependency.features.is_empty();
            if ours || dependency.features.iter().any(|feature| test(&feature)) {
                let (name, features) = (&dependency.name, &dependency.features);
                wrong.push(format!("{package} enables {features:?} of {name}"));
            }
        }
    }
    none("test features", &wrong);
}

#[test]
fn files_functions_and_lines_are_short() {
    let mut wrong = Vec::new();
    for file in text() {
        let rust = file.path.ends_with(".rs");
        let prose = file.path.ends_with(".md");
        let count = file.text.lines().count();
        if rust && count > FILE_LINES_MAX {
            wrong.push(format!("{}: {count} lines", file.path));
        }
        let limit = if prose { PROSE_LINE_MAX } else { LINE_MAX };
        // A message stays in one piece, so that a search for it finds it: strings do not count.
        let strings = if rust { Code::of(&file.text).string_lengths() } else { Vec::new() };
        for (index, line) in file.text.lines().enumerate() {
            let table = prose && line.trim_start().starts_with('|');
            let length = line.chars().count() - strings.get(index).unwrap_or(&0);
            if length > limit && !table {
                wrong.push(format!("{}:{}: {length} characters", file.path, index + 1));
            }
            if line.ends_with([' ', '\t']) {
                wrong.push(format!("{}:{}: ends in blanks", file.path, index + 1));
            }
        }
        if rust {
            let functions = Code::of(&file.text).functions();
            let long = functions.into_iter().filter(|(_, lines)| *lines > FUNCTION_LINES_MAX);
            let name = |(at, lines)| format!("{}:{at}: function of {lines} lines", file.path);
            wrong.extend(long.map(name));
        }
    }
    none("sizes", &wrong);
}

#[test]
fn every_file_opens_with_its_purpose() {
    let files = rust();
    let without = files.iter().filter(|file| !file.text.starts_with("//! "));
    let without: Vec<_> = without.map(|file| file.path.clone()).collect();
    none("files that do not begin with `//! ` and what they are for", &without);
}

#[test]
fn nothing_is_left_for_later() {
    none("unfinished code", &words(&rust(), &["todo", "unimplemented", "dbg"]));
    // Written in two halves, so that this file does not find itself.
    let marks = [concat!("FIX", "ME"), concat!("XX", "X"), concat!("TO", "DO")];
    none("marks", &strings(&text(), &marks));
    let product: Vec<_> = rust().into_iter().filter(|file| !is_test(&file.path)).collect();
    none("unwrap outside tests", &unwraps(&product));
}

/// `unwrap()` before the tests at a file's end; a broken invariant says `expect` and its reason.
fn unwraps(files: &[File]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        let tests = file.text.lines().position(|line| line.contains("#[cfg(test)]"));
        let code = Code::of(&file.text);
        let lines = code.lines_with("unwrap").filter(|line| tests.is_none_or(|at| *line <= at));
        found.extend(lines.map(|line| format!("{}:{line}", file.path)));
    }
    found
}

#[test]
fn no_path_of_a_machine_is_named() {
    let paths = ["/wo|rk/", "/ho|me/", "/ro|ot/", "/tmp/h|-", "/tmp/pl|an"];
    let paths = paths.map(|path| path.replace('|', ""));
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    none("paths of one machine", &strings(&text(), &paths));
}

/// Every place where a file has one of `strings`, comments included.
fn strings(files: &[File], strings: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        for (index, line) in file.text.lines().enumerate() {
            let hit = strings.iter().find(|string| line.contains(**string));
            found.extend(hit.map(|hit| format!("{}:{}: {hit}", file.path, index + 1)));
        }
    }
    found
}

#[test]
fn the_readme_is_true() {
    let readme = files::read("README.md").text;
    let block = readme.split("```").nth(1).expect("a block with the two commands");
    let commands: Vec<_> = block.lines().filter(|line| line.starts_with("cargo ")).collect();
    let [job, tests] = commands[..] else { panic!("two commands come first: {block}") };
    assert!(job.starts_with("cargo run --release -- demo FILE..."), "{job}");
    assert!(tests.starts_with("cargo test --workspace "), "{tests}");
    let ci = files::read(".ci/run").text;
    assert_eq!(ci.lines().last(), Some("cargo test --workspace"), "what .ci/run ends with");
    // Rows of the map begin with what they speak of.
    let map = readme.split("## Where to change what").nth(1).expect("a map of the folders");
    let rows = map.lines().filter(|line| line.starts_with("| `"));
    let named =
        rows.flat_map(|row| row.split('|').nth(1).unwrap_or("").split('`').skip(1).step_by(2));
    let paths: Vec<_> = named.collect();
    assert!(paths.len() > 10, "the map names {} places", paths.len());
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let gone = paths.iter().filter(|path| !root.join(path).exists());
    let gone: Vec<_> = gone.map(|path| (*path).to_owned()).collect();
    none("places in the README's map that do not exist", &gone);
}

#[test]
fn every_dependency_is_argued() {
    let decisions = files::read("docs/DECISIONS.md").text;
    let argued = |name: &str| {
        decisions.lines().any(|line| line.starts_with(&format!("| `{name}` |")) && line.len() > 30)
    };
    let mut wrong = Vec::new();
    let mut used = Vec::new();
    for manifest in manifests::all() {
        let foreign = manifest.dependencies.iter().filter(|d| !d.name.starts_with("chainring"));
        for dependency in foreign {
            used.push(dependency.name.clone());
            if !argued(&dependency.name) {
                wrong.push(format!("{} of {}", dependency.name, manifest.package));
            }
        }
    }
    none("dependencies without their line in docs/DECISIONS.md", &wrong);
    let listed = manifests::workspace_dependencies();
    let idle = listed.into_iter().filter(|name| !name.starts_with("chainring"));
    let idle: Vec<_> = idle.filter(|name| !used.contains(name) && !argued(name)).collect();
    none("listed in the workspace, neither used nor argued", &idle);
}

/// Names in the list of a file of the core: lines of `Name: "..."`.
fn listed(path: &str) -> Vec<String> {
    let text = files::read(path).text;
    let list = text.split("list! {\n").nth(1).expect("a list");
    let named = list.lines().filter_map(|line| line.trim().split_once(": \""));
    let names: Vec<String> = named.map(|(name, _)| name.to_owned()).collect();
    assert!(!names.is_empty(), "{path} lists nothing");
    names
}

#[test]
fn marks_and_mutants_are_planted_where_the_lists_say() {
    let product: Vec<_> = rust().into_iter().filter(|file| !is_test(&file.path)).collect();
    let holds = |what: &str| product.iter().any(|file| file.text.contains(what));
    let mut wrong = Vec::new();
    for name in listed("ring/src/marks.rs") {
        if !holds(&format!("mark!({name})")) && !holds(&format!("Mark::{name},")) {
            wrong.push(format!("mark {name} is nowhere"));
        }
    }
    let testing = files::read("docs/TESTING.md").text;
    for name in listed("ring/src/mutants.rs") {
        if !holds(&format!("mutant!({name})")) {
            wrong.push(format!("mutant {name} is nowhere"));
        }
        if !testing.lines().any(|line| line.starts_with(&format!("| `{name}` |"))) {
            wrong.push(format!("mutant {name} has no row in docs/TESTING.md"));
        }
    }
    none("marks and mutants", &wrong);
}

/// What of a text is a word that begins so: capitals and underscores.
fn named<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(prefix).map(move |(at, _)| {
        let rest = &text[at..];
        let part = |c: char| !c.is_ascii_uppercase() && c != '_';
        &rest[..rest.find(part).unwrap_or(rest.len())]
    })
}

#[test]
fn every_variable_is_documented() {
    // Written in two halves, so that this file does not name one.
    let prefix = concat!("CHAIN", "RING_");
    let testing = files::read("docs/TESTING.md").text;
    let rows = testing.lines().filter(|line| line.starts_with(&format!("| `{prefix}")));
    let rows: String = rows.collect();
    let mut wrong = Vec::new();
    for file in text() {
        let unknown = named(&file.text, prefix).filter(|name| !rows.contains(&format!("`{name}`")));
        wrong.extend(unknown.map(|name| format!("{}: {name}", file.path)));
    }
    none("variables without a row in docs/TESTING.md", &wrong);
}

#[test]
fn every_script_says_what_it_does_and_refuses_what_it_does_not_know() {
    let scripts = text().into_iter().filter(|file| file.text.starts_with("#!/usr/bin/env bash"));
    let scripts: Vec<File> = scripts.collect();
    assert!(scripts.len() >= 7, "{} scripts", scripts.len());
    let run = |path: &str, word: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let output = std::process::Command::new(path).arg(word).output().expect("bash runs");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    for File { path, .. } in scripts {
        for word in ["--help", "-h"] {
            let (code, said, _) = run(&path, word);
            assert!(
                code == Some(0) && said.contains(&path) && !said.contains('#'),
                "{path}: {said}"
            );
        }
        let (code, _, said) = run(&path, "nothing-of-the-sort");
        assert!(code == Some(2) && said.contains("nothing-of-the-sort"), "{path}: {said}");
    }
}
