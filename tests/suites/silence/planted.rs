//! What was planted, and every form in which it could slip out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// So much of a planted text, from either end, is enough to recognise it.
const RECOGNISABLE: usize = 16;

/// What was planted, by what it is.
#[derive(Default)]
pub struct Planted(Vec<Canary>);

struct Canary {
    what: String,
    text: String,
    /// Whether a Secret holds it in the end.
    written: bool,
}

impl Planted {
    /// A text that is nowhere else. A Secret will hold it.
    pub fn plant(&mut self, what: impl Into<String>) -> String {
        let text = canary();
        self.note(what.into(), &text, true);
        text
    }

    /// The same for a value that no Secret ever holds, or none in the end.
    pub fn plant_unwritten(&mut self, what: impl Into<String>) -> String {
        let text = canary();
        self.note(what.into(), &text, false);
        text
    }

    /// Takes a text that was made elsewhere. A Secret will hold it.
    pub fn add(&mut self, what: impl Into<String>, text: &str) {
        self.note(what.into(), text, true);
    }

    /// What Secrets hold: values, and the logins of stores.
    pub fn written(&self) -> impl Iterator<Item = &str> {
        let written = self.0.iter().filter(|canary| canary.written);
        written.map(|canary| canary.what.as_str())
    }

    /// Which of them a text holds, as they are or in another form.
    pub fn told_in(&self, text: &str) -> Vec<&str> {
        let told = self
            .0
            .iter()
            .filter(|canary| forms(&canary.text).iter().any(|form| text.contains(form)));
        told.map(|canary| canary.what.as_str()).collect()
    }

    fn note(&mut self, what: String, text: &str, written: bool) {
        self.0.push(Canary {
            what,
            text: text.to_owned(),
            written,
        });
    }
}

/// Fit for a label of Kubernetes as well.
fn canary() -> String {
    format!("canary{}", uuid::Uuid::new_v4().simple())
}

/// Forms in which a text could slip out: either end of it, base64 at each alignment, hexadecimal, as numbers.
fn forms(text: &str) -> Vec<String> {
    let bytes = text.as_bytes();
    let start = || bytes.iter().take(RECOGNISABLE);
    let hexadecimal: Vec<_> = start().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![
        text[..RECOGNISABLE].to_owned(),
        text[text.len() - RECOGNISABLE..].to_owned(),
        hexadecimal.concat(),
    ];
    let numbers: Vec<_> = start().map(ToString::to_string).collect();
    forms.extend([numbers.join(","), numbers.join(", ")]);
    for offset in 0..3 {
        // Whole groups of three bytes are the same wherever the text begins, but for its first bytes.
        let whole = (bytes.len() - offset) / 3 * 3;
        forms.push(STANDARD_NO_PAD.encode(&bytes[offset..offset + whole.min(RECOGNISABLE / 3 * 3)]));
    }
    forms
}
