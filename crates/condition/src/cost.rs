//! Limits of the work of an evaluation. Events may come from anyone and have long
//! lists, and conditions run on threads that serve many connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue, operators as op};
use cel::common::types::{CelBool, CelInt, CelString};
use cel::common::value::CowVal;
use cel::context::Context;
use cel::{ExecutionError, FunctionContext, IdedExpr};
use regex::{Regex, RegexBuilder};
use rustix::time::{ClockId, clock_gettime};

use crate::Invalid;

/// Nodes of trees that may be visited in loops for one set of data. Each is
/// evaluated in well below a microsecond, unless it goes over long data.
const NODES: u64 = 200_000;
/// Bytes that a node goes over in about the time that another one takes.
const BYTES_PER_NODE: usize = 2048;
/// Processor time for one set of data.
const TIME: Duration = Duration::from_millis(50);
/// Nodes between two looks at the clock.
const STRIDE: u64 = 512;
/// Text that a regular expression is tried on, and memory of one.
const LONGEST_TEXT: usize = 64 << 10;
const PATTERN_SIZE: usize = 256 << 10;
/// Nodes that a match counts for per kilobyte, and the reading of a pattern
/// that comes with the data.
const MATCH: u64 = 100;
const READING: u64 = 5_000;

const STEPS: &str = "200,000 steps";
const PROCESSOR: &str = "50 ms of processor time";
const CHARGE: &str = "@charge";
const MATCHES: &str = "@matches";

/// Regular expressions that stand in a condition, by their text.
pub type Patterns = HashMap<String, Regex>;

/// Puts a counter into each loop, and returns how many nodes there are outside of
/// loops. Regular expressions are compiled once.
pub fn meter(expression: &mut IdedExpr, patterns: &mut Patterns) -> Result<u64, Invalid> {
    let mut nodes = 1;
    match &mut expression.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
        Expr::Select(select) => nodes += meter(&mut select.operand, patterns)?,
        Expr::Call(call) => {
            if call.func_name == "matches" {
                call.func_name = MATCHES.to_owned();
                if let Some(target) = call.target.take() {
                    call.args.insert(0, *target);
                }
                if let Some(Expr::Literal(LiteralValue::String(text))) =
                    call.args.last().map(|last| &last.expr)
                {
                    let text = text.inner().to_owned();
                    let pattern = pattern(&text).map_err(|cause| Invalid::Pattern {
                        pattern: text.clone(),
                        cause,
                    })?;
                    patterns.insert(text, pattern);
                }
            }
            for argument in call
                .target
                .iter_mut()
                .map(AsMut::as_mut)
                .chain(&mut call.args)
            {
                nodes += meter(argument, patterns)?;
            }
        }
        Expr::List(list) => {
            for element in &mut list.elements {
                nodes += meter(element, patterns)?;
            }
        }
        Expr::Map(map) => {
            for entry in &mut map.entries {
                nodes += entry_nodes(&mut entry.expr, patterns)?;
            }
        }
        Expr::Struct(made) => {
            for entry in &mut made.entries {
                nodes += entry_nodes(&mut entry.expr, patterns)?;
            }
        }
        Expr::Comprehension(comprehension) => {
            nodes += meter(&mut comprehension.iter_range, patterns)?;
            nodes += meter(&mut comprehension.accu_init, patterns)?;
            nodes += meter(&mut comprehension.result, patterns)?;
            let body = meter(&mut comprehension.loop_cond, patterns)?
                + meter(&mut comprehension.loop_step, patterns)?;
            // An error in the step of `exists` or `all` does not end the loop,
            // one in its condition does. Loops that build lists are fast only
            // as long as their condition is a constant.
            let counted = if matches!(comprehension.loop_cond.expr, Expr::Literal(_)) {
                counted_part(&mut comprehension.loop_step)
            } else {
                None
            };
            charge(counted.unwrap_or(&mut comprehension.loop_cond), body);
        }
    }
    Ok(nodes)
}

fn entry_nodes(entry: &mut EntryExpr, patterns: &mut Patterns) -> Result<u64, Invalid> {
    match entry {
        EntryExpr::StructField(field) => meter(&mut field.value, patterns),
        EntryExpr::MapEntry(entry) => {
            Ok(meter(&mut entry.key, patterns)? + meter(&mut entry.value, patterns)?)
        }
    }
}

/// The part of a step that is evaluated for every item: the condition, or the
/// new element.
fn counted_part(step: &mut IdedExpr) -> Option<&mut IdedExpr> {
    let Expr::Call(call) = &mut step.expr else {
        return None;
    };
    match call.func_name.as_str() {
        op::CONDITIONAL => call.args.first_mut(),
        op::ADD => match &mut call.args.last_mut()?.expr {
            Expr::List(list) => list.elements.first_mut(),
            _ => None,
        },
        _ => None,
    }
}

fn charge(part: &mut IdedExpr, nodes: u64) {
    let literal = |expr| IdedExpr { id: part.id, expr };
    let nodes = CelInt::from(i64::try_from(nodes).unwrap_or(i64::MAX));
    let nodes = literal(Expr::Literal(LiteralValue::Int(nodes)));
    let id = part.id;
    let args = vec![nodes, std::mem::take(part)];
    let expr = Expr::Call(CallExpr {
        func_name: CHARGE.to_owned(),
        target: None,
        args,
    });
    *part = IdedExpr { id, expr };
}

/// Evaluations on one set of data, which share what they may spend.
#[derive(Debug)]
pub struct Run {
    left: u64,
    /// What a node counts for where it goes over all of the data.
    weight: u64,
    until_clock: u64,
    started: Duration,
    exhausted: Option<&'static str>,
    /// Those of the present condition.
    patterns: Arc<Patterns>,
}

impl Run {
    /// On data of about `size` bytes.
    pub fn new(size: usize) -> Self {
        Self {
            left: NODES,
            weight: 1 + (size / BYTES_PER_NODE) as u64,
            until_clock: STRIDE,
            started: processor_time(),
            exhausted: None,
            patterns: Arc::default(),
        }
    }

    /// Begins with a condition that has `nodes` outside of loops. Fails at once
    /// where even a pass without loops would be too much.
    pub fn begin(&mut self, nodes: u64, patterns: &Arc<Patterns>) -> Result<(), ExecutionError> {
        self.patterns = patterns.clone();
        if nodes.saturating_mul(self.weight) > NODES {
            self.exhausted = Some(STEPS);
        }
        self.spend(0)
    }

    pub fn exhausted(&self) -> Option<&'static str> {
        self.exhausted
    }

    /// Fails once there is nothing left, and from then on.
    pub fn spend(&mut self, nodes: u64) -> Result<(), ExecutionError> {
        if self.exhausted.is_none() {
            match self.left.checked_sub(nodes) {
                Some(left) => self.left = left,
                None => self.exhausted = Some(STEPS),
            }
            match self.until_clock.checked_sub(nodes * self.weight) {
                Some(left) => self.until_clock = left,
                None => {
                    self.until_clock = STRIDE;
                    if processor_time().saturating_sub(self.started) > TIME {
                        self.exhausted = Some(PROCESSOR);
                    }
                }
            }
        }
        match self.exhausted {
            None => Ok(()),
            Some(limit) => Err(ExecutionError::function_error(CHARGE, limit)),
        }
    }
}

/// Time that this thread has had. Time in which others ran does not count, so
/// that a busy machine changes no answer.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

type Function = Box<
    dyn for<'a, 'v> Fn(&mut FunctionContext<'a, 'v>) -> Result<CowVal<'a, 'v>, ExecutionError>
        + Send
        + Sync,
>;

/// Registers the functions that [`meter`] put in.
pub fn register(context: &mut Context<'_, '_>, run: &Arc<Mutex<Run>>) {
    let spending = run.clone();
    let charge: Function = Box::new(move |call| charged(call, &spending));
    let matching = run.clone();
    let matches: Function = Box::new(move |call| matched(call, &matching));
    for (name, function) in [(CHARGE, charge), (MATCHES, matches)] {
        // Nothing of these names can be written in a condition.
        let _ = context.add_function(name, function);
    }
}

fn charged<'a, 'v>(
    call: &mut FunctionContext<'a, 'v>,
    run: &Mutex<Run>,
) -> Result<CowVal<'a, 'v>, ExecutionError> {
    let value = call
        .args
        .pop()
        .ok_or_else(ExecutionError::missing_argument_or_target)?;
    let nodes = call
        .args
        .first()
        .and_then(|nodes| nodes.downcast_ref::<CelInt>())
        .map_or(0, |nodes| u64::try_from(*nodes.inner()).unwrap_or(0));
    run.lock().unwrap_or_else(|e| e.into_inner()).spend(nodes)?;
    Ok(value)
}

fn matched<'a, 'v>(
    call: &mut FunctionContext<'a, 'v>,
    run: &Mutex<Run>,
) -> Result<CowVal<'a, 'v>, ExecutionError> {
    let text = |index: usize| {
        let value = call.args.get(index)?;
        value.downcast_ref::<CelString<'_>>().map(CelString::inner)
    };
    let (Some(subject), Some(wanted)) = (text(0), text(1)) else {
        let types = call.args.iter().map(|a| a.get_type().name().to_owned());
        return Err(ExecutionError::no_such_overload("matches", types.collect()));
    };
    let failed = |cause: String| ExecutionError::function_error("matches", cause);
    if subject.len() > LONGEST_TEXT {
        return Err(failed(format!(
            "the text has {} bytes, at most {LONGEST_TEXT} are tried",
            subject.len()
        )));
    }
    let patterns = {
        let mut run = run.lock().unwrap_or_else(|e| e.into_inner());
        let read = if run.patterns.contains_key(wanted) {
            0
        } else {
            READING
        };
        run.spend(read + MATCH * (subject.len() as u64).div_ceil(1024))?;
        run.patterns.clone()
    };
    let answer = match patterns.get(wanted) {
        Some(pattern) => pattern.is_match(subject),
        None => pattern(wanted).map_err(failed)?.is_match(subject),
    };
    Ok(CowVal::owned(CelBool::from(answer)))
}

fn pattern(text: &str) -> Result<Regex, String> {
    RegexBuilder::new(text)
        .size_limit(PATTERN_SIZE)
        .build()
        .map_err(|e| e.to_string())
}
