//! Text encodings that a declared value may carry, decoded into buffers that are wiped.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use crate::secret::SecretBytes;

/// How a value is encoded where it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Decode {
    /// Taken as it is.
    #[default]
    None,
    /// Base64 of the standard alphabet; padding is optional, white space is skipped.
    Base64,
    /// Base64 of the URL alphabet; padding is optional, white space is skipped.
    Base64Url,
    /// Hexadecimal digits in pairs; white space around and between them is skipped.
    Hex,
}

/// Padding is optional because half of all writers leave it out.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
pub(crate) const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
pub(crate) const URL_SAFE: GeneralPurpose =
    GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT.with_encode_padding(false));

/// The digits that hexadecimal text is written with.
pub(crate) const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

impl Decode {
    /// Decodes `bytes`; `None` when they are not of this encoding.
    #[must_use]
    pub fn apply(self, bytes: &[u8]) -> Option<SecretBytes> {
        match self {
            Self::None => Some(SecretBytes::new(bytes.to_vec())),
            Self::Base64 => base64(&STANDARD, bytes),
            Self::Base64Url => base64(&URL_SAFE, bytes),
            Self::Hex => hex(bytes),
        }
    }

    /// The name used in specs and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Base64 => "base64",
            Self::Base64Url => "base64url",
            Self::Hex => "hex",
        }
    }
}

fn base64(engine: &GeneralPurpose, bytes: &[u8]) -> Option<SecretBytes> {
    let digits = without_space(bytes);
    let mut out = Zeroizing::new(vec![0; base64::decoded_len_estimate(digits.len())]);
    let length = engine.decode_slice(&*digits, &mut out).ok()?;
    out.truncate(length);
    Some(SecretBytes::new(std::mem::take(&mut *out)))
}

fn hex(bytes: &[u8]) -> Option<SecretBytes> {
    let digits = without_space(bytes);
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let mut out = Zeroizing::new(Vec::with_capacity(digits.len() / 2));
    for pair in digits.chunks_exact(2) {
        out.push((nibble(pair[0])? << 4) | nibble(pair[1])?);
    }
    Some(SecretBytes::new(std::mem::take(&mut *out)))
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn without_space(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(bytes.len()));
    out.extend(bytes.iter().filter(|b| !b.is_ascii_whitespace()));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(decode: Decode, text: &str) -> Option<Vec<u8>> {
        decode.apply(text.as_bytes()).map(|bytes| bytes.expose().to_vec())
    }

    #[test]
    fn padding_and_line_breaks_are_optional() {
        for text in ["aGVsbG8=", "aGVsbG8", "aGVs\nbG8=\n"] {
            assert_eq!(
                decoded(Decode::Base64, text).as_deref(),
                Some(&b"hello"[..]),
                "{text}"
            );
        }
        assert_eq!(
            decoded(Decode::Base64Url, "-_8").as_deref(),
            Some(&[0xfb, 0xff][..])
        );
        assert_eq!(
            decoded(Decode::Hex, " 00fF\n10 ").as_deref(),
            Some(&[0, 255, 16][..])
        );
    }

    #[test]
    fn what_is_not_of_the_encoding_is_refused() {
        for (decode, text) in [
            (Decode::Base64, "a"),
            (Decode::Base64, "-_8="),
            (Decode::Base64, "pass word!"),
            (Decode::Base64Url, "+/8="),
            (Decode::Hex, "abc"),
            (Decode::Hex, "zz"),
        ] {
            assert_eq!(decoded(decode, text), None, "{} {text}", decode.name());
        }
    }

    proptest! {
        #[test]
        fn every_byte_sequence_survives(bytes: Vec<u8>) {
            let standard = STANDARD.encode(&bytes);
            let url = URL_SAFE.encode(&bytes);
            let digit = |nibble: u8| char::from(HEX_DIGITS[usize::from(nibble)]);
            let hex: String = bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect();
            prop_assert_eq!(decoded(Decode::Base64, &standard), Some(bytes.clone()));
            prop_assert_eq!(decoded(Decode::Base64Url, &url), Some(bytes.clone()));
            prop_assert_eq!(decoded(Decode::Hex, &hex), Some(bytes));
        }
    }
}
