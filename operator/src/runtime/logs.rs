//! Log lines on standard error, for people or as JSON.

use std::io::{self, IsTerminal as _, Write};

use clap::ValueEnum;
use tracing::Dispatch;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::util::SubscriberInitExt as _;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object in each line.
    Json,
}

/// Left out whatever is let through otherwise: the library that builds requests notes what they are built of, for each of them.
const SILENT: &str = "rustify=off";

/// Sends everything that is logged to standard error, as far as `filter` lets it through.
///
/// # Errors
///
/// The filter cannot be parsed, or logging was set up before.
pub fn install(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    let filter = parse(filter)?;
    let colours = std::io::stderr().is_terminal();
    lines(format, filter, colours, std::io::stderr).try_init()?;
    Ok(())
}

fn parse(filter: &str) -> anyhow::Result<EnvFilter> {
    Ok(EnvFilter::try_new(filter)?.add_directive(SILENT.parse()?))
}

fn lines<W>(format: LogFormat, filter: EnvFilter, colours: bool, writer: W) -> Dispatch
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = fmt::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(OneLineEach(writer));
    match format {
        LogFormat::Human => lines.finish().into(),
        LogFormat::Json => lines.json().flatten_event(true).finish().into(),
    }
}

/// Keeps each line one line. The library writes a line as a whole, and what is shown in it as it is: a line end within
/// would begin a line that nobody has logged.
struct OneLineEach<W>(W);

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for OneLineEach<W> {
    type Writer = OneLineEach<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        OneLineEach(self.0.make_writer())
    }

    fn make_writer_for(&'w self, meta: &tracing::Metadata<'_>) -> Self::Writer {
        OneLineEach(self.0.make_writer_for(meta))
    }
}

impl<W: Write> Write for OneLineEach<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        if !text.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
            return self.0.write(line);
        }
        let mut escaped = Vec::with_capacity(line.len() + 8);
        for byte in text {
            match byte {
                b'\n' => escaped.extend(b"\\n"),
                b'\r' => escaped.extend(b"\\r"),
                other => escaped.push(*other),
            }
        }
        escaped.extend(&line[text.len()..]);
        self.0.write_all(&escaped)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, MutexGuard};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for &Page {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            self.page().extend_from_slice(line);
            Ok(line.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Page {
        fn page(&self) -> MutexGuard<'_, Vec<u8>> {
            self.0.lock().unwrap()
        }
    }

    /// What is written of what passes the filter.
    fn written(format: LogFormat, log: impl FnOnce()) -> String {
        let page = Page::default();
        let writer = page.clone();
        let filter = parse("info").unwrap();
        let lines = lines(format, filter, false, Arc::new(writer));
        tracing::dispatcher::with_default(&lines, log);
        let page = page.page().clone();
        String::from_utf8(page).unwrap()
    }

    #[test]
    fn a_field_never_begins_another_line() {
        let name = "db\r\n2026-01-01T00:00:00Z  INFO keyward: forged";
        for format in [LogFormat::Human, LogFormat::Json] {
            let page = written(format, || {
                let _span = tracing::info_span!("pass", object = %name).entered();
                tracing::info!(object = %name, "{name} is synced");
                tracing::info!("the next line");
            });
            assert_eq!(page.lines().count(), 2, "{page}");
            assert!(page.ends_with('\n') && page.contains(r"db\r\n2026"), "{page}");
        }
    }

    #[test]
    fn what_requests_are_built_of_is_never_logged() {
        for filter in ["trace", "rustify=trace"] {
            let lines = fmt::fmt().with_env_filter(parse(filter).unwrap()).finish();
            tracing::subscriber::with_default(lines, || {
                assert!(
                    !tracing::enabled!(target: "rustify::endpoint", tracing::Level::ERROR),
                    "{filter}"
                );
            });
        }
    }

    #[test]
    fn lines_are_for_people_or_json() {
        let log = || {
            tracing::info!(object = "apps/db", "it is synced");
            tracing::debug!("not asked for");
        };
        let human = written(LogFormat::Human, log);
        assert!(
            human.contains("INFO") && human.contains("it is synced object=\"apps/db\""),
            "{human}"
        );
        let json: serde_json::Value = serde_json::from_str(&written(LogFormat::Json, log)).unwrap();
        assert_eq!(
            (&json["level"], &json["message"]),
            (&"INFO".into(), &"it is synced".into())
        );
        assert_eq!(json["object"], "apps/db");
    }
}
