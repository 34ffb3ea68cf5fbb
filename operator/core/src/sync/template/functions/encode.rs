//! Encodings: base64, hexadecimal, URL.

use base64::Engine as _;
use base64::engine::GeneralPurpose;

use crate::sync::decode::{Decode, HEX_DIGITS, STANDARD, URL_SAFE};
use crate::sync::template::TemplateProblem;
use crate::sync::template::value::{Buffer, Meter, Outcome, Value};

pub(super) fn base64_encode(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    base64_with(&STANDARD, meter, &args[0])
}

pub(super) fn base64_url_encode(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    base64_with(&URL_SAFE, meter, &args[0])
}

pub(super) fn hex_encode(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    args[0].with_bytes(meter, |meter, bytes| {
        let mut out = Buffer::with_capacity(bytes.len() * 2);
        for byte in bytes {
            push_hex(meter, &mut out, *byte, HEX_DIGITS)?;
        }
        Ok(out.into_value())
    })
}

pub(super) fn url_encode(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    args[0].with_bytes(meter, |meter, bytes| {
        let mut out = Buffer::with_capacity(bytes.len());
        for byte in bytes {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
                out.push_char(meter, char::from(*byte))?;
            } else {
                out.push(meter, "%")?;
                push_hex(meter, &mut out, *byte, b"0123456789ABCDEF")?;
            }
        }
        Ok(out.into_value())
    })
}

pub(super) fn base64_decode(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    decoded(meter, &args[0], Decode::Base64, "a text is not valid base64")
}

pub(super) fn base64_url_decode(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    decoded(
        meter,
        &args[0],
        Decode::Base64Url,
        "a text is not valid URL-safe base64",
    )
}

pub(super) fn hex_decode(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    decoded(meter, &args[0], Decode::Hex, "a text is not valid hexadecimal")
}

fn push_hex(meter: &mut Meter, out: &mut Buffer, byte: u8, digits: &[u8; 16]) -> Outcome<()> {
    for nibble in [byte >> 4, byte & 15] {
        out.push_char(meter, char::from(digits[usize::from(nibble)]))?;
    }
    Ok(())
}

fn base64_with(engine: &GeneralPurpose, meter: &mut Meter, value: &Value) -> Outcome<Value> {
    value.with_bytes(meter, |meter, bytes| {
        let mut out = Buffer::with_capacity(bytes.len().div_ceil(3) * 4);
        // Whole groups of three bytes, so that padding appears at the end only.
        for group in bytes.chunks(3 * 256) {
            let mut digits = [0; 4 * 256];
            let length = engine
                .encode_slice(group, &mut digits)
                .map_err(|_| TemplateProblem::WorkLimit)?;
            let text = std::str::from_utf8(&digits[..length]).map_err(|_| TemplateProblem::WorkLimit)?;
            out.push(meter, text)?;
            zeroize::Zeroize::zeroize(&mut digits);
        }
        Ok(out.into_value())
    })
}

fn decoded(meter: &mut Meter, value: &Value, encoding: Decode, problem: &'static str) -> Outcome<Value> {
    value.with_bytes(meter, |meter, bytes| {
        // What comes out is no longer than what was read.
        meter.work(bytes.len())?;
        let plain = encoding.apply(bytes).ok_or(TemplateProblem::Unfit(problem))?;
        Ok(Value::from(plain))
    })
}
