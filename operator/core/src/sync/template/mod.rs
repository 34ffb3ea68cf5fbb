//! The template language: Jinja's syntax, a short list of functions, and hard bounds.
//!
//! The parser is a library's; the evaluation is ours. A general engine can build a string of 100 MB in one step and
//! leaves copies of values in memory that is never wiped. Here every step and every byte that is read or built is
//! paid for *before* it happens, from one budget for all templates of a Secret. Every buffer that a value passes
//! through is wiped, and nothing outside the given values can be reached: no clock, randomness, file, network, cluster
//! or other template.

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
use crate::shown::Shown;

/// The longest source of one template, in bytes.
pub const MAX_SOURCE: usize = 48 * 1024;
/// The longest source of all templates of one Secret, in bytes.
pub const MAX_SOURCES: usize = 256 * 1024;
/// The most output of one template, in bytes: what a Secret can hold.
pub const MAX_OUTPUT: usize = 1024 * 1024;
/// The most steps of all templates of one Secret: statements, operations and loop turns.
pub const MAX_STEPS: u32 = 200_000;
/// The most bytes that all templates of one Secret may read or build in all.
pub const MAX_WORK: usize = 32 * 1024 * 1024;
/// The longest name of a variable, function, test or member, in bytes; members with longer ones are reached by
/// `["…"]`.
pub const MAX_NAME: usize = 253;
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

/// Reads the templates of one Secret.
#[derive(Default)]
pub struct Compiler {
    /// How long their sources have been so far.
    read: usize,
}

/// The templates of one Secret at work: they share its values and one budget.
pub struct Rendering {
    given: eval::Given,
    meter: value::Meter,
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
    /// The source is over [`MAX_SOURCE`], or with those before it over [`MAX_SOURCES`].
    #[error("the source is longer than {MAX_SOURCE} bytes, or than {MAX_SOURCES} with those before it")]
    SourceLimit,
    /// A tag is over [`MAX_TAG_OPERATORS`], or something is nested deeper than [`MAX_NESTING`].
    #[error(
        "a tag has more than {MAX_TAG_OPERATORS} operators, or something is nested deeper than {MAX_NESTING}"
    )]
    NestingLimit,
    /// A name is over [`MAX_NAME`].
    #[error("a name is longer than {MAX_NAME} bytes")]
    NameLimit,
    /// Rendering takes more than [`MAX_STEPS`].
    #[error("the templates up to this one take more than {MAX_STEPS} steps")]
    StepLimit,
    /// Rendering handles more than [`MAX_WORK`].
    #[error("the templates up to this one handle more than {MAX_WORK} bytes")]
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
    #[error("`{}` is not defined", Shown::cut(.0))]
    Undefined(String),
    /// A value is of a kind that cannot be used here.
    #[error("{0}")]
    Unfit(&'static str),
}

impl Compiler {
    /// Checks `source`. `name` is what faults call it.
    pub fn compile(&mut self, name: impl Into<String>, source: &str) -> Result<Template, TemplateFault> {
        let name = name.into();
        self.read = self.read.saturating_add(source.len());
        let parsed = if source.len() > MAX_SOURCE || self.read > MAX_SOURCES {
            Err(TemplateProblem::SourceLimit).at(0)
        } else {
            syntax::parse(source)
        };
        match parsed {
            Ok(body) => Ok(Template { name, body }),
            Err(stop) => Err(stop.in_template(name)),
        }
    }
}

impl Rendering {
    /// With `values`, each reachable as `secret["name"]` and, where its name allows it, as `name`.
    #[must_use]
    pub fn new(values: SecretMap) -> Self {
        Self {
            given: eval::Given::new(values),
            meter: value::Meter::default(),
        }
    }

    /// Renders `template` with what the templates before it have left of the budget.
    pub fn render(&mut self, template: &Template) -> Result<SecretBytes, TemplateFault> {
        eval::render(&template.body, &self.given, &mut self.meter)
            .map_err(|stop| stop.in_template(template.name.clone()))
    }
}

impl TemplateProblem {
    /// Whether a bound was reached, as opposed to a mistake in the template.
    #[must_use]
    pub fn is_limit(&self) -> bool {
        matches!(
            self,
            Self::SourceLimit
                | Self::NestingLimit
                | Self::NameLimit
                | Self::StepLimit
                | Self::WorkLimit
                | Self::OutputLimit
        )
    }
}

impl fmt::Display for TemplateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "template `{}`", Shown::whole(&self.template))?;
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
