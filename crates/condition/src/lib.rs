//! Conditions that resources hold: routing rules of subscriptions, trips of
//! circuit breakers. They are written in the Common Expression Language with
//! its standard library: <https://github.com/google/cel-spec>.
//!
//! A condition is checked when its resource is loaded, and its evaluation ends
//! within a bounded time, whatever the data that it is evaluated on.

mod check;
mod cost;
mod value;

use std::sync::{Arc, LazyLock, Mutex};

use cel::{Context, Env, ExecutionError, IdedExpr};

pub use cel::Value;
pub use value::{of_json, text};

use cost::{Patterns, Run};

/// Why a condition cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error(
        "{0:?}…: at most {most} punctuation characters and {nesting} nested brackets are allowed",
        most = check::PUNCTUATION,
        nesting = check::NESTING
    )]
    TooLong(String),
    #[error("{0}")]
    Syntax(String),
    #[error("undeclared name '{0}'")]
    Name(String),
    #[error("undeclared function '{0}'")]
    Function(String),
    #[error("function '{name}' cannot be called {how}")]
    Arguments { name: String, how: String },
    #[error("undeclared type '{0}'")]
    Type(String),
    #[error("invalid regular expression '{pattern}': {cause}")]
    Pattern { pattern: String, cause: String },
}

/// Why a condition cannot be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("no such key: {0}")]
    NoSuchKey(String),
    #[error("the result of match expression {0:?} was not a boolean")]
    NotBoolean(String),
    #[error("the condition takes too long on this data: it is stopped after {0}")]
    TooExpensive(&'static str),
    #[error("{0}")]
    Other(String),
}

/// A condition that was checked.
#[derive(Debug)]
pub struct Condition {
    text: String,
    expression: IdedExpr,
    /// Regular expressions that stand in it.
    patterns: Arc<Patterns>,
    /// Nodes outside of loops.
    nodes: u64,
}

static ENVIRONMENT: LazyLock<Arc<Env>> =
    LazyLock::new(|| Arc::new(Env::stdlib().with_optional_support(false)));

impl Condition {
    /// Checks a condition over variables of these names.
    pub fn compile(text: &str, variables: &[&str]) -> Result<Self, Invalid> {
        check::length(text)?;
        let mut expression = ENVIRONMENT
            .parser()
            .parse(text)
            .map_err(|e| Invalid::Syntax(e.to_string()))?;
        check::names(&expression, variables, ENVIRONMENT.types())?;
        let mut patterns = Patterns::default();
        let nodes = cost::meter(&mut expression, &mut patterns)?;
        Ok(Self {
            text: text.to_owned(),
            expression,
            patterns: Arc::new(patterns),
            nodes,
        })
    }
}

/// What conditions are evaluated on. All that are evaluated on it together have
/// a limit of steps and of processor time.
pub struct Scope {
    context: Context<'static, 'static>,
    run: Arc<Mutex<Run>>,
}

impl Scope {
    /// Variables with their values, which came from about `size` bytes.
    pub fn new<'a>(variables: impl IntoIterator<Item = (&'a str, Value)>, size: usize) -> Self {
        let mut context = Context::with_env(ENVIRONMENT.clone());
        for (name, value) in variables {
            context.add_variable_from_value(name, value);
        }
        let run = Arc::new(Mutex::new(Run::new(size)));
        cost::register(&mut context, &run);
        Self { context, run }
    }

    /// Whether the condition holds.
    pub fn holds(&self, condition: &Condition) -> Result<bool, Error> {
        let run = || self.run.lock().unwrap_or_else(|e| e.into_inner());
        let begun = run().begin(condition.nodes, &condition.patterns);
        let result = begun.and_then(|()| Value::resolve(&condition.expression, &self.context));
        match result {
            Ok(Value::Bool(answer)) => Ok(answer),
            Ok(_) => Err(Error::NotBoolean(condition.text.clone())),
            Err(error) => Err(match (run().exhausted(), error) {
                (Some(limit), _) => Error::TooExpensive(limit),
                (None, ExecutionError::NoSuchKey(key)) => Error::NoSuchKey(key.to_string()),
                (None, error) => Error::Other(error.to_string()),
            }),
        }
    }
}
