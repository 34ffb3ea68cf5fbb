//! Builds the binary that is measured: the real `keyward`, so that memory and allocator are those of the product.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::operator::workspace;

/// Builds `keyward` with a profile of the workspace and returns its path. Cargo shows its progress itself.
pub fn build(profile: &str) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(&cargo)
        .args(["build", "--locked", "--package", "keyward", "--bin", "keyward"])
        .args([
            "--profile",
            profile,
            "--message-format",
            "json-render-diagnostics",
        ])
        .current_dir(workspace())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("start {}", cargo.display()))?;
    if !output.status.success() {
        bail!(
            "building keyward with profile {profile} failed: {}",
            output.status
        );
    }
    executable(&String::from_utf8_lossy(&output.stdout)).context("cargo named no executable")
}

/// The commit of the working tree, with a `+` where it was changed since. Empty where git does not tell.
#[must_use]
pub fn commit() -> String {
    let output = Command::new("git")
        .args([
            "describe",
            "--always",
            "--exclude",
            "*",
            "--abbrev=10",
            "--dirty=+",
        ])
        .current_dir(workspace())
        .output();
    let output = output.ok().filter(|output| output.status.success());
    output.map_or_else(String::new, |output| {
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    })
}

/// One of cargo's messages, as far as we read them.
#[derive(Deserialize)]
struct Message {
    reason: String,
    executable: Option<PathBuf>,
}

/// The executable that a build has made or found fresh.
fn executable(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.reason == "compiler-artifact")
        .filter_map(|message| message.executable)
        .next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_among_the_messages() {
        let messages = concat!(
            "{\"reason\":\"compiler-artifact\",\"executable\":null}\n",
            "{\"reason\":\"compiler-artifact\",\"executable\":\"/t/release/keyward\",\"fresh\":true}\n",
            "{\"reason\":\"build-finished\",\"success\":true}\n",
        );
        assert_eq!(executable(messages), Some(PathBuf::from("/t/release/keyward")));
        assert_eq!(executable("{\"reason\":\"build-finished\"}"), None);
    }
}
