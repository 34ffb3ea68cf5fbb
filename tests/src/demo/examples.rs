//! `docs/examples`, with this machine's addresses put in, applied by `kubectl`.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::kubectl::Kubectl;
use crate::operator::workspace;

/// What has to be there before a Secret can be made by hand.
const NAMESPACES: &str = "namespaces.yaml";

/// What comes before the rest: the operator would say of each object that its store does not exist, until it does.
const FIRST: [&str; 2] = [NAMESPACES, "stores.yaml"];

/// Applies the namespaces alone.
pub async fn apply_namespaces(kubectl: &Kubectl) -> Result<()> {
    kubectl.apply(&read(NAMESPACES)?).await
}

/// Applies all examples, their tokens replaced, and returns how many files they are.
pub async fn apply(kubectl: &Kubectl, tokens: &[(&'static str, String)]) -> Result<usize> {
    let files = files()?;
    let documents = files.iter().map(|file| read(file)).collect::<Result<Vec<_>>>()?;
    kubectl
        .apply(&filled(&documents.join("\n---\n"), tokens)?)
        .await?;
    Ok(files.len())
}

/// The text with each `${NAME}` replaced.
fn filled(text: &str, tokens: &[(&'static str, String)]) -> Result<String> {
    let text = tokens.iter().fold(text.to_owned(), |text, (name, value)| {
        text.replace(&format!("${{{name}}}"), value)
    });
    let left = text.split_once("${").map(|(_, rest)| rest);
    ensure!(
        left.is_none(),
        "the examples have a token that the demo does not know: ${{{}",
        left.and_then(|rest| rest.lines().next()).unwrap_or_default()
    );
    Ok(text)
}

fn files() -> Result<Vec<String>> {
    let folder = workspace().join("docs/examples");
    let entries = fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
    let mut files: Vec<String> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .filter_map(|path| path.file_name()?.to_str().map(ToOwned::to_owned))
        .collect();
    files.sort_by_key(|file| (!FIRST.contains(&file.as_str()), file.clone()));
    Ok(files)
}

fn read(file: &str) -> Result<String> {
    let path = workspace().join("docs/examples").join(file);
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_replaced_and_unknown_ones_refused() {
        let tokens = [("A", "1".to_owned())];
        assert_eq!(filled("x: ${A}", &tokens).unwrap(), "x: 1");
        let error = filled("x: ${B}\ny", &tokens).unwrap_err().to_string();
        assert!(error.ends_with("${B}"), "{error}");
    }
}
