//! The reference pages of the book say what the code says.

#![expect(clippy::unwrap_used, reason = "a page that cannot be read fails the test")]

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args as _;
use keyward_core::reason::Reason;
use keyward_core::sync::template::{self, FUNCTIONS, TESTS};
use keyward_core::sync::{allowance, fields};

#[test]
fn every_reason_is_explained_in_order() {
    let page = page("reference/reasons.md");
    let explained: Vec<String> = rows(&page).map(|row| name(&row)).collect();
    let known: Vec<String> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(explained, known);
    for row in rows(&page) {
        assert!(row.iter().all(|cell| !cell.is_empty()), "{row:?}");
    }
}

#[test]
fn every_function_and_test_of_templates_is_listed_as_the_code_documents_it() {
    let page = page("reference/templates.md");
    let listed: Vec<(String, String)> = rows(&page).map(|row| (name(&row), row[1].clone())).collect();
    let known: Vec<(String, String)> = FUNCTIONS
        .iter()
        .chain(TESTS)
        .map(|(name, line)| ((*name).to_owned(), (*line).to_owned()))
        .collect();
    assert_eq!(listed, known);
}

#[test]
fn limits_are_those_of_the_code() {
    let listed = |page: &str| -> Vec<String> {
        let page = self::page(page);
        let section = page.split_once("Limits\n\n").expect("the page has limits").1;
        let rows = section.lines().skip_while(|line| !line.starts_with("|---"));
        let rows = rows.skip(1).take_while(|line| line.starts_with('|'));
        let cells = rows.filter_map(|row| row.trim_end_matches(" |").rsplit_once(" | "));
        cells.map(|(_, value)| value.to_owned()).collect()
    };
    let bytes = |bytes: usize| match bytes / 1024 {
        kibibytes if kibibytes < 1024 => format!("{kibibytes} KiB"),
        kibibytes => format!("{} MiB", kibibytes / 1024),
    };
    let number = |number: usize| match (number / 1000, number % 1000) {
        (0, rest) => rest.to_string(),
        (thousands, rest) => format!("{thousands},{rest:03}"),
    };
    let templates = [
        bytes(template::MAX_SOURCE),
        bytes(template::MAX_SOURCES),
        bytes(template::MAX_OUTPUT),
        number(template::MAX_STEPS as usize),
        bytes(template::MAX_WORK),
        number(template::MAX_TAG_OPERATORS),
        number(template::MAX_NESTING),
        number(template::MAX_NAME),
        number(usize::try_from(template::MAX_RANGE).unwrap()),
    ];
    assert_eq!(listed("reference/templates.md"), templates);
    let kinds = [
        bytes(allowance::MAX_SECRET_BYTES),
        bytes(allowance::MAX_TEMPLATE_VALUES),
        number(allowance::MAX_KEYS),
        number(fields::MAX_FIELD_DEPTH),
        bytes(allowance::MAX_READ),
    ];
    assert_eq!(listed("reference/kinds.md"), kinds);
}

#[test]
fn every_metric_is_listed() {
    let source = include_str!("../src/runtime/metrics.rs");
    let known: BTreeSet<String> = registered_names(source);
    let page = page("reference/metrics.md");
    let listed: BTreeSet<String> = rows(&page)
        .map(|row| name(&row))
        .filter_map(|name| name.strip_prefix("keyward_").map(str::to_owned))
        .collect();
    assert!(known.len() > 10, "{known:?}");
    assert_eq!(listed, known);
}

#[test]
fn every_dependency_has_a_reason() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let known: BTreeSet<String> = manifest
        .lines()
        .skip_while(|line| *line != "[workspace.dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.contains("path = "))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name.to_owned())
        .collect();
    let page = page("reference/dependencies.md");
    let listed: BTreeSet<String> = rows(&page).map(|row| name(&row)).collect();
    assert!(known.contains("kube"), "{known:?}");
    assert_eq!(listed, known);
}

#[test]
fn every_option_is_listed_with_its_variable() {
    let page = page("reference/command-line.md");
    let listed: Vec<(String, String)> = rows(&page)
        .map(|row| (name(&row), row[1].trim_matches('`').to_owned()))
        .collect();
    let command = keyward::cli::RunOptions::augment_args(clap::Command::new("run"));
    let known: Vec<(String, String)> = command
        .get_arguments()
        .map(|option| {
            let long = option.get_long().unwrap_or_default();
            let variable = option
                .get_env()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            (format!("--{long}"), variable)
        })
        .collect();
    assert_eq!(listed, known);
}

#[test]
fn every_right_is_listed() {
    let file = std::fs::read_to_string(root().join("charts/keyward/files/rbac.yaml")).unwrap();
    let inside = |line: &str| {
        let list = line.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
        list.map(|(list, _)| list.to_owned())
    };
    let of = |field: &str| {
        let lines = file.lines().filter(|line| line.trim_start().starts_with(field));
        lines.filter_map(inside).collect::<Vec<_>>()
    };
    let known: Vec<(String, String)> = of("resources:").into_iter().zip(of("verbs:")).collect();
    let page = page("reference/rbac.md");
    let listed: Vec<(String, String)> = rows(&page).map(|row| (name(&row), row[1].clone())).collect();
    assert_eq!(listed, known);
}

#[test]
fn every_field_of_the_kinds_is_listed() {
    let mut known = BTreeSet::new();
    for (_, definition) in keyward_crds::definitions() {
        let definition = serde_json::to_value(definition).unwrap();
        let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        properties_below(spec, &mut known);
    }
    let page = page("reference/kinds.md");
    let words: BTreeSet<&str> = page
        .split('`')
        .skip(1)
        .step_by(2)
        .map(|word| word.rsplit(['.', ' ']).next().unwrap_or(word))
        .collect();
    let missing: Vec<&String> = known
        .iter()
        .filter(|name| !words.contains(name.as_str()))
        .collect();
    assert!(known.contains("serviceAccountRef"), "{known:?}");
    assert!(missing.is_empty(), "not on the page: {missing:?}");
    for row in rows(&page).filter(|row| !row[0].contains(['/', '#'])) {
        let field = name(&row);
        let field = field
            .rsplit('.')
            .next()
            .unwrap_or_default()
            .trim_end_matches("[]");
        assert!(known.contains(field), "{field} is no field of a kind");
    }
}

/// Names of all properties, without those of selectors, which are Kubernetes' own.
fn properties_below(schema: &serde_json::Value, names: &mut BTreeSet<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (name, schema) in properties {
            names.insert(name.clone());
            if name != "selector" {
                properties_below(schema, names);
            }
        }
    }
    if schema["items"].is_object() {
        properties_below(&schema["items"], names);
    }
}

#[test]
fn every_page_is_in_the_summary_and_every_link_leads_somewhere() {
    let book = root().join("docs");
    let summary = page("SUMMARY.md");
    let mut pages = Vec::new();
    markdown_below(&book, &mut pages);
    for path in pages {
        let relative = path.strip_prefix(&book).unwrap().to_string_lossy().into_owned();
        assert!(
            relative == "SUMMARY.md" || summary.contains(&format!("({relative})")),
            "docs/{relative} is not in SUMMARY.md"
        );
        let text = std::fs::read_to_string(&path).unwrap();
        for target in links(&text) {
            let file = path.parent().unwrap().join(target);
            assert!(
                file.exists(),
                "docs/{relative} links to {target}, which does not exist"
            );
        }
    }
    for file in ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"] {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        for target in links(&text) {
            assert!(
                root().join(target).exists(),
                "{file} links to {target}, which does not exist"
            );
        }
    }
}

#[test]
fn the_link_to_secure_settings_leads_to_a_heading() {
    let (page_at, heading) = keyward::store::SECURE_SETTINGS.split_once('#').unwrap();
    let (repository, path) = page_at.split_once("/blob/main/").unwrap();
    assert_eq!(repository, env!("CARGO_PKG_REPOSITORY"));
    let text = std::fs::read_to_string(root().join(path)).unwrap();
    let anchors = text.lines().filter_map(|line| line.strip_prefix("## "));
    let anchors: Vec<_> = anchors
        .map(|title| title.to_lowercase().replace(' ', "-"))
        .collect();
    assert!(anchors.iter().any(|anchor| anchor == heading), "{anchors:?}");
}

/// Names given to the registry: a string right after the registry's own name.
fn registered_names(source: &str) -> BTreeSet<String> {
    let dense: String = source.split_whitespace().collect::<Vec<_>>().join(" ");
    ["(r, \"", "( r, \"", "registry.register(\""]
        .iter()
        .flat_map(|start| dense.split(start).skip(1))
        .filter_map(|rest| rest.split_once('"'))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// The rows of the tables of a page whose first cell is code, with `\|` read as `|`.
fn rows(page: &str) -> impl Iterator<Item = Vec<String>> {
    page.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let line = line
            .trim_start_matches("| ")
            .trim_end_matches('|')
            .replace("\\|", "\u{0}");
        line.split(" | ")
            .map(|cell| cell.replace('\u{0}', "|").trim().to_owned())
            .collect()
    })
}

/// What the first cell of a row names.
fn name(row: &[String]) -> String {
    row[0].trim_matches('`').to_owned()
}

/// Targets of links to files, without their anchors.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.split('#').next().unwrap_or_default())
        .filter(|target| !target.is_empty() && !target.contains("://"))
}

fn markdown_below(folder: &std::path::Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            markdown_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join("docs").join(name)).unwrap()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}
