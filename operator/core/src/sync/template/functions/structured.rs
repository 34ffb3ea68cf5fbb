//! JSON and what is made of it.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::encode::base64_encode;
use super::text::{push_quoted, read};
use crate::sync::json::{Json, JsonError, Shape};
use crate::sync::template::value::{Buffer, Meter, Outcome, Value};
use crate::sync::template::{MAX_NESTING, TemplateProblem};

pub(super) fn keys(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    match &args[0] {
        Value::Map(_) => {
            let names = args[0].elements(meter)?;
            Value::list(meter, names)
        }
        _ => Err(NOT_A_MAP),
    }
}

pub(super) fn items(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    let Value::Map(map) = &args[0] else {
        return Err(NOT_A_MAP);
    };
    let pairs = map
        .members
        .iter()
        .map(|(name, value)| {
            let name = Value::text(meter, name)?;
            Value::list(meter, vec![name, value.clone()])
        })
        .collect::<Outcome<_>>()?;
    Value::list(meter, pairs)
}

pub(super) fn to_json(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    let mut out = Buffer::default();
    push_json(meter, &mut out, &args[0])?;
    Ok(out.into_value())
}

pub(super) fn from_json(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    let text = read(meter, &args[0])?;
    let json = Json::parse(text.as_bytes()).map_err(refused)?;
    value_of(meter, json, text.len(), 0)
}

pub(super) fn docker_config(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    let (server, user, password) = (args[0].to_text()?, args[1].to_text()?, args[2].to_text()?);
    if user.contains(':') {
        return Err(TemplateProblem::Unfit(
            "a registry user name must not contain `:`",
        ));
    }
    let mut pair = Buffer::default();
    for part in [user.as_str(), ":", password.as_str()] {
        pair.push(meter, part)?;
    }
    let auth = base64_encode(meter, &[pair.into_value()])?;
    let mut entry = BTreeMap::from([
        ("auth".to_owned(), auth),
        ("password".to_owned(), args[2].clone()),
        ("username".to_owned(), args[1].clone()),
    ]);
    if let Some(email) = args.get(3) {
        entry.insert("email".to_owned(), email.clone());
    }
    let entry = Value::map(meter, entry)?;
    let servers = Value::map(meter, BTreeMap::from([(server.as_str().to_owned(), entry)]))?;
    let config = Value::map(meter, BTreeMap::from([("auths".to_owned(), servers)]))?;
    to_json(meter, &[config])
}

const NOT_A_MAP: TemplateProblem = TemplateProblem::Unfit("a map is expected here; see `fromjson`");

fn push_json(meter: &mut Meter, out: &mut Buffer, value: &Value) -> Outcome<()> {
    meter.step()?;
    match value {
        Value::Null => out.push(meter, "null"),
        Value::Text(text) => push_quoted(meter, out, text),
        Value::List(list) => {
            out.push(meter, "[")?;
            for (index, item) in list.items.iter().enumerate() {
                if index > 0 {
                    out.push(meter, ",")?;
                }
                push_json(meter, out, item)?;
            }
            out.push(meter, "]")
        }
        Value::Map(map) => {
            out.push(meter, "{")?;
            for (index, (name, item)) in map.members.iter().enumerate() {
                if index > 0 {
                    out.push(meter, ",")?;
                }
                push_quoted(meter, out, name)?;
                out.push(meter, ":")?;
                push_json(meter, out, item)?;
            }
            out.push(meter, "}")
        }
        other => out.push(meter, &other.to_text()?),
    }
}

/// `size` is the length of the text around `json`: walking into an object or array reads all of it again.
fn value_of(meter: &mut Meter, json: Json<'_>, size: usize, depth: usize) -> Outcome<Value> {
    meter.step()?;
    if depth > MAX_NESTING {
        return Err(TemplateProblem::NestingLimit);
    }
    match json.shape() {
        Shape::Null => Ok(Value::Null),
        Shape::Bool(value) => Ok(Value::Bool(value)),
        Shape::Number(digits) => match digits.parse::<i64>() {
            // `-0` and the like are no whole numbers: they would come out spelled in another way.
            Ok(number) if number.to_string() == digits => Ok(Value::Int(number)),
            _ => {
                meter.work(digits.len())?;
                Ok(Value::Number(Rc::from(digits)))
            }
        },
        Shape::Text(text) => {
            let text = text
                .unquote()
                .ok_or(TemplateProblem::Unfit("a JSON text holds half a character"))?;
            Value::text(meter, &text)
        }
        Shape::Array => {
            meter.work(size)?;
            let mut items = Vec::new();
            for item in json.elements().map_err(refused)? {
                items.push(value_of(meter, item, item.len(), depth + 1)?);
            }
            Value::list(meter, items)
        }
        Shape::Object => {
            meter.work(size)?;
            let mut members = BTreeMap::new();
            for (name, item) in json.members().map_err(refused)? {
                members.insert(name.into_owned(), value_of(meter, item, item.len(), depth + 1)?);
            }
            Value::map(meter, members)
        }
    }
}

fn refused(error: JsonError) -> TemplateProblem {
    TemplateProblem::Unfit(match error {
        JsonError::Syntax => "a text is not valid JSON",
        JsonError::Duplicate => "a JSON object names the same member twice",
    })
}
