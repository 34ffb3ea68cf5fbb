//! The table of behaviour names tests that exist, and the threat model too.
//!
//! Names are spelled as `cargo test` prints them, with the crate or program in front: `keyward_core::sync::keys::tests::…`,
//! `suites::contract::…`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use keyward_tests::harness::{Case, Suite};

/// What a clause says that no test shows.
const NOT_SHOWN: &str = "not shown";

/// To be called last: it knows the suites' tests by what is registered.
pub(super) fn register(suite: &mut Suite) {
    let known: BTreeSet<String> = suite.names().map(|name| format!("suites::{name}")).collect();
    suite.add(
        module_path!(),
        "the_pages_name_tests_that_exist",
        move |_: Case| {
            let known = known.clone();
            async move { check_pages(known) }
        },
    );
    keyward_tests::tests!(
        suite,
        every_clause_names_a_test_or_says_that_none_shows_it,
        every_threat_names_a_test_or_says_that_none_shows_it,
    );
}

async fn every_clause_names_a_test_or_says_that_none_shows_it(_: Case) -> Result<()> {
    let rows = rows(&page("reference/behaviour.md")?);
    ensure!(rows.len() > 50, "the table has only {} rows", rows.len());
    check_rows(&rows)
}

async fn every_threat_names_a_test_or_says_that_none_shows_it(_: Case) -> Result<()> {
    let rows: Vec<Vec<String>> = rows(&page("explanation/threat-model.md")?)
        .into_iter()
        .filter(|row| row[0].starts_with("T-"))
        .collect();
    for (index, row) in rows.iter().enumerate() {
        ensure!(
            row[0] == format!("T-{:02}", index + 1),
            "{} is out of order",
            row[0]
        );
    }
    ensure!(rows.len() > 10, "only {} threats", rows.len());
    check_rows(&rows)
}

fn check_pages(known_suites: BTreeSet<String>) -> Result<()> {
    let mut known = known_suites;
    for (krate, folder) in [
        ("keyward_core", "operator/core/src"),
        ("keyward_crds", "crds/src"),
        ("keyward", "operator/src"),
        ("keyward_tests", "tests/src"),
        ("", "operator/core/tests"),
        ("", "operator/tests"),
        ("", "crds/tests"),
    ] {
        add_tests_below(&root().join(folder), krate, &mut known)?;
    }
    let mut unknown = Vec::new();
    for name in ["reference/behaviour.md", "explanation/threat-model.md"] {
        let page = page(name)?;
        unknown.extend(
            named(&page)
                .filter(|test| !known.contains(*test))
                .map(|test| format!("{name}: {test}")),
        );
    }
    ensure!(unknown.is_empty(), "no such test:\n{}", unknown.join("\n"));
    Ok(())
}

/// The last cell of each row names tests, or says that there are none.
fn check_rows(rows: &[Vec<String>]) -> Result<()> {
    let bare: Vec<String> = rows
        .iter()
        .filter(|row| {
            let shown = row.last().map_or("", String::as_str);
            let tests = named(shown).count();
            (tests == 0) != shown.starts_with(NOT_SHOWN)
        })
        .map(|row| row.join(" | "))
        .collect();
    ensure!(
        bare.is_empty(),
        "neither a test nor `{NOT_SHOWN}`:\n{}",
        bare.join("\n")
    );
    Ok(())
}

/// Rows of tables, without their heads.
fn rows(page: &str) -> Vec<Vec<String>> {
    let lines: Vec<&str> = page.lines().collect();
    lines
        .iter()
        .enumerate()
        .filter(|(index, line)| {
            let head = lines.get(index + 1).is_some_and(|next| next.starts_with("|---"));
            line.starts_with("| ") && !head
        })
        .map(|(_, line)| {
            let cells = line.trim_matches('|').split(" | ");
            cells.map(|cell| cell.trim().to_owned()).collect()
        })
        .collect()
}

/// What a text names as code with a path in it: a test.
fn named(text: &str) -> impl Iterator<Item = &str> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter(|code| code.contains("::"))
}

fn add_tests_below(folder: &Path, krate: &str, known: &mut BTreeSet<String>) -> Result<()> {
    let mut folders = vec![folder.to_owned()];
    while let Some(here) = folders.pop() {
        for entry in std::fs::read_dir(&here).with_context(|| format!("read {}", here.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path)?;
                let module = module_of(path.strip_prefix(folder)?, krate);
                known.extend(tests_in(&text).map(|test| format!("{module}::{test}")));
            }
        }
    }
    Ok(())
}

/// The path of the module that a file holds.
fn module_of(file: &Path, krate: &str) -> String {
    let file = file.with_extension("");
    let mut segments: Vec<&str> = file.iter().filter_map(|segment| segment.to_str()).collect();
    if matches!(segments.last(), Some(&("mod" | "lib" | "main"))) {
        segments.pop();
    }
    if !krate.is_empty() {
        segments.insert(0, krate);
    }
    segments.join("::")
}

/// Test functions of a file, with `tests::` in front of those in such a module.
fn tests_in(text: &str) -> impl Iterator<Item = String> {
    let (mut inside, mut is_test) = (false, false);
    text.lines().filter_map(move |line| {
        let line = line.trim_start();
        if line.starts_with("mod tests {") {
            inside = true;
        }
        if line.starts_with("#[test") || line.starts_with("#[tokio::test") {
            is_test = true;
        }
        let (_, rest) = line.split_once("fn ")?;
        let marked = std::mem::take(&mut is_test);
        let (name, _) = rest.split_once('(')?;
        marked.then(|| {
            if inside {
                format!("tests::{name}")
            } else {
                name.to_owned()
            }
        })
    })
}

fn page(name: &str) -> Result<String> {
    let path = root().join("docs").join(name);
    std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}
