//! The way to a field inside nested JSON, and the walk along many such ways at once.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::{FieldError, NAMED_TWICE};
use crate::shown::Shown;
use crate::sync::allowance::Effort;
use crate::sync::json::{Json, Shape};

/// The way to a field through nested objects and arrays, written `a.b.0`; `\.` is a dot and `\\` a backslash
/// inside a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FieldPath(Vec<String>);

/// The deepest field path that is accepted.
pub const MAX_FIELD_DEPTH: usize = 32;

/// A text that is not a field path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a field path such as `a.b.0`: no empty names, at most {MAX_FIELD_DEPTH} of them, `\\` only before `.` or `\\`"
)]
pub struct FieldPathError;

impl FieldPath {
    #[cfg(test)]
    pub(super) fn of(segments: Vec<String>) -> Self {
        Self(segments)
    }

    pub(super) fn segments(&self) -> &[String] {
        &self.0
    }
}

/// Finds the values at the ends of `paths`, each with the place in `found` that it goes to. Every object and array on
/// the way is walked once for all paths that lead through it.
pub(super) fn locate<'a>(
    here: Json<'a>,
    paths: Vec<(usize, &[String])>,
    found: &mut [Option<Json<'a>>],
    effort: &mut Effort,
) -> Result<(), FieldError> {
    let mut below: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for (place, path) in paths {
        match path {
            [] => found[place] = Some(here),
            [name, rest @ ..] => below.entry(name).or_default().push((place, rest)),
        }
    }
    if below.is_empty() {
        return Ok(());
    }
    match here.shape() {
        Shape::Object => {
            effort.read(here.len())?;
            for (name, value) in here.members() {
                let name = effort.name(name)?;
                let Some(paths) = below.get_mut(&*name) else {
                    continue;
                };
                // They were taken when the name was met before.
                if paths.is_empty() {
                    return Err(NAMED_TWICE);
                }
                locate(value, std::mem::take(paths), found, effort)?;
            }
        }
        Shape::Array => {
            effort.read(here.len())?;
            let by_index = below.into_iter();
            let by_index = by_index.filter_map(|(name, paths)| Some((array_index(name)?, paths)));
            let mut by_index: BTreeMap<usize, _> = by_index.collect();
            for (index, value) in here.elements().enumerate() {
                if let Some(paths) = by_index.remove(&index) {
                    locate(value, paths, found, effort)?;
                }
            }
        }
        _ => {}
    }
    Ok(())
}

impl FromStr for FieldPath {
    type Err = FieldPathError;

    fn from_str(text: &str) -> Result<Self, FieldPathError> {
        let mut segments = vec![String::new()];
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let segment = segments.last_mut().ok_or(FieldPathError)?;
            match c {
                '\\' => segment.push(
                    chars
                        .next()
                        .filter(|c| matches!(c, '.' | '\\'))
                        .ok_or(FieldPathError)?,
                ),
                '.' => segments.push(String::new()),
                other => segment.push(other),
            }
        }
        if segments.len() > MAX_FIELD_DEPTH || segments.iter().any(String::is_empty) {
            return Err(FieldPathError);
        }
        Ok(Self(segments))
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            let segment = segment.replace('\\', r"\\").replace('.', r"\.");
            write!(f, "{}", Shown::whole(&segment))?;
        }
        Ok(())
    }
}

fn array_index(segment: &str) -> Option<usize> {
    // One spelling per element: `01` is a name and not an index.
    let canonical = segment == "0" || !segment.starts_with('0');
    if canonical && segment.bytes().all(|b| b.is_ascii_digit()) {
        segment.parse().ok()
    } else {
        None
    }
}
