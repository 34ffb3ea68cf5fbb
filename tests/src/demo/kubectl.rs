//! The real `kubectl`, as a person would use it: what the demo shows of the cluster is what it prints.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// `kubectl` with all rights on one cluster.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// `program` with the access in `kubeconfig`.
    #[must_use]
    pub fn new(program: PathBuf, kubeconfig: PathBuf) -> Self {
        Self { program, kubeconfig }
    }

    /// Runs a command and returns what a person would see: the command as it is typed, and what it printed.
    pub async fn show(&self, arguments: &[&str]) -> Result<String> {
        let printed = self.run(arguments, "").await?;
        Ok(format!("$ {}\n{printed}", typed(arguments)))
    }

    /// Applies documents.
    pub async fn apply(&self, documents: &str) -> Result<()> {
        self.run(&["apply", "--server-side", "-f", "-"], documents)
            .await
            .map(drop)
    }

    /// Runs a command with something on its standard input, and returns what it printed.
    async fn run(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut child = Command::new(&self.program)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))?;
        let mut stdin = child.stdin.take().context("standard input was piped")?;
        stdin.write_all(input.as_bytes()).await?;
        drop(stdin);
        let output = child.wait_with_output().await?;
        ensure!(
            output.status.success(),
            "{}: {}",
            typed(arguments),
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The command with quotes where a shell wants them.
fn typed(arguments: &[&str]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:".contains(c);
    let quoted = arguments.iter().map(|argument| {
        if argument.chars().all(plain) {
            (*argument).to_owned()
        } else {
            format!("'{argument}'")
        }
    });
    std::iter::once("kubectl".to_owned())
        .chain(quoted)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_can_be_typed_as_they_are_shown() {
        assert_eq!(
            typed(&["-n", "a", "get", "-o", "jsonpath={.x}"]),
            "kubectl -n a get -o 'jsonpath={.x}'"
        );
    }
}
