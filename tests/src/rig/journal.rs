//! A log file of one JSON object a line, read from a place that was marked.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;

/// A log file that a server appends to.
pub(super) struct Journal {
    path: PathBuf,
}

/// A place in a log, and the instant before which nothing is meant that is written behind it.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    place: u64,
    pub(super) instant: Option<DateTime<Utc>>,
}

impl Journal {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The present end.
    pub(super) fn end(&self) -> Result<Mark> {
        let meta = std::fs::metadata(&self.path);
        let meta = meta.with_context(|| format!("look at {}", self.path.display()))?;
        Ok(Mark {
            place: meta.len(),
            instant: None,
        })
    }

    /// What was written since `mark`. A last line that is only half written is left for the next call.
    pub(super) fn since<T: DeserializeOwned>(&self, mark: Mark) -> Result<Vec<T>> {
        self.read_on(mark).map(|(entries, _)| entries)
    }

    /// The same, and the place to go on from.
    pub(super) fn read_on<T: DeserializeOwned>(&self, mark: Mark) -> Result<(Vec<T>, Mark)> {
        let mut file = File::open(&self.path).with_context(|| format!("open {}", self.path.display()))?;
        file.seek(SeekFrom::Start(mark.place))?;
        let mut text = String::new();
        file.read_to_string(&mut text)
            .with_context(|| format!("read {}", self.path.display()))?;
        let whole = text.rfind('\n').map_or(0, |last| last + 1);
        let entries = text[..whole]
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("parse {}", self.path.display())));
        let place = mark.place + whole as u64;
        Ok((entries.collect::<Result<_>>()?, Mark { place, ..mark }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn only_whole_lines_behind_the_mark_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "{\"n\":1}\n").unwrap();
        let journal = Journal::new(path.clone());
        let mark = journal.end().unwrap();
        std::fs::write(&path, "{\"n\":1}\n{\"n\":2}\n{\"n\":").unwrap();
        let (entries, mark) = journal.read_on::<Value>(mark).unwrap();
        assert_eq!(entries, [json!({"n": 2})]);
        std::fs::write(&path, "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n").unwrap();
        assert_eq!(journal.since::<Value>(mark).unwrap(), [json!({"n": 3})]);
    }
}
