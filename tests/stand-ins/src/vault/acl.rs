//! Policies: which token may do what where.

use serde_json::Value;

use super::State;
use super::auth::Token;

/// Rules of a path, exact or ending in `*`, and what may be done there. Written in JSON; HCL is not read.
pub(super) struct Policy(Vec<(String, Vec<String>)>);

/// What every token may do, as the policy `default` says.
const DEFAULT: [(&str, &str); 3] = [
    ("auth/token/lookup-self", "read"),
    ("auth/token/renew-self", "update"),
    ("auth/token/revoke-self", "update"),
];

impl Policy {
    /// Reads the text of a policy.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let rules: Value = serde_json::from_str(text).ok()?;
        let rule = |(path, rule): (&String, &Value)| {
            let capabilities = rule["capabilities"].as_array()?.iter();
            let capabilities = capabilities.filter_map(|name| name.as_str().map(str::to_owned));
            Some((path.clone(), capabilities.collect()))
        };
        rules["path"]
            .as_object()?
            .iter()
            .map(rule)
            .collect::<Option<_>>()
            .map(Self)
    }

    /// The capabilities of the rule that fits `path` best, and how well it does.
    fn best(&self, path: &str) -> Option<(usize, &[String])> {
        let fit = |rule: &str| match rule.strip_suffix('*') {
            Some(start) => path.starts_with(start).then_some(start.len()),
            None => (rule == path).then_some(usize::MAX),
        };
        let rules = self
            .0
            .iter()
            .filter_map(|(rule, may)| Some((fit(rule)?, may.as_slice())));
        rules.max_by_key(|(fit, _)| *fit)
    }

    fn reaches_below(&self, mount: &str) -> bool {
        self.0.iter().any(|(rule, _)| match rule.strip_suffix('*') {
            Some(start) => start.starts_with(mount) || mount.starts_with(start),
            None => rule.starts_with(mount),
        })
    }
}

impl State {
    /// Whether a policy of `token` allows this.
    pub(super) fn may(&self, token: &Token, method: &str, path: &str) -> bool {
        if token.is_root() {
            return true;
        }
        let wanted: &[&str] = match method {
            "GET" => &["read"],
            "LIST" => &["list"],
            "DELETE" => &["delete"],
            _ => &["update", "create"],
        };
        let by_default = DEFAULT.iter().any(|(own, may)| {
            *own == path && wanted.contains(may) && token.policies.iter().any(|name| name == "default")
        });
        // A list of a folder is asked for with a slash at its end.
        let folder = format!("{path}/");
        let paths = if method == "LIST" {
            vec![path, &folder]
        } else {
            vec![path]
        };
        by_default
            || token
                .policies
                .iter()
                .filter_map(|name| self.policies.get(name))
                .filter_map(|policy| {
                    paths
                        .iter()
                        .filter_map(|path| policy.best(path))
                        .max_by_key(|(fit, _)| *fit)
                })
                .max_by_key(|(fit, _)| *fit)
                .is_some_and(|(_, may)| may.iter().any(|may| wanted.contains(&may.as_str())))
    }

    /// Whether `token` may do anything at all below a mount.
    pub(super) fn may_see(&self, token: &Token, mount: &str) -> bool {
        let mount = format!("{mount}/");
        let policies = token.policies.iter().filter_map(|name| self.policies.get(name));
        token.is_root() || policies.into_iter().any(|policy| policy.reaches_below(&mount))
    }
}
