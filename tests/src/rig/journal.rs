//! A log file of one JSON object a line, read from a place that was marked.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;

/// How many bytes are looked through at once for the end of a line.
const BLOCK: u64 = 4096;

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

    /// The end of the last whole line. A line can be seen while it is being written, and what is read from its middle
    /// is no entry.
    pub(super) fn end(&self) -> Result<Mark> {
        let place = self.end_of_lines();
        Ok(Mark {
            place: place.with_context(|| format!("look at {}", self.path.display()))?,
            instant: None,
        })
    }

    fn end_of_lines(&self) -> std::io::Result<u64> {
        let mut file = File::open(&self.path)?;
        let mut end = file.seek(SeekFrom::End(0))?;
        let mut block = Vec::new();
        while end > 0 {
            let start = end.saturating_sub(BLOCK);
            file.seek(SeekFrom::Start(start))?;
            block.clear();
            file.by_ref().take(end - start).read_to_end(&mut block)?;
            if let Some(last) = block.iter().rposition(|byte| *byte == b'\n') {
                return Ok(start + last as u64 + 1);
            }
            end = start;
        }
        Ok(0)
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

    #[test]
    fn a_mark_lies_before_a_line_that_is_being_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let journal = Journal::new(path.clone());
        // Half a line alone, behind a whole one, and longer than a block.
        for before in ["", "{\"n\":1}\n"] {
            for words in ["é", &"é".repeat(5000)] {
                let line = format!("{before}{{\"n\":\"{words}\"}}\n");
                for half in 1..6 {
                    std::fs::write(&path, &line.as_bytes()[..line.len() - half]).unwrap();
                    let mark = journal.end().unwrap();
                    std::fs::write(&path, &line).unwrap();
                    assert_eq!(journal.since::<Value>(mark).unwrap(), [json!({ "n": words })]);
                }
            }
        }
    }
}
