//! The template language: Jinja's syntax, a short list of functions, and hard bounds.
//!
//! The parser is a library's; the evaluation is ours. A general engine can build a string of 100 MB in one step and
//! leaves copies of values in memory that is never wiped. Here every step and every byte that is read or built is
//! paid for from a budget *before* it happens, every buffer is wiped, and nothing outside the given values can be
//! reached: no clock, randomness, file, network, cluster or other template.

mod eval;
mod functions;
mod syntax;
mod value;

#[cfg(test)]
mod tests;

use std::fmt;

use crate::fault::{Class, Fault};
use crate::reason::Reason;
use crate::secret::{SecretBytes, SecretMap};

/// The longest source of one template, in bytes.
pub const MAX_SOURCE: usize = 48 * 1024;
/// The most output of one template, in bytes: what a Secret can hold.
pub const MAX_OUTPUT: usize = 1024 * 1024;
/// The most steps of one rendering: statements, operations and loop turns.
pub const MAX_STEPS: u32 = 200_000;
/// The most bytes that one rendering may read or build in all.
pub const MAX_WORK: usize = 32 * 1024 * 1024;
/// The most operators, functions and brackets between one pair of delimiters.
pub const MAX_TAG_OPERATORS: usize = 100;
/// The deepest nesting of statements, of brackets, and of lists and maps.
pub const MAX_NESTING: usize = 20;
/// The longest list that `range` makes.
pub const MAX_RANGE: i64 = 10_000;

/// Every function of the language with one line about it, in the order of the reference page. Each can be written
/// `f(x, y)` or `x|f(y)`.
pub const FUNCTIONS: &[(&str, &str)] = &functions::DOCUMENTATION;

/// Every test of the language (`x is …`) with one line about it.
pub const TESTS: &[(&str, &str)] = &functions::TEST_DOCUMENTATION;

/// A template whose syntax and names have been checked.
pub struct Template {
    name: String,
    body: Vec<syntax::Stmt>,
}

/// Why a template was refused or stopped. Names the template, the line and the kind of problem, never a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateFault {
    /// Which template, for example the key it makes.
    pub template: String,
    /// The line in its source, counted from 1; 0 where no line can be named.
    pub line: u32,
    /// What is wrong.
    pub problem: TemplateProblem,
}

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateProblem {
    /// The source is over [`MAX_SOURCE`].
    #[error("the source is longer than {MAX_SOURCE} bytes")]
    SourceLimit,
    /// A tag is over [`MAX_TAG_OPERATORS`], or something is nested deeper than [`MAX_NESTING`].
    #[error(
        "a tag has more than {MAX_TAG_OPERATORS} operators, or something is nested deeper than {MAX_NESTING}"
    )]
    NestingLimit,
    /// Rendering takes more than [`MAX_STEPS`].
    #[error("rendering takes more than {MAX_STEPS} steps")]
    StepLimit,
    /// Rendering handles more than [`MAX_WORK`].
    #[error("rendering handles more than {MAX_WORK} bytes")]
    WorkLimit,
    /// The output, or a list made by `range`, is too large.
    #[error("the output is larger than {MAX_OUTPUT} bytes, or a range is longer than {MAX_RANGE}")]
    OutputLimit,
    /// The parser does not understand the source.
    #[error("the syntax is not understood; there are no macros, includes, imports or blocks")]
    Syntax,
    /// The source uses something that the language leaves out.
    #[error("{0} is not part of the template language")]
    Unsupported(&'static str),
    /// The source names a function or test that is not on the list.
    #[error("there is no function or test `{0}`")]
    UnknownFunction(String),
    /// A function is called with the wrong number of arguments.
    #[error("`{0}` takes another number of arguments")]
    Arguments(&'static str),
    /// A name or member does not exist.
    #[error("`{0}` is not defined")]
    Undefined(String),
    /// A value is of a kind that cannot be used here.
    #[error("{0}")]
    Unfit(&'static str),
}

impl Template {
    /// Checks `source`. `name` is what faults call it.
    pub fn compile(name: impl Into<String>, source: &str) -> Result<Self, TemplateFault> {
        let name = name.into();
        match syntax::parse(source) {
            Ok(body) => Ok(Self { name, body }),
            Err(stop) => Err(stop.in_template(name)),
        }
    }

    /// Renders with `values`, each reachable as `secret["name"]` and, where its name allows it, as `name`.
    pub fn render(&self, values: &SecretMap) -> Result<SecretBytes, TemplateFault> {
        eval::render(&self.body, values).map_err(|stop| stop.in_template(self.name.clone()))
    }
}

impl TemplateProblem {
    /// Whether a bound was reached, as opposed to a mistake in the template.
    #[must_use]
    pub fn is_limit(&self) -> bool {
        matches!(
            self,
            Self::SourceLimit | Self::NestingLimit | Self::StepLimit | Self::WorkLimit | Self::OutputLimit
        )
    }
}

impl fmt::Display for TemplateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "template `{}`", self.template)?;
        if self.line > 0 {
            write!(f, ", line {}", self.line)?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for TemplateFault {}

impl From<TemplateFault> for Fault {
    fn from(fault: TemplateFault) -> Self {
        let (reason, advice) = if fault.problem.is_limit() {
            (
                Reason::TemplateLimit,
                "make the template smaller or split it over several keys",
            )
        } else {
            (Reason::TemplateFailed, "correct the template")
        };
        Self::new(Class::Permanent, reason, fault.to_string()).advise(advice)
    }
}

/// A problem with the line where it was met; what the inner modules return.
struct Stop {
    line: u32,
    problem: TemplateProblem,
}

impl Stop {
    fn in_template(self, template: String) -> TemplateFault {
        TemplateFault {
            template,
            line: self.line,
            problem: self.problem,
        }
    }
}

/// Adds a line to a problem.
trait AtLine<T> {
    fn at(self, line: u32) -> Result<T, Stop>;
}

impl<T> AtLine<T> for Result<T, TemplateProblem> {
    fn at(self, line: u32) -> Result<T, Stop> {
        self.map_err(|problem| Stop { line, problem })
    }
}
