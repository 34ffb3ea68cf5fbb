//! JSON and what is made of it.

use std::rc::Rc;

use super::encode::base64_encode;
use super::text::push_quoted;
use crate::sync::json::{Json, Shape};
use crate::sync::template::value::{Buffer, Members, Meter, Name, Outcome, Value};
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
            let name = Value::text(meter, name.as_str())?;
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
    let text = args[0].read(meter)?;
    let json = Json::parse(text.as_bytes()).map_err(|_| NOT_JSON)?;
    value_of(meter, json, 0)
}

pub(super) fn docker_config(meter: &mut Meter, args: &[Value]) -> Outcome<Value> {
    let (server, user, password) = (args[0].to_text()?, args[1].read(meter)?, args[2].to_text()?);
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
    let mut entry = Members::from([
        ("auth".into(), auth),
        ("password".into(), args[2].clone()),
        ("username".into(), args[1].clone()),
    ]);
    if let Some(email) = args.get(3) {
        entry.insert("email".into(), email.clone());
    }
    let entry = Value::map(meter, entry)?;
    let servers = Value::map(meter, Members::from([(server.as_str().into(), entry)]))?;
    let config = Value::map(meter, Members::from([("auths".into(), servers)]))?;
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
                push_quoted(meter, out, name.as_str())?;
                out.push(meter, ":")?;
                push_json(meter, out, item)?;
            }
            out.push(meter, "}")
        }
        other => out.push(meter, &other.to_text()?),
    }
}

/// Walking over an object or array reads all of its text again.
fn value_of(meter: &mut Meter, json: Json<'_>, depth: usize) -> Outcome<Value> {
    meter.step()?;
    if depth > MAX_NESTING {
        return Err(TemplateProblem::NestingLimit);
    }
    meter.work(json.len())?;
    match json.shape() {
        Shape::Null => Ok(Value::Null),
        Shape::Bool(value) => Ok(Value::Bool(value)),
        Shape::Number(digits) => match digits.parse::<i64>() {
            // `-0` and the like are no whole numbers: they would come out spelled in another way.
            Ok(number) if *Value::Int(number).to_text()?.as_str() == *digits => Ok(Value::Int(number)),
            _ => Ok(Value::Number(Rc::new(digits.to_owned().into()))),
        },
        Shape::Text(text) => {
            let text = text
                .unquote()
                .ok_or(TemplateProblem::Unfit("a JSON text holds half a character"))?;
            Ok(Value::Text(Rc::new(text.into_owned())))
        }
        Shape::Array => {
            let items = json.elements().map(|item| value_of(meter, item, depth + 1));
            let items = items.collect::<Outcome<_>>()?;
            Value::list(meter, items)
        }
        Shape::Object => {
            let mut members = Members::new();
            for (name, item) in json.members() {
                let name = Name::from(name.unquote().ok_or(NOT_JSON)?.into_owned());
                if members.insert(name, value_of(meter, item, depth + 1)?).is_some() {
                    return Err(TemplateProblem::Unfit(
                        "a JSON object names the same member twice",
                    ));
                }
            }
            Value::map(meter, members)
        }
    }
}

const NOT_JSON: TemplateProblem = TemplateProblem::Unfit("a text is not valid JSON");
