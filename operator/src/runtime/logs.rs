//! Log lines on standard error, for people or as JSON.

use std::io::IsTerminal as _;

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

/// Sends everything that is logged to standard error, as far as `filter` lets it through.
///
/// # Errors
///
/// The filter cannot be parsed, or logging was set up before.
pub fn install(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)?;
    let colours = std::io::stderr().is_terminal();
    lines(format, filter, colours, std::io::stderr).try_init()?;
    Ok(())
}

fn lines<W>(format: LogFormat, filter: EnvFilter, colours: bool, writer: W) -> Dispatch
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = fmt::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(writer);
    match format {
        LogFormat::Human => lines.finish().into(),
        LogFormat::Json => lines.json().flatten_event(true).finish().into(),
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

    /// What is written of one line that passes the filter and of one that does not.
    fn written(format: LogFormat) -> String {
        let page = Page::default();
        let writer = page.clone();
        let filter = EnvFilter::try_new("info").unwrap();
        let lines = lines(format, filter, false, Arc::new(writer));
        tracing::dispatcher::with_default(&lines, || {
            tracing::info!(object = "apps/db", "it is synced");
            tracing::debug!("not asked for");
        });
        let page = page.page().clone();
        String::from_utf8(page).unwrap()
    }

    #[test]
    fn lines_are_for_people_or_json() {
        let human = written(LogFormat::Human);
        assert!(
            human.contains("INFO") && human.contains("it is synced object=\"apps/db\""),
            "{human}"
        );
        let json: serde_json::Value = serde_json::from_str(&written(LogFormat::Json)).unwrap();
        assert_eq!(
            (&json["level"], &json["message"]),
            (&"INFO".into(), &"it is synced".into())
        );
        assert_eq!(json["object"], "apps/db");
    }
}
