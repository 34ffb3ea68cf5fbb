//! Walks the tree. Each statement, operation and loop turn is a step; each byte that appears is paid for.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::functions::{Function, Test};
use super::syntax::{Arithmetic, Comparison, Expr, ExprKind, For, Stmt, StmtKind};
use super::value::{Buffer, Members, Meter, Name, Outcome, Value};
use super::{AtLine, MAX_OUTPUT, Stop, TemplateProblem};
use crate::secret::{SecretBytes, SecretMap};

/// The values that templates are given, by name, and all of them under the name `secret`.
pub(super) struct Given(BTreeMap<String, Value>);

impl Given {
    pub(super) fn new(values: SecretMap) -> Self {
        let values = values.into_iter().map(|(name, value)| (name, Value::from(value)));
        let mut names: BTreeMap<String, Value> = values.collect();
        let members = names
            .iter()
            .map(|(name, value)| (name.as_str().into(), value.clone()));
        let all = Value::given(members.collect());
        names.insert("secret".to_owned(), all);
        Self(names)
    }
}

/// Renders `body` with the values in `given`.
pub(super) fn render(body: &[Stmt], given: &Given, meter: &mut Meter) -> Result<SecretBytes, Stop> {
    let mut run = Run {
        meter,
        given,
        scopes: vec![Scope::default()],
        captured: Vec::new(),
    };
    let mut out = Buffer::default();
    run.block(body, &mut out)?;
    Ok(out.into_secret())
}

/// One walk over the tree of one template, whose names it borrows.
struct Run<'a> {
    meter: &'a mut Meter,
    given: &'a Given,
    /// Names by scope, the innermost last.
    scopes: Vec<Scope<'a>>,
    /// Texts of the capture blocks whose filters are being applied.
    captured: Vec<Value>,
}

#[derive(Default)]
struct Scope<'a> {
    names: BTreeMap<&'a str, Value>,
    turn: Option<Turn>,
}

/// Where a loop is.
#[derive(Clone, Copy)]
struct Turn {
    index: i64,
    length: i64,
}

impl<'a> Run<'a> {
    fn block(&mut self, body: &'a [Stmt], out: &mut Buffer) -> Result<(), Stop> {
        body.iter().try_for_each(|stmt| self.statement(stmt, out))
    }

    fn statement(&mut self, stmt: &'a Stmt, out: &mut Buffer) -> Result<(), Stop> {
        let line = stmt.line;
        self.meter.step().at(line)?;
        match &stmt.kind {
            StmtKind::Raw(text) => self.emit(text, out).at(line),
            StmtKind::Emit(expr) => {
                let value = self.eval(expr)?;
                let text = value.to_text().at(expr.line)?;
                self.emit(&text, out).at(expr.line)
            }
            StmtKind::If {
                condition,
                then,
                otherwise,
            } => {
                if self.condition(condition)? {
                    self.block(then, out)
                } else {
                    self.block(otherwise, out)
                }
            }
            StmtKind::For(node) => self.each(node, out),
            StmtKind::With { bindings, body } => {
                let mut scope = Scope::default();
                for (name, value) in bindings {
                    let bound = self.eval(value)?.defined().at(value.line)?;
                    scope.names.insert(name, bound);
                }
                self.scoped(scope, |run| run.block(body, out))
            }
            StmtKind::Set { name, value } => {
                let bound = self.eval(value)?.defined().at(value.line)?;
                self.bind(name, bound);
                Ok(())
            }
            StmtKind::Capture { name, body, filter } => {
                let mut text = Buffer::default();
                self.scoped(Scope::default(), |run| run.block(body, &mut text))?;
                let mut value = text.into_value();
                if let Some(filter) = filter {
                    self.captured.push(value);
                    value = self.eval(filter)?;
                    self.captured.pop();
                }
                match name {
                    Some(name) => {
                        self.bind(name, value);
                        Ok(())
                    }
                    None => value.to_text().and_then(|text| self.emit(&text, out)).at(line),
                }
            }
        }
    }

    fn each(&mut self, node: &'a For, out: &mut Buffer) -> Result<(), Stop> {
        let line = node.items.line;
        let mut items = self.eval(&node.items)?.elements(self.meter).at(line)?;
        if let Some(condition) = &node.condition {
            items = self.wanted(node, condition, items)?;
        }
        if items.is_empty() {
            return self.block(&node.otherwise, out);
        }
        let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
        for (item, index) in items.into_iter().zip(0..) {
            let scope = Scope {
                names: self.unpack(node, item).at(line)?,
                turn: Some(Turn { index, length }),
            };
            self.scoped(scope, |run| run.block(&node.body, out))?;
        }
        Ok(())
    }

    /// Those of `items` for which the loop's condition holds.
    fn wanted(&mut self, node: &'a For, condition: &'a Expr, items: Vec<Value>) -> Result<Vec<Value>, Stop> {
        let mut wanted = Vec::new();
        for item in items {
            let scope = Scope {
                names: self.unpack(node, item.clone()).at(node.items.line)?,
                turn: None,
            };
            if self.scoped(scope, |run| run.condition(condition))? {
                wanted.push(item);
            }
        }
        Ok(wanted)
    }

    /// The names of one turn.
    fn unpack(&mut self, node: &'a For, item: Value) -> Outcome<BTreeMap<&'a str, Value>> {
        self.meter.step()?;
        let targets = node.targets.iter().map(String::as_str);
        if !node.unpack {
            return Ok(targets.zip([item]).collect());
        }
        let parts = item.elements(self.meter)?;
        if parts.len() != node.targets.len() {
            return Err(TemplateProblem::Unfit(
                "an element has another number of parts than the loop has names",
            ));
        }
        Ok(targets.zip(parts).collect())
    }

    fn scoped<T>(
        &mut self,
        scope: Scope<'a>,
        work: impl FnOnce(&mut Self) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        self.scopes.push(scope);
        let result = work(self);
        self.scopes.pop();
        result
    }

    fn bind(&mut self, name: &'a str, value: Value) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.names.insert(name, value);
        }
    }

    fn emit(&mut self, text: &str, out: &mut Buffer) -> Outcome<()> {
        if out.len() + text.len() > MAX_OUTPUT {
            return Err(TemplateProblem::OutputLimit);
        }
        out.push(self.meter, text)
    }

    fn condition(&mut self, expr: &Expr) -> Result<bool, Stop> {
        self.eval(expr)?.is_true(self.meter).at(expr.line)
    }

    /// Only a dispatch, like the compiler's, so that a deep tree needs little stack.
    fn eval(&mut self, expr: &Expr) -> Result<Value, Stop> {
        let line = expr.line;
        self.meter.step().at(line)?;
        match &expr.kind {
            ExprKind::Null => Ok(Value::Null),
            ExprKind::Bool(value) => Ok(Value::Bool(*value)),
            ExprKind::Int(number) => Ok(Value::Int(*number)),
            ExprKind::Text(text) => Value::text(self.meter, text).at(line),
            ExprKind::Captured => self
                .captured
                .last()
                .cloned()
                .ok_or(TemplateProblem::Syntax)
                .at(line),
            ExprKind::Var(name) => self.variable(name).at(line),
            ExprKind::Member(subject, name) => self.member(subject, name, line),
            ExprKind::Item(subject, index) => self.item(subject, index),
            ExprKind::Not(inner) => self.condition(inner).map(|holds| Value::Bool(!holds)),
            ExprKind::Negate(inner) => self.negate(inner),
            ExprKind::And(left, right) => self.either(left, right, false),
            ExprKind::Or(left, right) => self.either(left, right, true),
            ExprKind::Concat(left, right) => self.concat(left, right),
            ExprKind::Arithmetic(op, left, right) => self.calculate(*op, left, right),
            ExprKind::Compare(first, pairs) => self.compare(first, pairs),
            ExprKind::Choose {
                condition,
                then,
                otherwise,
            } => self.choose(condition, then, otherwise),
            ExprKind::Call(function, args) => self.call(function, args, line),
            ExprKind::Test(test, args) => self.test(test, args, line),
            ExprKind::List(items) => self.list(items, line),
            ExprKind::Map(pairs) => self.map(pairs, line),
        }
    }

    fn member(&mut self, subject: &Expr, name: &str, line: u32) -> Result<Value, Stop> {
        let found = self.eval(subject)?.member(name, self.meter).at(line)?;
        Ok(found.unwrap_or_else(|| Value::Undefined(name.to_owned())))
    }

    fn negate(&mut self, inner: &Expr) -> Result<Value, Stop> {
        let number = self.eval(inner)?.as_int().at(inner.line)?;
        number
            .checked_neg()
            .map(Value::Int)
            .ok_or(OVERFLOW)
            .at(inner.line)
    }

    /// `left` where its truth is `decisive`, and otherwise `right`.
    fn either(&mut self, left: &Expr, right: &Expr, decisive: bool) -> Result<Value, Stop> {
        let value = self.eval(left)?;
        if value.is_true(self.meter).at(left.line)? == decisive {
            Ok(value)
        } else {
            self.eval(right)
        }
    }

    fn calculate(&mut self, op: Arithmetic, left: &Expr, right: &Expr) -> Result<Value, Stop> {
        let first = self.eval(left)?.as_int().at(left.line)?;
        let second = self.eval(right)?.as_int().at(right.line)?;
        arithmetic(op, first, second)
            .map(Value::Int)
            .ok_or(OVERFLOW)
            .at(left.line)
    }

    fn choose(&mut self, condition: &Expr, then: &Expr, otherwise: &Expr) -> Result<Value, Stop> {
        if self.condition(condition)? {
            self.eval(then)
        } else {
            self.eval(otherwise)
        }
    }

    fn call(&mut self, function: &Function, args: &[Expr], line: u32) -> Result<Value, Stop> {
        let args = self.arguments(args, function.takes_undefined)?;
        (function.run)(self.meter, &args).at(line)
    }

    fn test(&mut self, test: &Test, args: &[Expr], line: u32) -> Result<Value, Stop> {
        let args = self.arguments(args, test.takes_undefined)?;
        (test.run)(self.meter, &args).map(Value::Bool).at(line)
    }

    fn list(&mut self, items: &[Expr], line: u32) -> Result<Value, Stop> {
        let items = self.arguments(items, false)?;
        Value::list(self.meter, items).at(line)
    }

    fn map(&mut self, pairs: &[(Expr, Expr)], line: u32) -> Result<Value, Stop> {
        let mut members = Members::new();
        for (name, value) in pairs {
            let key = self.eval(name)?.read(self.meter).at(name.line)?;
            let value = self.eval(value)?.defined().at(value.line)?;
            members.insert(Name::from(key.as_str()), value);
        }
        Value::map(self.meter, members).at(line)
    }

    fn arguments(&mut self, args: &[Expr], first_may_be_undefined: bool) -> Result<Vec<Value>, Stop> {
        let mut values = Vec::with_capacity(args.len());
        for (index, arg) in args.iter().enumerate() {
            let value = self.eval(arg)?;
            let lenient = first_may_be_undefined && index == 0;
            values.push(if lenient {
                value
            } else {
                value.defined().at(arg.line)?
            });
        }
        Ok(values)
    }

    fn variable(&mut self, name: &str) -> Outcome<Value> {
        for scope in self.scopes.iter().rev() {
            if let Some(value) = scope.names.get(name) {
                return Ok(value.clone());
            }
            if let (Some(turn), "loop") = (scope.turn, name) {
                return turn.as_value(self.meter);
            }
        }
        let given = self.given.0.get(name).cloned();
        Ok(given.unwrap_or_else(|| Value::Undefined(name.to_owned())))
    }

    fn item(&mut self, subject: &Expr, index: &Expr) -> Result<Value, Stop> {
        let (subject, line) = (self.eval(subject)?, index.line);
        // The name may be a value here, so it is not part of what is reported.
        let missing = || Value::Undefined("the member or element in brackets".to_owned());
        let found = match self.eval(index)?.defined().at(line)? {
            Value::Int(index) => subject.element(index),
            name => name.to_text().and_then(|name| subject.member(&name, self.meter)),
        };
        Ok(found.at(line)?.unwrap_or_else(missing))
    }

    fn concat(&mut self, left: &Expr, right: &Expr) -> Result<Value, Stop> {
        let first = self.eval(left)?.to_text().at(left.line)?;
        let second = self.eval(right)?.to_text().at(right.line)?;
        let mut joined = Buffer::default();
        joined.push(self.meter, &first).at(left.line)?;
        joined.push(self.meter, &second).at(right.line)?;
        Ok(joined.into_value())
    }

    fn compare(&mut self, first: &Expr, pairs: &[(Comparison, Expr)]) -> Result<Value, Stop> {
        let mut left = self.eval(first)?;
        for (comparison, expr) in pairs {
            let right = self.eval(expr)?;
            if !holds(*comparison, &left, &right, self.meter).at(expr.line)? {
                return Ok(Value::Bool(false));
            }
            left = right;
        }
        Ok(Value::Bool(true))
    }
}

impl Turn {
    fn as_value(self, meter: &mut Meter) -> Outcome<Value> {
        let members = [
            ("index", Value::Int(self.index + 1)),
            ("index0", Value::Int(self.index)),
            ("first", Value::Bool(self.index == 0)),
            ("last", Value::Bool(self.index + 1 == self.length)),
            ("length", Value::Int(self.length)),
        ];
        Value::map(
            meter,
            members
                .into_iter()
                .map(|(name, value)| (name.into(), value))
                .collect(),
        )
    }
}

const OVERFLOW: TemplateProblem =
    TemplateProblem::Unfit("a calculation leaves the range of whole numbers or divides by zero");

fn arithmetic(op: Arithmetic, left: i64, right: i64) -> Option<i64> {
    match op {
        Arithmetic::Add => left.checked_add(right),
        Arithmetic::Subtract => left.checked_sub(right),
        Arithmetic::Multiply => left.checked_mul(right),
        Arithmetic::Divide => left.checked_div_euclid(right),
        Arithmetic::Remainder => left.checked_rem_euclid(right),
    }
}

fn holds(comparison: Comparison, left: &Value, right: &Value, meter: &mut Meter) -> Outcome<bool> {
    Ok(match comparison {
        Comparison::Equal => left.equals(right, meter)?,
        Comparison::NotEqual => !left.equals(right, meter)?,
        Comparison::Less => left.order(right, meter)? == Ordering::Less,
        Comparison::LessOrEqual => left.order(right, meter)? != Ordering::Greater,
        Comparison::Greater => left.order(right, meter)? == Ordering::Greater,
        Comparison::GreaterOrEqual => left.order(right, meter)? != Ordering::Less,
        Comparison::In => right.contains(left, meter)?,
        Comparison::NotIn => !right.contains(left, meter)?,
    })
}
