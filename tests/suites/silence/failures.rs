//! Objects that fail with a planted value in hand.

use anyhow::Result;
use serde_json::{Value, json};

use super::planted::Planted;
use crate::scene::Scene;

/// More than a Secret holds.
const TOO_LARGE: usize = 1_100_000;

/// An object, and the reason for which it fails.
pub type Failing = (&'static str, &'static str);

/// Makes all of them.
pub async fn make(scene: &Scene<'_>, planted: &mut Planted) -> Result<Vec<Failing>> {
    let mut failing = on_templates(scene, planted).await?;
    failing.extend(on_values(scene, planted).await?);
    failing.extend(on_secrets(scene, planted).await?);
    Ok(failing)
}

/// Templates that fail on a value of each store, in data, in labels and in annotations.
async fn on_templates(scene: &Scene<'_>, planted: &mut Planted) -> Result<Vec<Failing>> {
    // Neither base64 nor a number, so that whoever tries to read it as such fails on it. No label may hold it either.
    let odd = planted.plant_unwritten("a value that nothing can read");
    scene
        .write("open/odd", &json!({"value": format!("!{odd}!")}))
        .await?;
    let vault = json!({"storeRef": {"name": "approle"}, "path": "open/odd"});
    let version_1 = json!({"storeRef": {"name": "version-1"}, "path": "odd"});
    let barbican = json!({"storeRef": {"name": "barbican-credential"}, "name": "odd", "key": "value"});
    let bytes = json!({"storeRef": {"name": "barbican-credential"}, "name": "bytes", "key": "value"});
    let data = |text: &str| json!({"data": {"out": text}});
    let failed = "TemplateFailed";
    let endless = "{% for i in range(100000) %}{{ value }}{% endfor %}";
    let objects = [
        ("template-name", &vault, data("{{ nobody }}"), failed),
        ("template-value", &vault, data("{{ value|b64decode }}"), failed),
        ("template-json", &vault, data("{{ value|fromjson }}"), failed),
        ("template-sum", &vault, data("{{ value + 1 }}"), failed),
        ("template-pem", &vault, data("{{ value|pem_key }}"), failed),
        ("template-long", &vault, data(endless), "TemplateLimit"),
        (
            "template-label",
            &vault,
            in_metadata("labels", "{{ value|fromjson }}"),
            failed,
        ),
        (
            "template-note",
            &vault,
            in_metadata("annotations", "{{ value|fromjson }}"),
            failed,
        ),
        // What the template language takes and Kubernetes does not.
        (
            "odd-label",
            &vault,
            in_metadata("labels", "{{ value }}"),
            "SpecInvalid",
        ),
        ("version-1-json", &version_1, data("{{ value|fromjson }}"), failed),
        ("version-1-long", &version_1, data(endless), "TemplateLimit"),
        ("barbican-json", &barbican, data("{{ value|fromjson }}"), failed),
        ("barbican-long", &barbican, data(endless), "TemplateLimit"),
        ("barbican-bytes", &bytes, data("{{ value|upper }}"), failed),
    ];
    let mut failing = Vec::new();
    for (name, source, template, reason) in objects {
        let spec = json!({"sources": [source], "target": {"template": template}});
        scene.synced(name, &spec).await?;
        failing.push((name, reason));
    }
    Ok(failing)
}

/// Values that do not decode, lack a field, are given twice, are too large, or may not be read.
async fn on_values(scene: &Scene<'_>, planted: &mut Planted) -> Result<Vec<Failing>> {
    let large = planted.plant_unwritten("a value that is too large");
    let padded = large + &"x".repeat(TOO_LARGE);
    scene.write("open/large", &json!({ "value": padded })).await?;
    let secret = planted.plant_unwritten("a value outside the policy");
    scene.write("closed/value", &json!({ "value": secret })).await?;

    let of = |store: &str| json!({"storeRef": {"name": store}});
    let with = |store: &str, more: Value| {
        let mut source = of(store);
        for (field, value) in more.as_object().into_iter().flatten() {
            source[field.as_str()] = value.clone();
        }
        source
    };
    let in_vault = |more: Value| {
        let mut source = with("approle", more);
        source["path"] = "open/odd".into();
        source
    };
    let in_barbican = |decode: &str| {
        let named = json!({"name": "odd", "key": "value", "decode": decode});
        with("barbican-credential", named)
    };
    let twice = with("barbican-credential", json!({"name": "value", "key": "value"}));
    let objects = [
        (
            "decode-base64",
            vec![in_vault(json!({"decode": "Base64"}))],
            "DecodeFailed",
        ),
        (
            "decode-hex",
            vec![in_vault(json!({"decode": "Hex"}))],
            "DecodeFailed",
        ),
        ("decode-barbican", vec![in_barbican("Base64Url")], "DecodeFailed"),
        (
            "decode-version-1",
            vec![with("version-1", json!({"path": "odd", "decode": "Base64"}))],
            "DecodeFailed",
        ),
        (
            "field",
            vec![in_vault(json!({"fields": [{"field": "value.inner"}]}))],
            "FieldNotFound",
        ),
        (
            "size",
            vec![with("approle", json!({"path": "open/large"}))],
            "SecretTooLarge",
        ),
        (
            "denied",
            vec![with("approle", json!({"path": "closed/value"}))],
            "RemoteDenied",
        ),
        ("conflict", vec![in_vault(json!({})), twice], "KeyConflict"),
    ];
    let mut failing = Vec::new();
    for (name, sources, reason) in objects {
        scene.synced(name, &json!({ "sources": sources })).await?;
        failing.push((name, reason));
    }
    Ok(failing)
}

/// Secrets that may not be written: of somebody else, with a key of somebody else, of another type.
async fn on_secrets(scene: &Scene<'_>, planted: &mut Planted) -> Result<Vec<Failing>> {
    let theirs = planted.plant("a value of somebody else");
    let foreign = json!({"value": theirs});
    for name in ["foreign", "owned", "typed"] {
        scene.credential(name, &foreign).await?;
    }
    let source = json!({"storeRef": {"name": "approle"}, "path": "open/value"});
    let add = json!({"adoption": {"policy": "AddKeys"}});
    let mut typed = add.clone();
    typed["type"] = "example.com/login".into();
    let objects = [
        ("foreign", json!({}), "SecretNotOwned"),
        ("owned", add, "KeyOwnedByOther"),
        ("typed", typed, "TypeConflict"),
    ];
    let mut failing = Vec::new();
    for (name, target, reason) in objects {
        scene
            .synced(name, &json!({"sources": [source], "target": target}))
            .await?;
        failing.push((name, reason));
    }
    Ok(failing)
}

/// A template for a label or an annotation.
fn in_metadata(place: &str, text: &str) -> Value {
    json!({"data": {"out": "fixed"}, place: {"example.com/out": text}})
}
