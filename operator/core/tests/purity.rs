//! Keeps this crate pure: no client, no runtime, no clock and no randomness among its dependencies or in its source.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Crates that act on the world or draw from it. A name ending in `*` stands for every crate that begins so.
const FORBIDDEN: &[&str] = &[
    "async-*",
    "axum*",
    "dirs*",
    "fastrand",
    "futures*",
    "getrandom",
    "h2",
    "http*",
    "hyper*",
    "iana-time-zone",
    "jiff",
    "k8s-openapi",
    "kube*",
    "keyward-crds",
    "mio",
    "native-tls",
    "oauth2",
    "openssl*",
    "rand*",
    "reqwest*",
    "ring",
    "rustify*",
    "rustls*",
    "signal-hook*",
    "smol",
    "socket2",
    "time",
    "tokio*",
    "tonic",
    "tower*",
    "tracing*",
    "ureq*",
    "uuid",
    "vaultrs*",
];

/// Features that would bring in what their crate can do without: (crate, feature).
const FORBIDDEN_FEATURES: &[(&str, &str)] = &[
    ("chrono", "clock"),
    ("chrono", "now"),
    ("chrono", "wasmbind"),
    ("minijinja", "loader"),
    ("minijinja", "multi_template"),
];

/// Ways to the outside that need no dependency.
const FORBIDDEN_SOURCE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::net::ToSocketAddrs",
    "std::process",
    "std::thread",
    "std::io",
    "Instant::now",
    "SystemTime",
    "Utc::now",
    "Local::now",
    "RandomState",
    "println!",
    "eprintln!",
];

#[test]
fn no_dependency_acts_or_draws() {
    let tree = dependency_tree();
    assert!(
        tree.iter().any(|line| line.name == "minijinja"),
        "the tree must have been read: {tree:?}"
    );
    let found: Vec<_> = tree
        .iter()
        .filter(|line| FORBIDDEN.iter().any(|rule| matches(rule, &line.name)))
        .collect();
    assert!(found.is_empty(), "keyward-core must not depend on {found:?}");
    for (name, feature) in FORBIDDEN_FEATURES {
        let on = tree
            .iter()
            .any(|line| line.name == *name && line.features.iter().any(|has| has == feature));
        assert!(!on, "{name} must not have its feature `{feature}`");
    }
}

#[test]
fn the_rules_would_catch_what_they_are_for() {
    for name in [
        "tokio",
        "tokio-util",
        "rand_core",
        "kube-client",
        "reqwest",
        "hyper-util",
        "getrandom",
    ] {
        assert!(FORBIDDEN.iter().any(|rule| matches(rule, name)), "{name}");
    }
    for name in ["serde", "chrono", "sha2", "regex"] {
        assert!(!FORBIDDEN.iter().any(|rule| matches(rule, name)), "{name}");
    }
}

#[test]
fn no_source_reaches_outside() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = rust_files(&root);
    assert!(files.len() > 10, "the sources must have been found: {files:?}");
    let of_tests = |file: &Path| {
        file.ends_with("tests.rs") || file.parent().is_some_and(|folder| folder.ends_with("tests"))
    };
    for file in files.iter().filter(|file| !of_tests(file)) {
        let text = fs::read_to_string(file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for forbidden in FORBIDDEN_SOURCE {
            assert!(!code.contains(forbidden), "{} uses {forbidden}", file.display());
        }
    }
}

#[derive(Debug)]
struct Dependency {
    name: String,
    features: Vec<String>,
}

/// Every normal dependency with the features it has when this crate is built on its own.
fn dependency_tree() -> Vec<Dependency> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "--package",
            "keyward-core",
            "--edges",
            "normal",
            "--prefix",
            "none",
        ])
        .args(["--format", "{p}|{f}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs, as it runs this test");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("names of crates are text");
    text.lines()
        .filter_map(|line| line.split_once('|'))
        .map(|(package, features)| Dependency {
            name: package.split(' ').next().unwrap_or_default().to_owned(),
            features: features
                .trim_end_matches(" (*)")
                .split(',')
                .map(str::to_owned)
                .collect(),
        })
        .collect()
}

fn matches(rule: &str, name: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == rule,
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("the source folder can be listed") {
        let path = entry.expect("the source folder can be listed").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
