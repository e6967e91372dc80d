//! Metadata fields. Each is declared once, with the macro `fields!`: the
//! declaration is what the component reads and what `docs/components.md` shows.

use std::time::Duration;

use crate::{Error, Metadata};

/// The declaration of a metadata field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Its name in a component file, then its aliases.
    pub names: &'static [&'static str],
    /// The type of its value, in the words of Dapr's documentation.
    pub kind: &'static str,
    /// Whether logs must not show it.
    pub sensitive: bool,
    /// The text that counts where a file gives none.
    pub default: Option<&'static str>,
    /// Whether the component does not start without it.
    pub required: bool,
    /// The error text for a required field that is missing, where the usual
    /// one is not wanted.
    missing: Option<&'static str>,
    /// What it means, line by line.
    pub about: &'static [&'static str],
}

impl Field {
    /// Called by `fields!`. `default` and `missing` have one element or none.
    #[doc(hidden)]
    pub const fn new<V: FieldValue>(
        names: &'static [&'static str],
        default: &'static [&'static str],
        missing: &'static [&'static str],
        about: &'static [&'static str],
    ) -> Field {
        Field {
            names,
            kind: V::KIND,
            sensitive: V::SENSITIVE,
            required: default.is_empty() && !V::OPTIONAL,
            default: default.first().copied(),
            missing: missing.first().copied(),
            about,
        }
    }
}

/// Declares a struct of metadata fields. Each line has the field's name and
/// aliases in component files, its name and type in Rust, and either a default
/// or, for a required field, the error text where it differs from the usual
/// one. `FIELDS` lists the declarations; `read` reads all fields of a component.
///
/// ```
/// outrider_components::fields! {
///     struct Fields {
///         /// Path of the file.
///         "path" | "fileName" => path: String, missing "missing path";
///         /// How long to wait for the file.
///         "timeout" => timeout: std::time::Duration = "5s";
///         /// The user's name.
///         "user" => user: Option<String>;
///     }
/// }
/// let metadata = outrider_components::Metadata::new("files", [("fileName", "a")]);
/// assert_eq!(Fields::read(&metadata).unwrap().path, "a");
/// assert!(Fields::FIELDS[0].required);
/// ```
#[macro_export]
macro_rules! fields {
    (
        $(#[$attribute:meta])*
        $visibility:vis struct $fields:ident {
            $(
                $(#[doc = $about:literal])+
                $name:literal $(| $alias:literal)* => $field:ident: $value:ty
                $(= $default:literal)? $(, missing $missing:literal)?;
            )+
        }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone)]
        $visibility struct $fields {
            $($(#[doc = $about])+ $visibility $field: $value,)+
        }

        impl $fields {
            /// The declarations of the fields.
            $visibility const FIELDS: &'static [$crate::Field] = &[$(
                $crate::Field::new::<$value>(
                    &[$name $(, $alias)*],
                    &[$($default)?],
                    &[$($missing)?],
                    &[$($about),+],
                ),
            )+];

            /// Reads the fields. A field that is given twice is an error.
            $visibility fn read(
                metadata: &$crate::Metadata,
            ) -> Result<$fields, $crate::Error> {
                metadata.unique()?;
                Ok($fields {
                    $($field: metadata.read($fields::FIELDS, $name)?,)+
                })
            }
        }
    };
}

impl Metadata {
    /// The value of the field called `name`, which is one of `fields`.
    pub fn read<V: FieldValue>(&self, fields: &[Field], name: &str) -> Result<V, Error> {
        let Some(field) = fields.iter().find(|field| field.names[0] == name) else {
            return Err(self.wrong(name, "is not declared"));
        };
        let given = field
            .names
            .iter()
            .find_map(|name| Some((*name, self.text(name)?)));
        let default = field.default.map(|text| (name, text));
        match given.or(default) {
            Some((name, text)) => V::parse(text).map_err(|what| self.wrong(name, what)),
            None => V::absent().ok_or_else(|| match field.missing {
                Some(text) => Error::invalid(text),
                None => self.wrong(name, "is missing or empty"),
            }),
        }
    }
}

/// A type that a metadata field can have.
pub trait FieldValue: Sized {
    /// Its name in the documentation.
    const KIND: &'static str;
    /// Whether logs must not show it.
    const SENSITIVE: bool = false;
    /// Whether [`FieldValue::absent`] gives a value.
    const OPTIONAL: bool = false;

    /// Reads text that is not empty. The error follows the name of the field,
    /// as in "must be true or false".
    fn parse(text: &str) -> Result<Self, String>;

    /// The value of a field that is absent and has no default.
    fn absent() -> Option<Self> {
        None
    }
}

impl<V: FieldValue> FieldValue for Option<V> {
    const KIND: &'static str = V::KIND;
    const SENSITIVE: bool = V::SENSITIVE;
    const OPTIONAL: bool = true;

    fn parse(text: &str) -> Result<Option<V>, String> {
        V::parse(text).map(Some)
    }

    fn absent() -> Option<Option<V>> {
        Some(None)
    }
}

impl FieldValue for String {
    const KIND: &'static str = "string";

    fn parse(text: &str) -> Result<String, String> {
        Ok(text.to_owned())
    }
}

/// A password, key or token.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl FieldValue for Secret {
    const KIND: &'static str = "string";
    const SENSITIVE: bool = true;

    fn parse(text: &str) -> Result<Secret, String> {
        Ok(Secret(text.to_owned()))
    }
}

/// A boolean in Go's spelling (`true`, `T`, `1`, ..). Anything else is an
/// error. See <https://pkg.go.dev/strconv#ParseBool>.
impl FieldValue for bool {
    const KIND: &'static str = "bool";

    fn parse(text: &str) -> Result<bool, String> {
        match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            other => Err(format!(
                "must be true or false, not {}",
                outrider_kit::quote::go(other)
            )),
        }
    }
}

/// A boolean that is true for `y`, `yes`, `true`, `t`, `on` or `1` in any case,
/// and false for everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truthy(pub bool);

impl FieldValue for Truthy {
    const KIND: &'static str = "bool";

    fn parse(text: &str) -> Result<Truthy, String> {
        Ok(Truthy(outrider_kit::truthy(text)))
    }
}

macro_rules! number {
    ($($number:ty)+) => {$(
        impl FieldValue for $number {
            const KIND: &'static str = "number";

            fn parse(text: &str) -> Result<$number, String> {
                text.parse().map_err(|_| {
                    let quoted = outrider_kit::quote::go(text);
                    format!("must be a whole number in range, not {quoted}")
                })
            }
        }
    )+};
}

number!(u16 u32 u64 i32 i64);

impl FieldValue for f64 {
    const KIND: &'static str = "number";

    fn parse(text: &str) -> Result<f64, String> {
        let number = text.parse().ok().filter(|number: &f64| number.is_finite());
        number.ok_or_else(|| {
            let quoted = outrider_kit::quote::go(text);
            format!("must be a number, not {quoted}")
        })
    }
}

/// A duration such as `1m30s`, or a bare number of seconds. A negative one
/// counts as zero.
impl FieldValue for Duration {
    const KIND: &'static str = "duration";

    fn parse(text: &str) -> Result<Duration, String> {
        duration(text, Duration::from_secs(1))
    }
}

/// A duration whose bare numbers are milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Milliseconds(pub Duration);

impl FieldValue for Milliseconds {
    const KIND: &'static str = "duration (ms)";

    fn parse(text: &str) -> Result<Milliseconds, String> {
        duration(text, Duration::from_millis(1)).map(Milliseconds)
    }
}

fn duration(text: &str, unit: Duration) -> Result<Duration, String> {
    if let Ok(count) = text.parse::<i64>() {
        let count = u32::try_from(count.max(0)).unwrap_or(u32::MAX);
        return Ok(unit.saturating_mul(count));
    }
    match outrider_kit::duration::parse_signed(text) {
        Ok(nanoseconds) => Ok(Duration::from_nanos(
            u64::try_from(nanoseconds).unwrap_or(0),
        )),
        Err(error) => Err(format!("must be a duration: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::fields! {
        struct Fields {
            /// The server,
            /// without a port.
            "host" | "url" => host: String = "localhost";
            /// The password.
            "password" => password: Option<Secret>;
            /// The port.
            "port" => port: u16;
            /// The file.
            "file" => file: String, missing "no file";
        }
    }

    fn read(pairs: &[(&str, &str)]) -> Result<Fields, Error> {
        Fields::read(&Metadata::new("store", pairs.iter().copied()))
    }

    #[test]
    fn a_field_is_the_first_of_its_names_with_a_value_or_its_default() {
        let needed = [("port", "1"), ("file", "f")];
        let host = |pairs: &[(&str, &str)]| {
            let pairs: Vec<_> = needed.iter().chain(pairs).copied().collect();
            read(&pairs).expect("is valid").host
        };
        assert_eq!(host(&[]), "localhost");
        assert_eq!(host(&[("URL", "b")]), "b");
        assert_eq!(host(&[("url", "b"), ("host", "a")]), "a");
        assert_eq!(host(&[("url", "b"), ("host", "")]), "b");
    }

    #[test]
    fn an_error_names_the_field_as_the_file_does() {
        for (pairs, error) in [
            (
                &[("file", "f")][..],
                "component store: property port is missing or empty",
            ),
            (&[("port", "1")], "no file"),
            (
                &[("port", "x")],
                r#"component store: property port must be a whole number in range, not "x""#,
            ),
            (
                &[("port", "1"), ("Port", "2")],
                "failed to resolve aliases: key port is duplicate in the metadata",
            ),
        ] {
            assert_eq!(read(pairs).expect_err("is wrong").to_string(), error);
        }
    }

    #[test]
    fn declarations_list_what_is_read() {
        let [host, password, port, file] = Fields::FIELDS else {
            panic!("four fields");
        };
        assert_eq!(host.names, ["host", "url"]);
        assert_eq!(host.about, [" The server,", " without a port."]);
        assert_eq!((host.default, host.required), (Some("localhost"), false));
        assert_eq!((password.sensitive, password.required), (true, false));
        assert_eq!((port.kind, port.required), ("number", true));
        assert!(file.required);
    }

    #[test]
    fn secrets_are_not_printed() {
        let pairs = [("port", "1"), ("file", "f"), ("password", "hunter2")];
        let fields = read(&pairs).expect("is valid");
        assert_eq!(fields.password, Some(Secret("hunter2".to_owned())));
        assert_eq!((fields.port, &*fields.file), (1, "f"));
        assert!(!format!("{fields:?}").contains("hunter2"));
    }

    #[test]
    fn booleans() {
        assert_eq!(bool::parse("T"), Ok(true));
        assert_eq!(
            bool::parse("yes"),
            Err(r#"must be true or false, not "yes""#.to_owned())
        );
        for (text, wanted) in [(" Yes ", true), ("no", false)] {
            assert_eq!(Truthy::parse(text), Ok(Truthy(wanted)));
        }
    }

    #[test]
    fn numbers_and_durations() {
        assert_eq!(u16::parse("12"), Ok(12));
        assert!(u16::parse("-1").is_err());
        assert_eq!(f64::parse("0.5"), Ok(0.5));
        assert!(f64::parse("inf").is_err() && f64::parse("1,5").is_err());
        for (text, seconds) in [("12", 12), ("-1", 0), ("1m30s", 90)] {
            assert_eq!(Duration::parse(text), Ok(Duration::from_secs(seconds)));
        }
        let millis = Milliseconds(Duration::from_millis(12));
        assert_eq!(Milliseconds::parse("12"), Ok(millis));
        assert_eq!(
            Duration::parse("soon"),
            Err(r#"must be a duration: time: invalid duration "soon""#.to_owned())
        );
    }
}
