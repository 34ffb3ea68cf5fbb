//! PEM texts: blocks between `-----BEGIN X-----` and `-----END X-----`, handled as they are written.

use std::collections::BTreeSet;

use crate::sync::template::TemplateProblem;
use crate::sync::template::value::{Buffer, Meter, Outcome, Value};

pub(super) fn split(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    let label = args.get(1).map(|label| label.read(meter)).transpose()?;
    let text = args[0].read(meter)?;
    let blocks = blocks(meter, &text)?;
    let wanted = blocks
        .iter()
        .filter(|block| label.as_ref().is_none_or(|label| block.label == label.as_str()));
    let values = wanted.map(|block| one(meter, block)).collect::<Outcome<_>>()?;
    Value::list(meter, values)
}

pub(super) fn leaf(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    let text = args[0].read(meter)?;
    let blocks = certificates(meter, &text)?;
    let first = blocks
        .first()
        .ok_or(TemplateProblem::Unfit("a PEM text has no certificate"))?;
    one(meter, first)
}

pub(super) fn chain(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    let text = args[0].read(meter)?;
    let mut out = Buffer::default();
    for block in certificates(meter, &text)?.iter().skip(1) {
        push_block(meter, &mut out, block)?;
    }
    Ok(out.into_value())
}

pub(super) fn key(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    let text = args[0].read(meter)?;
    let keys: Vec<_> = blocks(meter, &text)?
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
                    texts.push(item.read(meter)?);
                }
            }
            single => texts.push(single.read(meter)?),
        }
    }
    let mut out = Buffer::default();
    let mut kept = BTreeSet::new();
    for text in &texts {
        for block in blocks(meter, text)? {
            meter.work(block.text.len())?;
            if kept.insert(block.text) {
                push_block(meter, &mut out, &block)?;
            }
        }
    }
    Ok(out.into_value())
}

/// One block, from its BEGIN line to its END line, without the line end after it.
struct Block<'a> {
    label: &'a str,
    text: &'a str,
}

const BEGIN: &str = "-----BEGIN ";
const DASHES: &str = "-----";
const BROKEN: TemplateProblem = TemplateProblem::Unfit("a text is not valid PEM");

/// The blocks of `text`; what stands between them (comments, bag attributes) is left out.
fn blocks<'a>(meter: &mut Meter, text: &'a str) -> Outcome<Vec<Block<'a>>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(BEGIN) {
        meter.step()?;
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

fn certificates<'a>(meter: &mut Meter, text: &'a str) -> Outcome<Vec<Block<'a>>> {
    Ok(blocks(meter, text)?
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
    out.push(meter, block.text)?;
    out.push(meter, "\n")
}
