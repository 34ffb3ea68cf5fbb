//! The values a template works with, the buffers they are built in, and the budget that pays for both.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::rc::Rc;

use zeroize::Zeroizing;

use super::{MAX_NESTING, MAX_STEPS, MAX_WORK, TemplateProblem};
use crate::secret::SecretBytes;

/// The result of one operation.
pub(super) type Outcome<T> = Result<T, TemplateProblem>;

/// A value. Copies of it share one buffer, which is wiped with the last of them.
#[derive(Clone)]
pub(super) enum Value {
    /// A name or member that does not exist, with its name where the source spells it.
    Undefined(String),
    Null,
    Bool(bool),
    Int(i64),
    /// A number that is no 64-bit whole number, as it was written in JSON.
    Number(Rc<Zeroizing<String>>),
    Text(Rc<Zeroizing<String>>),
    /// Bytes that are not UTF-8.
    Bytes(Rc<SecretBytes>),
    List(Rc<List>),
    Map(Rc<Map>),
}

/// Elements, and how deep the deepest of them is.
pub(super) struct List {
    pub(super) items: Vec<Value>,
    depth: usize,
}

/// Members in a fixed order, and how deep the deepest of them is.
pub(super) struct Map {
    pub(super) members: Members,
    depth: usize,
}

/// The members of a map by their names.
pub(super) type Members = BTreeMap<Name, Value>;

/// The name of a member. It may have been made of a value, so it is wiped like one.
#[derive(PartialEq, Eq)]
pub(super) struct Name(Zeroizing<String>);

/// What the templates of one Secret may still spend.
pub(super) struct Meter {
    steps: u32,
    work: usize,
}

/// A growing text whose outgrown buffers are wiped.
#[derive(Default)]
pub(super) struct Buffer(Zeroizing<String>);

impl Default for Meter {
    fn default() -> Self {
        Self {
            steps: MAX_STEPS,
            work: MAX_WORK,
        }
    }
}

impl Meter {
    /// Pays for one step.
    pub(super) fn step(&mut self) -> Outcome<()> {
        self.steps = self.steps.checked_sub(1).ok_or(TemplateProblem::StepLimit)?;
        Ok(())
    }

    /// Pays for reading or building `bytes`; called before it is done.
    pub(super) fn work(&mut self, bytes: usize) -> Outcome<()> {
        self.work = self.work.checked_sub(bytes).ok_or(TemplateProblem::WorkLimit)?;
        Ok(())
    }
}

impl Buffer {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Zeroizing::new(String::with_capacity(bytes)))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Appends `text`, paid for by `meter`.
    pub(super) fn push(&mut self, meter: &mut Meter, text: &str) -> Outcome<()> {
        meter.work(text.len())?;
        self.reserve(text.len());
        self.0.push_str(text);
        Ok(())
    }

    pub(super) fn push_char(&mut self, meter: &mut Meter, c: char) -> Outcome<()> {
        self.push(meter, c.encode_utf8(&mut [0; 4]))
    }

    pub(super) fn into_value(self) -> Value {
        Value::Text(Rc::new(self.0))
    }

    pub(super) fn into_secret(mut self) -> SecretBytes {
        SecretBytes::from(std::mem::take(&mut *self.0))
    }

    /// Growing in place would leave the old buffer behind as it was.
    fn reserve(&mut self, more: usize) {
        let needed = self.0.len() + more;
        if needed > self.0.capacity() {
            let mut larger = Zeroizing::new(String::with_capacity(needed.max(self.0.capacity() * 2)));
            larger.push_str(&self.0);
            self.0 = larger;
        }
    }
}

impl Name {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl From<Zeroizing<String>> for Name {
    fn from(name: Zeroizing<String>) -> Self {
        Self(name)
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Self(Zeroizing::new(name.to_owned()))
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl From<SecretBytes> for Value {
    /// A text, or bytes where they are no UTF-8. Nothing is copied.
    fn from(bytes: SecretBytes) -> Self {
        match bytes.into_text() {
            Ok(text) => Self::Text(Rc::new(text)),
            Err(bytes) => Self::Bytes(Rc::new(bytes)),
        }
    }
}

impl Value {
    pub(super) fn text(meter: &mut Meter, text: &str) -> Outcome<Self> {
        let mut buffer = Buffer::with_capacity(text.len());
        buffer.push(meter, text)?;
        Ok(buffer.into_value())
    }

    pub(super) fn list(meter: &mut Meter, items: Vec<Self>) -> Outcome<Self> {
        meter.work(items.len() * size_of::<Self>())?;
        let depth = nested(items.iter())?;
        Ok(Self::List(Rc::new(List { items, depth })))
    }

    pub(super) fn map(meter: &mut Meter, members: Members) -> Outcome<Self> {
        let names: usize = members.keys().map(|name| name.as_str().len()).sum();
        // They are kept in groups with room for eleven, and with five at the least where there is more than one group.
        let room = members.len().div_ceil(5) * 11 * size_of::<(Name, Self)>();
        meter.work(names + room)?;
        let depth = nested(members.values())?;
        Ok(Self::Map(Rc::new(Map { members, depth })))
    }

    /// The map of the values that templates are given, none of which is a list or map. How large it may be is decided
    /// where the values are made.
    pub(super) fn given(members: Members) -> Self {
        Self::Map(Rc::new(Map { members, depth: 1 }))
    }

    fn depth(&self) -> usize {
        match self {
            Self::List(list) => list.depth,
            Self::Map(map) => map.depth,
            _ => 0,
        }
    }

    /// The value itself, unless it does not exist.
    pub(super) fn defined(self) -> Outcome<Self> {
        match self {
            Self::Undefined(name) => Err(TemplateProblem::Undefined(name)),
            value => Ok(value),
        }
    }

    /// The value as text: what `{{ … }}` prints. It is shared and not copied, and so free; whoever reads it pays.
    pub(super) fn to_text(&self) -> Outcome<Rc<Zeroizing<String>>> {
        let plain = |text: String| Rc::new(Zeroizing::new(text));
        match self {
            Self::Text(text) | Self::Number(text) => Ok(Rc::clone(text)),
            Self::Int(number) => Ok(plain(number.to_string())),
            Self::Bool(true) => Ok(plain("true".to_owned())),
            Self::Bool(false) => Ok(plain("false".to_owned())),
            Self::Undefined(name) => Err(TemplateProblem::Undefined(name.clone())),
            Self::Null => Err(TemplateProblem::Unfit("an empty value (none) is used as text")),
            Self::Bytes(_) => Err(TemplateProblem::Unfit(
                "bytes that are not UTF-8 are used as text; encode them with `b64encode`",
            )),
            Self::List(_) => Err(TemplateProblem::Unfit(
                "a list is used as text; use `join` or `tojson`",
            )),
            Self::Map(_) => Err(TemplateProblem::Unfit("a map is used as text; use `tojson`")),
        }
    }

    /// The text of the value, paid for by `meter`.
    pub(super) fn read(&self, meter: &mut Meter) -> Outcome<Rc<Zeroizing<String>>> {
        let text = self.to_text()?;
        meter.work(text.len())?;
        Ok(text)
    }

    /// Runs `read` on the bytes of a text or of binary data, paid for by `meter`.
    pub(super) fn with_bytes<T>(
        &self,
        meter: &mut Meter,
        read: impl FnOnce(&mut Meter, &[u8]) -> Outcome<T>,
    ) -> Outcome<T> {
        if let Self::Bytes(bytes) = self {
            meter.work(bytes.len())?;
            return read(meter, bytes.expose());
        }
        let text = self.read(meter)?;
        read(meter, text.as_bytes())
    }

    pub(super) fn as_int(&self) -> Outcome<i64> {
        match self {
            Self::Int(number) => Ok(*number),
            Self::Undefined(name) => Err(TemplateProblem::Undefined(name.clone())),
            _ => Err(TemplateProblem::Unfit(
                "a whole number is expected here; texts are joined with `~`",
            )),
        }
    }

    /// Whether it counts as true: not empty, zero, `none` or `false`.
    pub(super) fn is_true(&self, meter: &mut Meter) -> Outcome<bool> {
        Ok(match self {
            Self::Undefined(name) => return Err(TemplateProblem::Undefined(name.clone())),
            Self::Null => false,
            Self::Bool(value) => *value,
            Self::Int(number) => *number != 0,
            Self::Number(digits) => {
                meter.work(digits.len())?;
                digits.bytes().any(|b| matches!(b, b'1'..=b'9'))
            }
            Self::Text(text) => !text.is_empty(),
            Self::Bytes(bytes) => !bytes.is_empty(),
            Self::List(list) => !list.items.is_empty(),
            Self::Map(map) => !map.members.is_empty(),
        })
    }

    /// The member `name` of a map; `None` for a member that does not exist.
    pub(super) fn member(&self, name: &str, meter: &mut Meter) -> Outcome<Option<Self>> {
        meter.work(name.len())?;
        match self {
            Self::Map(map) => Ok(map.members.get(name).cloned()),
            Self::Undefined(name) => Err(TemplateProblem::Undefined(name.clone())),
            _ => Err(TemplateProblem::Unfit(
                "a member is asked of a value that is not a map; see `fromjson`",
            )),
        }
    }

    /// The element at `index` of a list; a negative one counts from the end.
    pub(super) fn element(&self, index: i64) -> Outcome<Option<Self>> {
        match self {
            Self::List(list) => {
                let length = i64::try_from(list.items.len()).unwrap_or(i64::MAX);
                let index = if index < 0 {
                    index.saturating_add(length)
                } else {
                    index
                };
                Ok(usize::try_from(index)
                    .ok()
                    .and_then(|index| list.items.get(index))
                    .cloned())
            }
            Self::Undefined(name) => Err(TemplateProblem::Undefined(name.clone())),
            _ => Err(TemplateProblem::Unfit(
                "an element is asked of a value that is not a list",
            )),
        }
    }

    /// What a loop walks over: elements of a list, names of a map in their order.
    pub(super) fn elements(&self, meter: &mut Meter) -> Outcome<Vec<Self>> {
        match self {
            Self::List(list) => {
                meter.work(list.items.len() * size_of::<Self>())?;
                Ok(list.items.clone())
            }
            Self::Map(map) => {
                let names = map.members.keys();
                names.map(|name| Self::text(meter, name.as_str())).collect()
            }
            Self::Undefined(name) => Err(TemplateProblem::Undefined(name.clone())),
            _ => Err(TemplateProblem::Unfit(
                "a list or map is expected here; see `split`, `lines` and `fromjson`",
            )),
        }
    }

    /// Whether both are the same. A text never equals a number.
    pub(super) fn equals(&self, other: &Self, meter: &mut Meter) -> Outcome<bool> {
        meter.step()?;
        Ok(match (self, other) {
            (Self::Undefined(name), _) | (_, Self::Undefined(name)) => {
                return Err(TemplateProblem::Undefined(name.clone()));
            }
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Number(a), Self::Number(b)) | (Self::Text(a), Self::Text(b)) => {
                meter.work(a.len().min(b.len()))?;
                a == b
            }
            (Self::Bytes(a), Self::Bytes(b)) => {
                meter.work(a.len().min(b.len()))?;
                a.same_as(b.expose())
            }
            (Self::List(a), Self::List(b)) => {
                if a.items.len() != b.items.len() {
                    return Ok(false);
                }
                for (a, b) in a.items.iter().zip(&b.items) {
                    if !a.equals(b, meter)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Self::Map(a), Self::Map(b)) => {
                if a.members.len() != b.members.len() {
                    return Ok(false);
                }
                for ((name, a), (other, b)) in a.members.iter().zip(&b.members) {
                    meter.work(name.as_str().len())?;
                    if name != other || !a.equals(b, meter)? {
                        return Ok(false);
                    }
                }
                true
            }
            _ => false,
        })
    }

    /// The order of two numbers or two texts.
    pub(super) fn order(&self, other: &Self, meter: &mut Meter) -> Outcome<Ordering> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Ok(a.cmp(b)),
            (Self::Text(a), Self::Text(b)) => {
                meter.work(a.len().min(b.len()))?;
                Ok(a.cmp(b))
            }
            (Self::Undefined(name), _) | (_, Self::Undefined(name)) => {
                Err(TemplateProblem::Undefined(name.clone()))
            }
            _ => Err(TemplateProblem::Unfit(
                "only two whole numbers or two texts have an order",
            )),
        }
    }

    /// Whether it holds `part`: a text its piece, a list its element, a map its member name.
    pub(super) fn contains(&self, part: &Self, meter: &mut Meter) -> Outcome<bool> {
        match self {
            Self::List(list) => {
                for item in &list.items {
                    if item.equals(part, meter)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Self::Map(map) => Ok(map.members.contains_key(part.read(meter)?.as_str())),
            Self::Text(text) => {
                meter.work(text.len())?;
                Ok(text.contains(part.read(meter)?.as_str()))
            }
            Self::Undefined(name) => Err(TemplateProblem::Undefined(name.clone())),
            _ => Err(TemplateProblem::Unfit(
                "`in` needs a text, a list or a map on its right",
            )),
        }
    }
}

fn nested<'a>(items: impl Iterator<Item = &'a Value>) -> Outcome<usize> {
    let depth = 1 + items.map(Value::depth).max().unwrap_or(0);
    if depth > MAX_NESTING {
        Err(TemplateProblem::NestingLimit)
    } else {
        Ok(depth)
    }
}
