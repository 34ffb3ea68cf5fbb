//! What the chart promises and can be seen without helm: current definitions, rights without wildcards, a reason
//! for each, and values that its schema knows.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use serde_json::Value;

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/keyward")
}

fn read(path: &str) -> String {
    let path = chart().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files_of(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect()
}

/// Every object of the rights file, by kind.
fn rights() -> Vec<(String, Value)> {
    let text = read("files/rbac.yaml");
    let documents = text.split("\n---\n").map(|document| {
        let value: Value = serde_saphyr::from_str(document).unwrap();
        (value["kind"].as_str().unwrap().to_owned(), value)
    });
    documents.collect()
}

fn rules() -> Vec<PolicyRule> {
    let mut all = Vec::new();
    for (kind, object) in rights() {
        match kind.as_str() {
            "ClusterRole" => all.extend(
                serde_json::from_value::<ClusterRole>(object)
                    .unwrap()
                    .rules
                    .unwrap(),
            ),
            "Role" => all.extend(serde_json::from_value::<Role>(object).unwrap().rules.unwrap()),
            _ => {}
        }
    }
    all
}

#[test]
fn the_charts_definitions_are_current() {
    let manifests = files_of(&chart().join("../../crds/manifests"));
    let copies = files_of(&chart().join("crds"));
    assert!(
        manifests == copies,
        "copy crds/manifests/*.yaml to charts/keyward/crds/: {:?} differ from {:?}",
        manifests.keys(),
        copies.keys()
    );
}

#[test]
fn rights_have_no_wildcard_and_no_escalation() {
    let rules = rules();
    assert!(rules.len() > 8, "the file was read");
    for rule in rules {
        let resources = rule.resources.clone().unwrap_or_default();
        let words = [
            rule.api_groups.clone().unwrap_or_default(),
            resources.clone(),
            rule.verbs.clone(),
        ];
        assert!(words.iter().flatten().all(|word| !word.contains('*')), "{rule:?}");
        for forbidden in ["escalate", "bind", "impersonate", "deletecollection"] {
            assert!(!rule.verbs.iter().any(|verb| verb == forbidden), "{rule:?}");
        }
        for forbidden in ["roles", "clusterroles", "pods", "pods/exec", "nodes"] {
            assert!(
                !resources.iter().any(|resource| resource == forbidden),
                "{rule:?}"
            );
        }
    }
}

#[test]
fn every_rule_says_its_reason() {
    let text = read("files/rbac.yaml");
    let lines: Vec<_> = text.lines().collect();
    for (number, line) in lines.iter().enumerate() {
        if line.trim_start().starts_with("- apiGroups:") {
            let before = lines[number - 1].trim_start();
            assert!(
                before.starts_with("# "),
                "line {}: a rule without a reason",
                number + 1
            );
        }
    }
}

#[test]
fn the_rights_are_plain_yaml_for_one_namespace() {
    let text = read("files/rbac.yaml");
    assert!(!text.contains("{{"));
    for (kind, object) in rights() {
        let namespace = object["metadata"]["namespace"].as_str();
        // Where the API server is, is written in that namespace and no other.
        let expected = match object["metadata"]["name"].as_str() {
            Some("keyward-api-server") => Some("default"),
            _ => (!kind.starts_with("Cluster")).then_some("keyward-system"),
        };
        assert_eq!(namespace, expected, "{kind}");
    }
}

#[test]
fn the_schema_knows_every_value() {
    let values: Value = serde_saphyr::from_str(&read("values.yaml")).unwrap();
    let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    check("values", &values, &schema);
}

/// Every value has a place in the schema, and the schema has no place for others.
fn check(path: &str, values: &Value, schema: &Value) {
    let Some(known) = schema.get("properties").and_then(Value::as_object) else {
        return;
    };
    let values = values
        .as_object()
        .unwrap_or_else(|| panic!("{path} is an object"));
    for (name, value) in values {
        let inner = known
            .get(name)
            .unwrap_or_else(|| panic!("{path}.{name} is not in the schema"));
        check(&format!("{path}.{name}"), value, inner);
    }
    assert_eq!(schema["additionalProperties"], false, "{path}");
}

#[test]
fn the_operator_knows_every_flag_of_the_deployment() {
    use clap::{Args as _, Command};
    let command = keyward::cli::RunOptions::augment_args(Command::new("run"));
    let flags: Vec<_> = command
        .get_arguments()
        .filter_map(|argument| argument.get_long())
        .collect();
    let deployment = read("templates/deployment.yaml");
    let used = deployment
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- --"));
    let mut seen = 0;
    for argument in used {
        let name = argument.split('=').next().unwrap();
        assert!(flags.contains(&name), "`--{name}` is not a flag of `keyward run`");
        seen += 1;
    }
    assert!(seen > 5, "the deployment was read");
}
