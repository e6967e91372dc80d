//! Kubernetes resource quantities as byte counts: `4Mi`, `10M`, `1k`, `1.5Gi`.
//! Syntax: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.

/// The text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)]
pub struct ParseError;

/// Bytes that `text` names, rounded up to a whole one.
pub fn parse(text: &str) -> Result<i64, ParseError> {
    let number_end = text
        .char_indices()
        .find(|&(i, c)| !(c.is_ascii_digit() || c == '.' || (i == 0 && (c == '-' || c == '+'))))
        .map_or(text.len(), |(i, _)| i);
    let (number, suffix) = text.split_at(number_end);
    let number: f64 = match number {
        "" | "+" | "-" | "." => return Err(ParseError),
        n => n.parse().map_err(|_| ParseError)?,
    };
    let factor = match suffix {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024f64,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        exponent if exponent.starts_with(['e', 'E']) => {
            let power: i32 = exponent[1..].parse().map_err(|_| ParseError)?;
            10f64.powi(power)
        }
        _ => return Err(ParseError),
    };
    let value = (number * factor).ceil();
    if value.is_finite() && value.abs() < i64::MAX as f64 {
        Ok(value as i64)
    } else {
        Err(ParseError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn suffixes_are_decimal_or_binary() {
        let cases = [
            ("4Mi", 4 << 20),
            ("10M", 10_000_000),
            ("1k", 1000),
            ("512", 512),
            ("1.5Gi", 3 << 29),
            ("-1", -1),
            ("1e3", 1000),
            ("500m", 1),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "Mi", "4mi", "1 k", "abc", "1ee", "99999999Ei"] {
            assert_eq!(parse(text), Err(ParseError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn prop_never_panics(text in "\\PC{0,20}") {
            let _ = parse(&text);
        }

        #[test]
        fn prop_binary_suffix(n in 0i64..1 << 20) {
            prop_assert_eq!(parse(&format!("{n}Ki")), Ok(n << 10));
        }
    }
}
