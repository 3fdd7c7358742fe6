//! Reads the source as text and holds it against the rules of the house: which layer may use which,
//! that a file says what it owns, and that every named requirement of `spec/` is cited.
#![allow(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Every layer, and the layers it may use. What is not listed is refused.
const LAYERS: &[(&str, &[&str])] = &[
    ("disk", &[]),
    ("sabotage", &["disk"]),
    ("config", &[]),
    ("amqp", &[]),
    ("payload", &["amqp", "disk", "config", "sabotage"]),
    ("journal", &["disk", "config", "sabotage"]),
    (
        "broker",
        &["disk", "amqp", "payload", "journal", "config", "sabotage"],
    ),
    (
        "session",
        &["amqp", "payload", "broker", "journal", "config"],
    ),
    ("swarm", &["payload", "config"]),
    ("trust", &[]),
    ("client", &["amqp", "config", "trust"]),
    (
        "testing",
        &[
            "disk", "config", "amqp", "payload", "journal", "broker", "session", "swarm",
            "sabotage",
        ],
    ),
    (
        "server",
        &[
            "disk", "config", "amqp", "payload", "journal", "broker", "session", "swarm",
            "sabotage", "trust",
        ],
    ),
    ("node", RIM),
    ("admin", RIM),
    ("embed", RIM),
    ("cli", RIM),
];
/// What the outermost layers may use: everything but the command line.
const RIM: &[&str] = &[
    "disk", "config", "amqp", "payload", "journal", "broker", "session", "swarm", "client",
    "server", "node", "admin", "sabotage", "trust",
];

/// Layers that may not name what reaches outside the process.
const PURE: [&str; 7] = [
    "config", "amqp", "payload", "journal", "broker", "session", "swarm",
];
/// What a pure layer must not name, in code that is not a test.
const OUTSIDE: [&str; 7] = [
    "tokio",
    "std::fs",
    "std::net::Tcp",
    "Instant::now",
    "SystemTime::now",
    "getrandom",
    "rand::",
];

/// A file beyond this many lines must say why in its header, with a line that begins `//! Long:`.
const FILE_LINES_MAX: usize = 1_000;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_under(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return found;
    };
    for entry in entries {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            if path
                .file_name()
                .is_some_and(|name| name != "target" && name != "node_modules")
            {
                found.extend(files_under(&path, extension));
            }
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Source files with their text, named relative to the package.
fn sources(folder: &str) -> Vec<(String, String)> {
    let root = root();
    files_under(&root.join(folder), "rs")
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&root).expect("a path below the root");
            let text = fs::read_to_string(&path).expect("source is UTF-8");
            (name.display().to_string(), text)
        })
        .collect()
}

/// The layer that a source file belongs to; none for `lib.rs` and `main.rs`.
fn layer_of(file: &str) -> Option<&str> {
    let inside = file.strip_prefix("src/")?;
    let first = inside.split('/').next()?;
    let layer = first.strip_suffix(".rs").unwrap_or(first);
    (layer != "lib" && layer != "main").then_some(layer)
}

/// Where the file's own tests begin; its end if it has none.
fn tests_begin(text: &str) -> usize {
    text.find("#[cfg(test)]\nmod ").unwrap_or(text.len())
}

/// The lines before the file's own tests that are no comments.
fn code_outside_tests(text: &str) -> String {
    let lines = text[..tests_begin(text)].lines();
    lines
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Whether the file is nothing but tests of the module beside it.
fn is_test_file(file: &str) -> bool {
    file.ends_with("tests.rs") || file.contains("/tests/")
}

/// Every `crate::X` in a layer names a layer that it may use.
#[test]
fn layers_use_only_what_stands_above_them() {
    let allowed: BTreeMap<&str, &[&str]> = LAYERS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (file, text) in sources("src") {
        let Some(layer) = layer_of(&file) else {
            continue;
        };
        let may_use = allowed
            .get(layer)
            .unwrap_or_else(|| panic!("{file}: unknown layer {layer}"));
        if is_test_file(&file) {
            continue;
        }
        for part in code_outside_tests(&text).split("crate::").skip(1) {
            let used: String = part
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            let known = allowed.contains_key(used.as_str());
            if known && used != layer && !may_use.contains(&used.as_str()) {
                wrong.push(format!("{file}: {layer} may not use {used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The pure layers name no runtime, file, socket, clock or random source.
#[test]
fn pure_layers_reach_nothing_outside() {
    let mut wrong = Vec::new();
    for (file, text) in sources("src") {
        if !layer_of(&file).is_some_and(|layer| PURE.contains(&layer)) || is_test_file(&file) {
            continue;
        }
        let code = code_outside_tests(&text);
        for word in OUTSIDE {
            if code.contains(word) {
                wrong.push(format!("{file}: names {word}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each source file opens by saying what it owns.
#[test]
fn every_file_opens_with_what_it_owns() {
    let wrong: Vec<_> = ["src", "tests", "benches", "fuzz/fuzz_targets", "examples"]
        .into_iter()
        .flat_map(sources)
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(file, _)| file)
        .collect();
    assert!(wrong.is_empty(), "no `//!` header: {}", wrong.join(", "));
}

/// A file past the limit says in its header why it is one file.
#[test]
fn long_files_say_why() {
    let wrong: Vec<_> = ["src", "tests"]
        .into_iter()
        .flat_map(sources)
        .filter(|(_, text)| text.lines().count() > FILE_LINES_MAX && !text.contains("//! Long:"))
        .map(|(file, text)| format!("{file}: {} lines", text.lines().count()))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The requirement names that the documents in `spec/` define: lines beginning `**NAME-n**`.
fn requirements() -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for path in files_under(&root().join("spec"), "md") {
        let text = fs::read_to_string(&path).expect("spec is UTF-8");
        let document = path
            .file_name()
            .expect("a file")
            .to_string_lossy()
            .into_owned();
        if document == "README.md" {
            continue;
        }
        for line in text.lines() {
            let Some((name, _)) = line
                .strip_prefix("**")
                .and_then(|rest| rest.split_once("**"))
            else {
                continue;
            };
            if is_requirement_name(name) {
                let twice = names.insert(name.to_owned(), document.clone());
                assert!(
                    twice.is_none(),
                    "{name} is defined twice, in {document} and elsewhere"
                );
            }
        }
    }
    names
}

fn is_requirement_name(name: &str) -> bool {
    let Some((word, number)) = name.rsplit_once('-') else {
        return false;
    };
    !word.is_empty()
        && word.chars().all(|c| c.is_ascii_uppercase() || c == '-')
        && !number.is_empty()
        && number.chars().all(|c| c.is_ascii_digit())
}

/// Adds all names cited by `req:` comments in `text`.
fn add_cited(text: &str, names: &mut BTreeSet<String>) {
    for rest in text.split("// req:").skip(1) {
        let line = rest.lines().next().unwrap_or_default();
        for word in line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')) {
            if is_requirement_name(word) {
                names.insert(word.to_owned());
            }
        }
    }
}

/// Each requirement is cited where it is built and where it is tested, and nothing else is cited.
#[test]
fn every_requirement_is_built_and_tested() {
    let (mut in_code, mut in_tests) = (BTreeSet::new(), BTreeSet::new());
    for (file, text) in sources("src") {
        let split = if is_test_file(&file) {
            0
        } else {
            tests_begin(&text)
        };
        let (code, tests) = text.split_at(split);
        add_cited(code, &mut in_code);
        add_cited(tests, &mut in_tests);
    }
    for (file, text) in sources("tests")
        .into_iter()
        .chain(sources("fuzz/fuzz_targets"))
    {
        if file != "tests/tidy.rs" {
            add_cited(&text, &mut in_tests);
        }
    }
    let defined = requirements();
    let mut wrong = Vec::new();
    for (name, document) in &defined {
        if !in_code.contains(name) {
            wrong.push(format!("{name} ({document}) is cited nowhere in src"));
        }
        if !in_tests.contains(name) {
            wrong.push(format!("{name} ({document}) is cited by no test"));
        }
    }
    for name in in_code.union(&in_tests) {
        if !defined.contains_key(name) {
            wrong.push(format!("{name} is cited but defined in no spec document"));
        }
    }
    println!("{} requirements in spec/", defined.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Nothing committed is left open with a macro that panics when reached.
#[test]
fn nothing_is_left_to_do() {
    let macros = [["to", "do!("].concat(), ["unimple", "mented!("].concat()];
    let wrong: Vec<_> = sources("src")
        .into_iter()
        .filter(|(_, text)| macros.iter().any(|word| text.contains(word)))
        .map(|(file, _)| file)
        .collect();
    assert!(wrong.is_empty(), "unfinished: {}", wrong.join(", "));
}
