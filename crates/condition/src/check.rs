//! Checks of a condition before it is evaluated.

use cel::common::ast::{EntryExpr, Expr, SelectExpr, operators as op};
use cel::{IdedExpr, TypeRegistry};

use crate::Invalid;

/// Punctuation characters in one condition, and brackets within brackets.
/// Both make its tree deeper, which is read, evaluated and dropped level by
/// level, on the stack.
pub const PUNCTUATION: usize = 1000;
pub const NESTING: usize = 24;

/// Refuses what could exhaust the stack. Text in quotes counts like the rest.
pub fn length(condition: &str) -> Result<(), Invalid> {
    let (mut punctuation, mut depth, mut deepest) = (0_usize, 0_usize, 0);
    for byte in condition.bytes() {
        punctuation += usize::from(byte.is_ascii_punctuation() && !b"_,'\"".contains(&byte));
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    if punctuation > PUNCTUATION || deepest > NESTING {
        return Err(Invalid::TooLong(condition.chars().take(40).collect()));
    }
    Ok(())
}

/// Functions of the standard library, with how many arguments they take.
const FUNCTIONS: [(&str, &[usize]); 12] = [
    ("bool", &[1]),
    ("bytes", &[1]),
    ("double", &[1]),
    ("duration", &[1]),
    ("dyn", &[1]),
    ("int", &[1]),
    ("matches", &[2]),
    ("size", &[1]),
    ("string", &[1]),
    ("timestamp", &[1]),
    ("type", &[1]),
    ("uint", &[1]),
];

/// Functions that are called on a value; with times a time zone may follow.
const METHODS: [(&str, &[usize]); 15] = [
    ("contains", &[1]),
    ("endsWith", &[1]),
    ("getDate", &[0, 1]),
    ("getDayOfMonth", &[0, 1]),
    ("getDayOfWeek", &[0, 1]),
    ("getDayOfYear", &[0, 1]),
    ("getFullYear", &[0, 1]),
    ("getHours", &[0, 1]),
    ("getMilliseconds", &[0, 1]),
    ("getMinutes", &[0, 1]),
    ("getMonth", &[0, 1]),
    ("getSeconds", &[0, 1]),
    ("matches", &[1]),
    ("size", &[0]),
    ("startsWith", &[1]),
];

/// Macros. Where they are used correctly they are already expanded in the tree.
const MACROS: [&str; 7] = [
    op::ALL,
    op::EXISTS,
    op::EXISTS_ONE,
    "existsOne",
    op::FILTER,
    op::HAS,
    op::MAP,
];

const OPERATORS: [&str; 19] = [
    op::CONDITIONAL,
    op::LOGICAL_AND,
    op::LOGICAL_OR,
    op::LOGICAL_NOT,
    op::SUBSTRACT,
    op::ADD,
    op::MULTIPLY,
    op::DIVIDE,
    op::MODULO,
    op::EQUALS,
    op::NOT_EQUALS,
    op::GREATER_EQUALS,
    op::LESS_EQUALS,
    op::GREATER,
    op::LESS,
    op::NEGATE,
    op::INDEX,
    op::NOT_STRICTLY_FALSE,
    op::IN,
];

/// Refuses names, functions and types that do not exist.
pub fn names(
    expression: &IdedExpr,
    variables: &[&str],
    types: &TypeRegistry,
) -> Result<(), Invalid> {
    let mut known = Known {
        names: variables.iter().map(|name| (*name).to_owned()).collect(),
        types,
    };
    known.check(expression)
}

struct Known<'a> {
    /// Variables, those of loops at the end.
    names: Vec<String>,
    types: &'a TypeRegistry,
}

impl Known<'_> {
    fn check(&mut self, expression: &IdedExpr) -> Result<(), Invalid> {
        match &expression.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Unspecified => Err(Invalid::Syntax("a part of it is missing".to_owned())),
            Expr::Ident(name) => self.name(name, name),
            Expr::Select(select) => match qualified(select) {
                Some((root, whole)) => self.name(root, &whole),
                None => self.check(&select.operand),
            },
            Expr::Call(call) => {
                let name = &call.func_name;
                if !OPERATORS.contains(&name.as_str()) {
                    function(name, call.target.is_some(), call.args.len())?;
                }
                call.target
                    .iter()
                    .map(AsRef::as_ref)
                    .chain(&call.args)
                    .try_for_each(|argument| self.check(argument))
            }
            Expr::List(list) => list.elements.iter().try_for_each(|e| self.check(e)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.check(&entry.key)?;
                    self.check(&entry.value)
                }
                EntryExpr::StructField(field) => self.check(&field.value),
            }),
            Expr::Struct(made) => match self.types.find_struct(&made.type_name) {
                None => Err(Invalid::Type(made.type_name.clone())),
                Some(_) => made.entries.iter().try_for_each(|entry| match &entry.expr {
                    EntryExpr::StructField(field) => self.check(&field.value),
                    EntryExpr::MapEntry(entry) => self.check(&entry.value),
                }),
            },
            Expr::Comprehension(comprehension) => {
                self.check(&comprehension.iter_range)?;
                self.check(&comprehension.accu_init)?;
                let outside = self.names.len();
                self.names.push(comprehension.accu_var.clone());
                self.names.push(comprehension.iter_var.clone());
                self.names.extend(comprehension.iter_var2.clone());
                let inside = [
                    &comprehension.loop_cond,
                    &comprehension.loop_step,
                    &comprehension.result,
                ];
                let checked = inside.into_iter().try_for_each(|e| self.check(e));
                self.names.truncate(outside);
                checked
            }
        }
    }

    /// Only a whole name can be a type's.
    fn name(&self, root: &str, whole: &str) -> Result<(), Invalid> {
        let (root, whole) = (root.trim_start_matches('.'), whole.trim_start_matches('.'));
        if self.names.iter().any(|name| name == root) || self.types.find_type(whole).is_some() {
            Ok(())
        } else {
            Err(Invalid::Name(root.to_owned()))
        }
    }
}

/// The first segment and the whole of a name such as `a.b.c`.
fn qualified(select: &SelectExpr) -> Option<(&str, String)> {
    let mut fields = vec![select.field.as_str()];
    let mut operand = &select.operand.expr;
    loop {
        match operand {
            Expr::Ident(root) => {
                fields.push(root);
                fields.reverse();
                return Some((root, fields.join(".")));
            }
            Expr::Select(inner) => {
                fields.push(&inner.field);
                operand = &inner.operand.expr;
            }
            _ => return None,
        }
    }
}

fn function(name: &str, on_value: bool, arguments: usize) -> Result<(), Invalid> {
    let find = |all: &[(&str, &'static [usize])]| {
        let mut all = all.iter();
        all.find(|(known, _)| *known == name)
            .map(|(_, counts)| *counts)
    };
    let (as_method, as_function) = (find(&METHODS), find(&FUNCTIONS));
    let found = if on_value { as_method } else { as_function };
    match found {
        Some(counts) if counts.contains(&arguments) => Ok(()),
        None if as_method.is_none() && as_function.is_none() && !MACROS.contains(&name) => {
            Err(Invalid::Function(name.to_owned()))
        }
        _ => Err(Invalid::Arguments {
            name: name.to_owned(),
            how: format!(
                "{}with {arguments} argument{}",
                if on_value { "on a value " } else { "" },
                if arguments == 1 { "" } else { "s" }
            ),
        }),
    }
}
