//! PEM texts: blocks between `-----BEGIN X-----` and `-----END X-----`, handled as they are written.

use super::text::read;
use crate::sync::template::TemplateProblem;
use crate::sync::template::value::{Buffer, Meter, Outcome, Value};

pub(super) fn split(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    let label = args.get(1).map(Value::to_text).transpose()?;
    let text = read(meter, &args[0])?;
    let blocks = blocks(&text)?;
    let wanted = blocks
        .iter()
        .filter(|block| label.as_ref().is_none_or(|label| block.label == label.as_str()));
    let values = wanted.map(|block| one(meter, block)).collect::<Outcome<_>>()?;
    Value::list(meter, values)
}

pub(super) fn leaf(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    let text = read(meter, &args[0])?;
    let blocks = certificates(&text)?;
    let first = blocks
        .first()
        .ok_or(TemplateProblem::Unfit("a PEM text has no certificate"))?;
    one(meter, first)
}

pub(super) fn chain(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    let text = read(meter, &args[0])?;
    let mut out = Buffer::default();
    for block in certificates(&text)?.iter().skip(1) {
        push_block(meter, &mut out, block)?;
    }
    Ok(out.into_value())
}

pub(super) fn key(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    let text = read(meter, &args[0])?;
    let keys: Vec<_> = blocks(&text)?
        .into_iter()
        .filter(|block| block.label.ends_with("PRIVATE KEY"))
        .collect();
    match keys.as_slice() {
        [key] => one(meter, key),
        _ => Err(TemplateProblem::Unfit(
            "a PEM text does not hold exactly one private key",
        )),
    }
}

pub(super) fn bundle(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    let mut texts = Vec::new();
    for arg in args {
        match arg {
            Value::List(list) => {
                for item in &list.items {
                    texts.push(read(meter, item)?);
                }
            }
            single => texts.push(read(meter, single)?),
        }
    }
    let mut kept: Vec<Block<'_>> = Vec::new();
    for text in &texts {
        for block in blocks(text)? {
            meter.step()?;
            meter.work(block.text.len().saturating_mul(kept.len()))?;
            if !kept.contains(&block) {
                kept.push(block);
            }
        }
    }
    let mut out = Buffer::default();
    for block in &kept {
        push_block(meter, &mut out, block)?;
    }
    Ok(out.into_value())
}

/// One block, from its BEGIN line to its END line, without the line end after it.
#[derive(PartialEq, Eq)]
struct Block<'a> {
    label: &'a str,
    text: &'a str,
}

const BEGIN: &str = "-----BEGIN ";
const DASHES: &str = "-----";
const BROKEN: TemplateProblem = TemplateProblem::Unfit("a text is not valid PEM");

/// The blocks of `text`; what stands between them (comments, bag attributes) is left out.
fn blocks(text: &str) -> Outcome<Vec<Block<'_>>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(BEGIN) {
        let here = &rest[at..];
        let label = here[BEGIN.len()..].split_once(DASHES).ok_or(BROKEN)?.0;
        if label.is_empty() || label.contains('\n') {
            return Err(BROKEN);
        }
        let end = format!("{DASHES}END {label}{DASHES}");
        let stop = here.find(&end).ok_or(BROKEN)? + end.len();
        found.push(Block {
            label,
            text: &here[..stop],
        });
        rest = &here[stop..];
    }
    if found.is_empty() { Err(BROKEN) } else { Ok(found) }
}

fn certificates(text: &str) -> Outcome<Vec<Block<'_>>> {
    Ok(blocks(text)?
        .into_iter()
        .filter(|block| block.label == "CERTIFICATE")
        .collect())
}

fn one(meter: &mut Meter, block: &Block<'_>) -> Outcome<Value> {
    let mut out = Buffer::default();
    push_block(meter, &mut out, block)?;
    Ok(out.into_value())
}

fn push_block(meter: &mut Meter, out: &mut Buffer, block: &Block<'_>) -> Outcome<()> {
    meter.step()?;
    out.push(meter, block.text)?;
    out.push(meter, "\n")
}
