//! Text and lists.

use std::cmp::Ordering;

use crate::sync::decode::HEX_DIGITS;
use crate::sync::template::value::{Buffer, Meter, Outcome, Value};
use crate::sync::template::{MAX_RANGE, TemplateProblem};

pub(super) fn upper(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    each_char(meter, &args[0], |meter, out, c| {
        c.to_uppercase().try_for_each(|c| out.push_char(meter, c))
    })
}

pub(super) fn lower(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    each_char(meter, &args[0], |meter, out, c| {
        c.to_lowercase().try_for_each(|c| out.push_char(meter, c))
    })
}

pub(super) fn trim(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    let text = args[0].read(meter)?;
    Value::text(meter, text.trim())
}

pub(super) fn replace(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    let (text, from, to) = (args[0].read(meter)?, args[1].read(meter)?, args[2].to_text()?);
    if from.is_empty() {
        return Err(TemplateProblem::Unfit("`replace` needs a text to look for"));
    }
    let mut out = Buffer::with_capacity(text.len());
    let mut kept = 0;
    // One search for all of them: each search prepares itself by reading the text it looks for.
    for (at, found) in text.match_indices(from.as_str()) {
        out.push(meter, &text[kept..at])?;
        out.push(meter, &to)?;
        kept = at + found.len();
    }
    out.push(meter, &text[kept..])?;
    Ok(out.into_value())
}

pub(super) fn indent(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    let text = args[0].read(meter)?;
    let width = usize::try_from(args[1].as_int()?).ok();
    let margin = width.and_then(|width| SPACES.get(..width));
    let margin = margin.ok_or(TemplateProblem::Unfit("`indent` takes 0 to 64 spaces"))?;
    let mut out = Buffer::with_capacity(text.len());
    for (index, line) in text.split_inclusive('\n').enumerate() {
        // A blank line gets no trailing spaces.
        if index > 0 && !line.trim_end().is_empty() {
            out.push(meter, margin)?;
        }
        out.push(meter, line)?;
    }
    Ok(out.into_value())
}

pub(super) fn split(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    let (text, separator) = (args[0].read(meter)?, args[1].read(meter)?);
    if separator.is_empty() {
        return Err(TemplateProblem::Unfit("`split` needs a separator"));
    }
    let pieces = text
        .split(separator.as_str())
        .map(|piece| piece_of(meter, piece))
        .collect::<Outcome<_>>()?;
    Value::list(meter, pieces)
}

pub(super) fn lines(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    let text = args[0].read(meter)?;
    let lines = text
        .lines()
        .map(|line| piece_of(meter, line))
        .collect::<Outcome<_>>()?;
    Value::list(meter, lines)
}

pub(super) fn join(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    let separator = args.get(1).map(Value::to_text).transpose()?;
    let mut out = Buffer::default();
    for (index, item) in args[0].elements(meter)?.iter().enumerate() {
        meter.step()?;
        if let (Some(separator), 1..) = (&separator, index) {
            out.push(meter, separator)?;
        }
        out.push(meter, &item.to_text()?)?;
    }
    Ok(out.into_value())
}

pub(super) fn length(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    let length = match &args[0] {
        Value::List(list) => list.items.len(),
        Value::Map(map) => map.members.len(),
        Value::Bytes(bytes) => bytes.len(),
        other => other.read(meter)?.chars().count(),
    };
    i64::try_from(length)
        .map(Value::Int)
        .map_err(|_| TemplateProblem::WorkLimit)
}

pub(super) fn quote(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    let text = args[0].read(meter)?;
    let mut out = Buffer::with_capacity(text.len() + 2);
    push_quoted(meter, &mut out, &text)?;
    Ok(out.into_value())
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "every function of the table has this signature"
)]
pub(super) fn default(_: &mut Meter, args: &[Value]) -> Outcome<Value> {
    Ok(match &args[0] {
        Value::Undefined(_) | Value::Null => args[1].clone(),
        value => value.clone(),
    })
}

pub(super) fn first(_: &mut Meter, args: &[Value]) -> Outcome<Value> {
    args[0].element(0)?.ok_or(EMPTY_LIST)
}

pub(super) fn last(_: &mut Meter, args: &[Value]) -> Outcome<Value> {
    args[0].element(-1)?.ok_or(EMPTY_LIST)
}

pub(super) fn sort(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    let mut items = args[0].elements(meter)?;
    // Checked and paid for in advance: a comparison that fails half-way has no place in a sort. Each of the rounds reads
    // an element and its neighbour.
    let rounds = items.len().checked_ilog2().unwrap_or(0) as usize + 1;
    let mut bytes = 0;
    for (item, next) in items.iter().zip(items.iter().skip(1)) {
        item.order(next, meter)?;
        bytes += item.to_text()?.len() + next.to_text()?.len();
    }
    meter.work(
        bytes
            .saturating_add(items.len() * size_of::<Value>())
            .saturating_mul(rounds),
    )?;
    items.sort_by(|a, b| match (a, b) {
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        _ => Ordering::Equal,
    });
    Value::list(meter, items)
}

pub(super) fn reverse(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    let mut items = args[0].elements(meter)?;
    items.reverse();
    Value::list(meter, items)
}

pub(super) fn unique(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    let mut kept: Vec<Value> = Vec::new();
    for item in args[0].elements(meter)? {
        let mut seen = false;
        for other in &kept {
            if item.equals(other, meter)? {
                seen = true;
                break;
            }
        }
        if !seen {
            kept.push(item);
        }
    }
    Value::list(meter, kept)
}

pub(super) fn range(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    let (from, to) = match args {
        [to] => (0, to.as_int()?),
        _ => (args[0].as_int()?, args[1].as_int()?),
    };
    if to.saturating_sub(from) > MAX_RANGE {
        return Err(TemplateProblem::OutputLimit);
    }
    Value::list(meter, (from..to).map(Value::Int).collect())
}

pub(super) fn starts_with(meter: &mut Meter, args: &[Value]) -> Outcome<bool> {
    let part = args[1].read(meter)?;
    Ok(args[0].to_text()?.starts_with(part.as_str()))
}

pub(super) fn ends_with(meter: &mut Meter, args: &[Value]) -> Outcome<bool> {
    let part = args[1].read(meter)?;
    Ok(args[0].to_text()?.ends_with(part.as_str()))
}

/// Appends `text` as a JSON string.
pub(super) fn push_quoted(meter: &mut Meter, out: &mut Buffer, text: &str) -> Outcome<()> {
    out.push(meter, "\"")?;
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_control() || matches!(c, '"' | '\\')) {
        out.push(meter, &rest[..at])?;
        let special = rest[at..].chars().next().unwrap_or_default();
        match special {
            '"' => out.push(meter, "\\\"")?,
            '\\' => out.push(meter, "\\\\")?,
            '\n' => out.push(meter, "\\n")?,
            '\r' => out.push(meter, "\\r")?,
            '\t' => out.push(meter, "\\t")?,
            other => {
                out.push(meter, "\\u")?;
                for shift in [12, 8, 4, 0] {
                    let digit = HEX_DIGITS[(u32::from(other) >> shift & 15) as usize];
                    out.push_char(meter, char::from(digit))?;
                }
            }
        }
        rest = &rest[at + special.len_utf8()..];
    }
    out.push(meter, rest)?;
    out.push(meter, "\"")
}

const SPACES: &str = "                                                                ";
const EMPTY_LIST: TemplateProblem = TemplateProblem::Unfit("an element of an empty list is asked for");

fn piece_of(meter: &mut Meter, piece: &str) -> Outcome<Value> {
    meter.step()?;
    Value::text(meter, piece)
}

fn each_char(
    meter: &mut Meter,
    value: &Value,
    map: impl Fn(&mut Meter, &mut Buffer, char) -> Outcome<()>,
) -> Outcome<Value> {
    let text = value.read(meter)?;
    let mut out = Buffer::with_capacity(text.len());
    text.chars().try_for_each(|c| map(meter, &mut out, c))?;
    Ok(out.into_value())
}
