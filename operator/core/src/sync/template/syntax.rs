//! From source text to a small tree of our own that holds only what the language has.
//!
//! The library's parser recurses without a bound on some constructs, so its tokens are counted before it runs.
//! Everything it may produce that the language leaves out is refused here, once, and the evaluator never sees it.

use minijinja::machinery::{Span, Token, ast, parse as parse_source, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;

use super::functions::{self, Function, Test};
use super::{AtLine, MAX_NAME, MAX_NESTING, MAX_TAG_OPERATORS, Stop, TemplateProblem};

/// A statement and the line it starts in.
pub(super) struct Stmt {
    pub(super) line: u32,
    pub(super) kind: StmtKind,
}

/// What a statement does.
pub(super) enum StmtKind {
    /// Text as it stands.
    Raw(String),
    /// `{{ … }}`.
    Emit(Expr),
    /// `{% for … %}`.
    For(Box<For>),
    /// `{% if … %}`.
    If {
        condition: Expr,
        then: Vec<Stmt>,
        otherwise: Vec<Stmt>,
    },
    /// `{% with … %}`.
    With {
        bindings: Vec<(String, Expr)>,
        body: Vec<Stmt>,
    },
    /// `{% set x = … %}`.
    Set { name: String, value: Expr },
    /// `{% set x %}…{% endset %}`, or `{% filter … %}` where there is no name.
    Capture {
        name: Option<String>,
        body: Vec<Stmt>,
        filter: Option<Expr>,
    },
}

/// A loop.
pub(super) struct For {
    /// One name, or several that an element is unpacked into.
    pub(super) targets: Vec<String>,
    pub(super) unpack: bool,
    pub(super) items: Expr,
    pub(super) condition: Option<Expr>,
    pub(super) body: Vec<Stmt>,
    /// What is rendered when there is no turn at all.
    pub(super) otherwise: Vec<Stmt>,
}

/// An expression and the line it starts in.
pub(super) struct Expr {
    pub(super) line: u32,
    pub(super) kind: ExprKind,
}

/// What an expression does.
pub(super) enum ExprKind {
    Null,
    Bool(bool),
    Int(i64),
    Text(String),
    /// The text that a capture block has just rendered.
    Captured,
    Var(String),
    /// `a.name`, and `a["name"]` with a literal.
    Member(Box<Expr>, String),
    /// `a[b]`.
    Item(Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    Negate(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Concat(Box<Expr>, Box<Expr>),
    Arithmetic(Arithmetic, Box<Expr>, Box<Expr>),
    /// `a < b <= c`: each neighbouring pair must hold.
    Compare(Box<Expr>, Vec<(Comparison, Expr)>),
    Choose {
        condition: Box<Expr>,
        then: Box<Expr>,
        otherwise: Box<Expr>,
    },
    Call(&'static Function, Vec<Expr>),
    Test(&'static Test, Vec<Expr>),
    List(Vec<Expr>),
    Map(Vec<(Expr, Expr)>),
}

/// Operators on whole numbers.
#[derive(Clone, Copy)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// Operators that answer yes or no.
#[derive(Clone, Copy)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
}

/// Parses and checks `source`.
pub(super) fn parse(source: &str) -> Result<Vec<Stmt>, Stop> {
    let mut syntax = SyntaxConfig::builder();
    // What the author wrote is what comes out; a newline at the end is the author's choice.
    syntax.keep_trailing_newline(true);
    let syntax = syntax.build().map_err(|_| TemplateProblem::Syntax).at(0)?;
    check_tokens(source, &syntax)?;
    let tree = parse_source(source, "", syntax).map_err(|error| syntax_stop(&error))?;
    match &tree {
        ast::Stmt::Template(template) => statements(&template.children),
        _ => Err(TemplateProblem::Syntax).at(0),
    }
}

/// Refuses what would make the parser, or a walk over its tree, recurse too deeply.
fn check_tokens(source: &str, syntax: &SyntaxConfig) -> Result<(), Stop> {
    let (mut first, mut in_set) = (false, false);
    let (mut operators, mut brackets, mut blocks) = (0_usize, 0_usize, 0_usize);
    // An `elif` lies inside what it is the alternative to, until the whole `if` ends.
    let (mut alternatives, mut of_open_ifs) = (0_usize, Vec::new());
    for token in tokenize(source, false, syntax.clone()) {
        let (token, span) = token.map_err(|error| syntax_stop(&error))?;
        let opens_tag = std::mem::replace(&mut first, matches!(token, Token::BlockStart));
        match token {
            Token::VariableStart | Token::BlockStart => (operators, brackets, in_set) = (0, 0, false),
            Token::Ident(opening @ ("for" | "if" | "with" | "filter" | "set")) if opens_tag => {
                blocks += 1;
                in_set = opening == "set";
                if opening == "if" {
                    of_open_ifs.push(0);
                }
            }
            Token::Ident(closing @ ("endfor" | "endif" | "endwith" | "endfilter" | "endset"))
                if opens_tag =>
            {
                blocks = blocks.saturating_sub(1);
                if closing == "endif" {
                    alternatives -= of_open_ifs.pop().unwrap_or(0);
                }
            }
            Token::Ident("elif") if opens_tag => {
                alternatives += 1;
                if let Some(of_this) = of_open_ifs.last_mut() {
                    *of_this += 1;
                }
            }
            Token::Ident(name) if name.len() > MAX_NAME => {
                return Err(TemplateProblem::NameLimit).at(line_of(span));
            }
            // `{% set x = … %}` opens nothing.
            Token::Assign if in_set && brackets == 0 => {
                blocks = blocks.saturating_sub(1);
                in_set = false;
            }
            Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => {
                brackets += 1;
                operators += 1;
            }
            Token::ParenClose | Token::BracketClose | Token::BraceClose => {
                brackets = brackets.saturating_sub(1);
            }
            // These make a tree wider and not deeper.
            Token::TemplateData(_)
            | Token::VariableEnd
            | Token::BlockEnd
            | Token::Str(_)
            | Token::String(_)
            | Token::Int(_)
            | Token::Int128(_)
            | Token::Float(_)
            | Token::Comma
            | Token::Colon
            | Token::Assign => {}
            Token::Ident(word) if !matches!(word, "not" | "if" | "and" | "or" | "in" | "is") => {}
            _ => operators += 1,
        }
        if operators > MAX_TAG_OPERATORS
            || alternatives > MAX_TAG_OPERATORS
            || brackets > MAX_NESTING
            || blocks > MAX_NESTING
        {
            return Err(TemplateProblem::NestingLimit).at(line_of(span));
        }
    }
    Ok(())
}

fn syntax_stop(error: &minijinja::Error) -> Stop {
    // The library's own text may quote the source; only the line is kept.
    let line = error
        .line()
        .and_then(|line| u32::try_from(line).ok())
        .unwrap_or(0);
    Stop {
        line,
        problem: TemplateProblem::Syntax,
    }
}

fn line_of(span: Span) -> u32 {
    u32::from(span.start_line)
}

fn unsupported<T>(what: &'static str, span: Span) -> Result<T, Stop> {
    Err(TemplateProblem::Unsupported(what)).at(line_of(span))
}

fn statements(children: &[ast::Stmt<'_>]) -> Result<Vec<Stmt>, Stop> {
    children.iter().map(statement).collect()
}

fn statement(stmt: &ast::Stmt<'_>) -> Result<Stmt, Stop> {
    let (span, kind) = match stmt {
        ast::Stmt::EmitRaw(raw) => (raw.span(), StmtKind::Raw(raw.raw.to_owned())),
        ast::Stmt::EmitExpr(emit) => (emit.span(), StmtKind::Emit(expression(&emit.expr)?)),
        ast::Stmt::ForLoop(node) => (node.span(), StmtKind::For(Box::new(for_loop(node)?))),
        ast::Stmt::IfCond(node) => {
            let kind = StmtKind::If {
                condition: expression(&node.expr)?,
                then: statements(&node.true_body)?,
                otherwise: statements(&node.false_body)?,
            };
            (node.span(), kind)
        }
        ast::Stmt::WithBlock(node) => {
            let kind = StmtKind::With {
                bindings: node
                    .assignments
                    .iter()
                    .map(|(target, value)| Ok((name_of(target)?, expression(value)?)))
                    .collect::<Result<_, Stop>>()?,
                body: statements(&node.body)?,
            };
            (node.span(), kind)
        }
        ast::Stmt::Set(node) => {
            let kind = StmtKind::Set {
                name: name_of(&node.target)?,
                value: expression(&node.expr)?,
            };
            (node.span(), kind)
        }
        ast::Stmt::SetBlock(node) => {
            let kind = StmtKind::Capture {
                name: Some(name_of(&node.target)?),
                body: statements(&node.body)?,
                filter: node.filter.as_ref().map(expression).transpose()?,
            };
            (node.span(), kind)
        }
        ast::Stmt::FilterBlock(node) => {
            let kind = StmtKind::Capture {
                name: None,
                body: statements(&node.body)?,
                filter: Some(expression(&node.filter)?),
            };
            (node.span(), kind)
        }
        ast::Stmt::AutoEscape(node) => return unsupported("`autoescape`", node.span()),
        ast::Stmt::Do(node) => return unsupported("`do`", node.span()),
        ast::Stmt::Template(node) => return unsupported("a nested template", node.span()),
    };
    Ok(Stmt {
        line: line_of(span),
        kind,
    })
}

fn for_loop(node: Node<'_, ast::ForLoop<'_>>) -> Result<For, Stop> {
    if node.recursive {
        return unsupported("a recursive loop", node.span());
    }
    let (targets, unpack) = targets(&node.target)?;
    Ok(For {
        targets,
        unpack,
        items: expression(&node.iter)?,
        condition: node.filter_expr.as_ref().map(expression).transpose()?,
        body: statements(&node.body)?,
        otherwise: statements(&node.else_body)?,
    })
}

fn targets(target: &ast::Expr<'_>) -> Result<(Vec<String>, bool), Stop> {
    match target {
        ast::Expr::List(list) => Ok((list.items.iter().map(name_of).collect::<Result<_, _>>()?, true)),
        single => Ok((vec![name_of(single)?], false)),
    }
}

fn name_of(target: &ast::Expr<'_>) -> Result<String, Stop> {
    match target {
        ast::Expr::Var(var) => Ok(var.id.to_owned()),
        other => unsupported("assigning to anything but a plain name", other.span()),
    }
}

fn expression(expr: &ast::Expr<'_>) -> Result<Expr, Stop> {
    // Only a dispatch: the arms live in functions of their own, so that a deep tree needs little stack.
    let kind = match expr {
        ast::Expr::Var(var) => Ok(ExprKind::Var(var.id.to_owned())),
        ast::Expr::Const(constant) => literal(constant),
        ast::Expr::UnaryOp(node) => unary(node),
        ast::Expr::BinOp(node) => binary(node),
        ast::Expr::Compare(node) => compare(node),
        ast::Expr::IfExpr(node) => choose(node),
        ast::Expr::Filter(node) => filter(node),
        ast::Expr::Call(node) => function(node),
        ast::Expr::Test(node) => test(node),
        ast::Expr::GetAttr(node) => attribute(node),
        ast::Expr::GetItem(node) => item(node),
        ast::Expr::List(node) => expressions(&node.items).map(ExprKind::List),
        ast::Expr::Tuple(node) => expressions(&node.items).map(ExprKind::List),
        ast::Expr::Map(node) => map(node),
        ast::Expr::Slice(node) => unsupported("a slice", node.span()),
    };
    Ok(Expr {
        line: line_of(expr.span()),
        kind: kind?,
    })
}

type Node<'a, T> = &'a ast::Spanned<T>;
type Kind = Result<ExprKind, Stop>;

fn unary(node: Node<'_, ast::UnaryOp<'_>>) -> Kind {
    let inner = boxed(&node.expr)?;
    Ok(match node.op {
        ast::UnaryOpKind::Not => ExprKind::Not(inner),
        ast::UnaryOpKind::Neg => ExprKind::Negate(inner),
    })
}

fn compare(node: Node<'_, ast::Compare<'_>>) -> Kind {
    let pairs = node
        .ops
        .iter()
        .map(|pair| Ok((comparison(pair.op), expression(&pair.expr)?)));
    Ok(ExprKind::Compare(
        boxed(&node.expr)?,
        pairs.collect::<Result<_, Stop>>()?,
    ))
}

fn choose(node: Node<'_, ast::IfExpr<'_>>) -> Kind {
    let Some(otherwise) = &node.false_expr else {
        return unsupported("an inline `if` without `else`", node.span());
    };
    Ok(ExprKind::Choose {
        condition: boxed(&node.test_expr)?,
        then: boxed(&node.true_expr)?,
        otherwise: boxed(otherwise)?,
    })
}

fn filter(node: Node<'_, ast::Filter<'_>>) -> Kind {
    let line = line_of(node.span());
    let subject = match &node.expr {
        Some(subject) => expression(subject)?,
        None => Expr {
            line,
            kind: ExprKind::Captured,
        },
    };
    let mut args = vec![subject];
    args.extend(arguments(&node.args, node.span())?);
    call(node.name, args, line)
}

fn function(node: Node<'_, ast::Call<'_>>) -> Kind {
    match &node.expr {
        ast::Expr::Var(name) => call(name.id, arguments(&node.args, node.span())?, line_of(node.span())),
        _ => unsupported("a method call", node.span()),
    }
}

fn test(node: Node<'_, ast::Test<'_>>) -> Kind {
    let line = line_of(node.span());
    let mut args = vec![expression(&node.expr)?];
    args.extend(arguments(&node.args, node.span())?);
    let test = functions::test(node.name)
        .ok_or_else(|| unknown(node.name))
        .at(line)?;
    if args.len() != test.arguments {
        return Err(TemplateProblem::Arguments(test.name)).at(line);
    }
    Ok(ExprKind::Test(test, args))
}

fn attribute(node: Node<'_, ast::GetAttr<'_>>) -> Kind {
    Ok(ExprKind::Member(boxed(&node.expr)?, node.name.to_owned()))
}

fn item(node: Node<'_, ast::GetItem<'_>>) -> Kind {
    let subject = boxed(&node.expr)?;
    Ok(match expression(&node.subscript_expr)? {
        Expr {
            kind: ExprKind::Text(name),
            ..
        } => ExprKind::Member(subject, name),
        index => ExprKind::Item(subject, Box::new(index)),
    })
}

fn map(node: Node<'_, ast::Map<'_>>) -> Kind {
    Ok(ExprKind::Map(
        expressions(&node.keys)?
            .into_iter()
            .zip(expressions(&node.values)?)
            .collect(),
    ))
}

fn boxed(expr: &ast::Expr<'_>) -> Result<Box<Expr>, Stop> {
    expression(expr).map(Box::new)
}

fn expressions(items: &[ast::Expr<'_>]) -> Result<Vec<Expr>, Stop> {
    items.iter().map(expression).collect()
}

fn binary(node: Node<'_, ast::BinOp<'_>>) -> Kind {
    use ast::BinOpKind as Op;
    let operands =
        |kind: fn(Box<Expr>, Box<Expr>) -> ExprKind| Ok(kind(boxed(&node.left)?, boxed(&node.right)?));
    let compared = |op| {
        Ok(ExprKind::Compare(
            boxed(&node.left)?,
            vec![(op, expression(&node.right)?)],
        ))
    };
    let calculated = |op| Ok(ExprKind::Arithmetic(op, boxed(&node.left)?, boxed(&node.right)?));
    match node.op {
        Op::Eq => compared(Comparison::Equal),
        Op::Ne => compared(Comparison::NotEqual),
        Op::Lt => compared(Comparison::Less),
        Op::Lte => compared(Comparison::LessOrEqual),
        Op::Gt => compared(Comparison::Greater),
        Op::Gte => compared(Comparison::GreaterOrEqual),
        Op::In => compared(Comparison::In),
        Op::ScAnd => operands(ExprKind::And),
        Op::ScOr => operands(ExprKind::Or),
        Op::Concat => operands(ExprKind::Concat),
        Op::Add => calculated(Arithmetic::Add),
        Op::Sub => calculated(Arithmetic::Subtract),
        Op::Mul => calculated(Arithmetic::Multiply),
        Op::FloorDiv => calculated(Arithmetic::Divide),
        Op::Rem => calculated(Arithmetic::Remainder),
        Op::Div => unsupported("`/` (whole numbers are divided with `//`)", node.span()),
        Op::Pow => unsupported("`**`", node.span()),
    }
}

fn comparison(op: ast::CompareOpKind) -> Comparison {
    match op {
        ast::CompareOpKind::Eq => Comparison::Equal,
        ast::CompareOpKind::Ne => Comparison::NotEqual,
        ast::CompareOpKind::Lt => Comparison::Less,
        ast::CompareOpKind::Lte => Comparison::LessOrEqual,
        ast::CompareOpKind::Gt => Comparison::Greater,
        ast::CompareOpKind::Gte => Comparison::GreaterOrEqual,
        ast::CompareOpKind::In => Comparison::In,
        ast::CompareOpKind::NotIn => Comparison::NotIn,
    }
}

fn literal(constant: Node<'_, ast::Const>) -> Kind {
    let value = &constant.value;
    match value.kind() {
        ValueKind::None => Ok(ExprKind::Null),
        ValueKind::Bool => Ok(ExprKind::Bool(value.is_true())),
        ValueKind::String => Ok(ExprKind::Text(value.as_str().unwrap_or_default().to_owned())),
        ValueKind::Number if value.is_integer() => match value.as_i64() {
            Some(number) => Ok(ExprKind::Int(number)),
            None => unsupported("a whole number of more than 64 bits", constant.span()),
        },
        _ => unsupported("a number that is not whole", constant.span()),
    }
}

fn arguments(args: &[ast::CallArg<'_>], span: Span) -> Result<Vec<Expr>, Stop> {
    args.iter()
        .map(|arg| match arg {
            ast::CallArg::Pos(expr) => expression(expr),
            _ => unsupported("a named or unpacked argument", span),
        })
        .collect()
}

fn call(name: &str, args: Vec<Expr>, line: u32) -> Kind {
    let function = functions::function(name).ok_or_else(|| unknown(name)).at(line)?;
    if !function.arguments.contains(&args.len()) {
        return Err(TemplateProblem::Arguments(function.name)).at(line);
    }
    Ok(ExprKind::Call(function, args))
}

fn unknown(name: &str) -> TemplateProblem {
    TemplateProblem::UnknownFunction(name.chars().take(64).collect())
}
