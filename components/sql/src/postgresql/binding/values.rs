//! Values of columns, in JSON. Which JSON a type becomes is documented nowhere:
//! it is what applications of Dapr get.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outrider_components::Error;
use sqlx::postgres::{PgRow, PgTypeInfo, PgTypeKind};
use sqlx::{Column as _, Row as _, TypeInfo as _, ValueRef as _};

use super::unreadable;
use crate::binding::{write_number, write_text};

/// Seconds from 1970 to 2000, where the server's times begin.
const EPOCH: i64 = 946_684_800;
const MICROS: i64 = 1_000_000;
/// Records in records.
const DEEPEST: u8 = 32;

/// Writes the value of a column.
pub fn write(out: &mut String, row: &PgRow, index: usize) -> Result<(), Error> {
    let value = row.try_get_raw(index).map_err(crate::statement::failed)?;
    if value.is_null() {
        out.push_str("null");
        return Ok(());
    }
    let kind = row.columns()[index].type_info();
    let bytes = value.as_bytes().unwrap_or_default();
    let oid = kind.oid().map_or(0, |oid| oid.0);
    any(out, oid, Some(kind), bytes, DEEPEST).ok_or_else(|| unreadable(kind.name()))
}

/// Bytes that are read from their beginning.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn i16(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    fn f64(&mut self) -> Option<f64> {
        self.array().map(f64::from_be_bytes)
    }

    /// What has its length before it; the inner none is null.
    fn sized(&mut self) -> Option<Option<&'a [u8]>> {
        match usize::try_from(self.i32()?) {
            Ok(length) => self.take(length).map(Some),
            Err(_) => Some(None),
        }
    }
}

/// Writes a value of a type, about which more is known where it is one that
/// somebody has made. None for what cannot be written.
fn any(
    out: &mut String,
    oid: u32,
    kind: Option<&PgTypeInfo>,
    bytes: &[u8],
    depth: u8,
) -> Option<()> {
    let depth = depth.checked_sub(1)?;
    match kind.map(PgTypeInfo::kind) {
        Some(PgTypeKind::Array(element)) => return array(out, element, bytes, depth),
        Some(PgTypeKind::Range(element)) => return range(out, element, bytes, depth),
        Some(PgTypeKind::Composite(fields)) => {
            let kinds = fields.iter().map(|(_, kind)| Some(kind));
            return record(out, &kinds.collect::<Vec<_>>(), bytes, depth);
        }
        Some(PgTypeKind::Domain(base)) => {
            return any(out, base.oid()?.0, Some(base), bytes, depth);
        }
        Some(PgTypeKind::Enum(_)) => return text(out, bytes),
        _ => {}
    }
    let mut reader = Reader(bytes);
    match oid {
        // bool, "char"
        16 => out.push_str(if bytes == [0] { "false" } else { "true" }),
        18 => write!(out, "{}", bytes.first()?).ok()?,
        // int8, int2, int4
        20 => write!(out, "{}", reader.i64()?).ok()?,
        21 => write!(out, "{}", reader.i16()?).ok()?,
        23 => write!(out, "{}", reader.i32()?).ok()?,
        // oid, xid, cid; xid8
        26 | 28 | 29 => write!(out, "{}", reader.u32()?).ok()?,
        5069 => write!(out, "{}", reader.i64()?.cast_unsigned()).ok()?,
        // float4, float8
        700 => {
            let number = f32::from_be_bytes(reader.array()?);
            return write_number(out, number.to_string().parse().ok()?).then_some(());
        }
        701 => return write_number(out, reader.f64()?).then_some(()),
        1700 => return numeric(out, &mut reader),
        // name, text, unknown, char, varchar
        19 | 25 | 705 | 1042 | 1043 => return text(out, bytes),
        // json, jsonb; jsonpath
        114 => out.push_str(std::str::from_utf8(bytes).ok()?),
        3802 => out.push_str(std::str::from_utf8(bytes.get(1..)?).ok()?),
        4072 => return text(out, bytes.get(1..)?),
        // bytea, xml, macaddr, macaddr8
        17 | 142 | 829 | 774 => write!(out, "\"{}\"", STANDARD.encode(bytes)).ok()?,
        // uuid
        2950 => {
            let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
            write!(out, "[{}]", numbers.join(",")).ok()?;
        }
        // void
        2278 => out.push_str("null"),
        // bit, varbit
        1560 | 1562 => {
            let count = reader.i32()?;
            let bits = STANDARD.encode(reader.0);
            write!(out, r#"{{"Bytes":"{bits}","Len":{count},"Valid":true}}"#).ok()?;
        }
        // inet, cidr
        869 | 650 => return network(out, &mut reader),
        // tid, pg_lsn
        27 => {
            let (block, offset) = (reader.u32()?, reader.u16()?);
            let text = format!(r#"{{"BlockNumber":{block},"OffsetNumber":{offset},"Valid":true}}"#);
            out.push_str(&text);
        }
        3220 => write!(out, "\"{:X}/{:X}\"", reader.u32()?, reader.u32()?).ok()?,
        600 | 601 | 602 | 603 | 604 | 628 | 718 => return shape(out, oid, &mut reader),
        1082 | 1083 | 1114 | 1184 | 1186 | 1266 => return time(out, oid, &mut reader),
        2249 => return record(out, &[], bytes, depth),
        _ if kind.is_some_and(|kind| kind.name() == "citext") => return text(out, bytes),
        _ => return None,
    }
    Some(())
}

fn text(out: &mut String, bytes: &[u8]) -> Option<()> {
    write_text(out, &String::from_utf8_lossy(bytes));
    Some(())
}

/// Elements in one list, whatever the dimensions:
/// a count of dimensions, whether there are nulls, the element's type, then for
/// each dimension its size and its first index.
fn array(out: &mut String, element: &PgTypeInfo, bytes: &[u8], depth: u8) -> Option<()> {
    let mut reader = Reader(bytes);
    let dimensions = reader.i32()?;
    reader.i32()?;
    let oid = reader.u32()?;
    for _ in 0..dimensions {
        reader.take(8)?;
    }
    let mut separator = "[";
    while !reader.0.is_empty() {
        out.push_str(separator);
        separator = ",";
        match reader.sized()? {
            Some(bytes) => any(out, oid, Some(element), bytes, depth)?,
            None => out.push_str("null"),
        }
    }
    out.push_str(if separator == "[" { "[]" } else { "]" });
    Some(())
}

/// Fields, each with its type before it.
fn record(out: &mut String, kinds: &[Option<&PgTypeInfo>], bytes: &[u8], depth: u8) -> Option<()> {
    let mut reader = Reader(bytes);
    out.push('[');
    for index in 0..reader.i32()? {
        if index > 0 {
            out.push(',');
        }
        let oid = reader.u32()?;
        let kind = kinds.get(usize::try_from(index).ok()?).copied().flatten();
        match reader.sized()? {
            Some(bytes) => any(out, oid, kind, bytes, depth)?,
            None => out.push_str("null"),
        }
    }
    out.push(']');
    Some(())
}

fn range(out: &mut String, element: &PgTypeInfo, bytes: &[u8], depth: u8) -> Option<()> {
    let mut reader = Reader(bytes);
    let [flags] = reader.array()?;
    let oid = element.oid()?.0;
    let has = |flag: u8| flags & flag != 0;
    let (is_empty, no_lower, no_upper) = (has(1), has(8), has(16));
    let mut bound = |absent: bool| {
        let mut text = String::new();
        match absent || is_empty {
            true => text.push_str("null"),
            false => any(&mut text, oid, Some(element), reader.sized()??, depth)?,
        }
        Some(text)
    };
    let (lower, upper) = (bound(no_lower)?, bound(no_upper)?);
    let kind = |absent: bool, inclusive: bool| match (is_empty, absent, inclusive) {
        (true, _, _) => b'E',
        (_, true, _) => b'U',
        (_, _, true) => b'i',
        (_, _, false) => b'e',
    };
    let kinds = (kind(no_lower, has(2)), kind(no_upper, has(4)));
    write!(
        out,
        r#"{{"Lower":{lower},"Upper":{upper},"LowerType":{},"UpperType":{},"Valid":true}}"#,
        kinds.0, kinds.1
    )
    .ok()
}

/// Digits of 10,000, the place of the first, a sign and how many decimals are
/// shown.
fn numeric(out: &mut String, reader: &mut Reader<'_>) -> Option<()> {
    let count = reader.u16()?;
    let weight = i32::from(reader.i16()?);
    match reader.u16()? {
        0 => {}
        0x4000 => out.push('-'),
        0xD000 => return text(out, b"Infinity"),
        0xF000 => return text(out, b"-Infinity"),
        _ => return text(out, b"NaN"),
    }
    let decimals = usize::from(reader.u16()?);
    let mut digits = Vec::new();
    for _ in 0..count {
        digits.push(reader.i16()?);
    }
    let at = |place: i32| {
        let index = usize::try_from(weight - place).ok();
        index
            .and_then(|index| digits.get(index))
            .copied()
            .unwrap_or(0)
    };
    write!(out, "{}", at(weight.max(0))).ok()?;
    for place in (0..weight).rev() {
        write!(out, "{:04}", at(place)).ok()?;
    }
    if decimals > 0 {
        let mut text = String::new();
        for place in 1..=i32::try_from(decimals.div_ceil(4)).ok()? {
            write!(text, "{:04}", at(-place)).ok()?;
        }
        write!(out, ".{}", text.get(..decimals)?).ok()?;
    }
    Some(())
}

fn network(out: &mut String, reader: &mut Reader<'_>) -> Option<()> {
    let [family, bits, _, _] = reader.array()?;
    let address: std::net::IpAddr = match family {
        2 => reader.array::<4>()?.into(),
        _ => reader.array::<16>()?.into(),
    };
    write!(out, "\"{address}/{bits}\"").ok()
}

/// `{"X":1,"Y":2}`
fn point(reader: &mut Reader<'_>) -> Option<String> {
    let (x, y) = (number(reader)?, number(reader)?);
    Some(format!(r#"{{"X":{x},"Y":{y}}}"#))
}

fn number(reader: &mut Reader<'_>) -> Option<String> {
    let mut text = String::new();
    write_number(&mut text, reader.f64()?).then_some(text)
}

fn shape(out: &mut String, oid: u32, reader: &mut Reader<'_>) -> Option<()> {
    let points = |reader: &mut Reader<'_>, count: i32| {
        let all: Option<Vec<String>> = (0..count).map(|_| point(reader)).collect();
        Some(format!(r#""P":[{}]"#, all?.join(",")))
    };
    let members = match oid {
        600 => {
            let (x, y) = (number(reader)?, number(reader)?);
            return write!(out, "\"({x},{y})\"").ok();
        }
        // Two points: lseg, box.
        601 | 603 => points(reader, 2)?,
        602 => {
            let [closed] = reader.array()?;
            let count = reader.i32()?;
            let points = points(reader, count)?;
            format!(r#"{points},"Closed":{}"#, closed != 0)
        }
        604 => {
            let count = reader.i32()?;
            points(reader, count)?
        }
        628 => {
            let (a, b, c) = (number(reader)?, number(reader)?, number(reader)?);
            format!(r#""A":{a},"B":{b},"C":{c}"#)
        }
        _ => format!(r#""P":{},"R":{}"#, point(reader)?, number(reader)?),
    };
    write!(out, r#"{{{members},"Valid":true}}"#).ok()
}

fn time(out: &mut String, oid: u32, reader: &mut Reader<'_>) -> Option<()> {
    match oid {
        1082 => match reader.i32()? {
            i32::MAX => out.push('1'),
            i32::MIN => out.push_str("-1"),
            days => timestamp(out, i64::from(days) * 86_400 * MICROS)?,
        },
        1114 | 1184 => match reader.i64()? {
            i64::MAX => out.push('1'),
            i64::MIN => out.push_str("-1"),
            micros => timestamp(out, micros)?,
        },
        1083 => write!(out, r#"{{"Microseconds":{},"Valid":true}}"#, reader.i64()?).ok()?,
        1186 => {
            let (micros, days, months) = (reader.i64()?, reader.i32()?, reader.i32()?);
            let text = format!(
                r#"{{"Microseconds":{micros},"Days":{days},"Months":{months},"Valid":true}}"#
            );
            out.push_str(&text);
        }
        _ => {
            let (micros, west) = (reader.i64()?, reader.i32()?);
            let seconds = micros / MICROS;
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let mut text = format!("{hours:02}:{minutes:02}:{:02}", seconds % 60);
            if micros % MICROS != 0 {
                let fraction = format!("{:06}", micros % MICROS);
                text = format!("{text}.{}", fraction.trim_end_matches('0'));
            }
            let (sign, east) = (if west > 0 { '-' } else { '+' }, west.abs());
            write!(text, "{sign}{:02}", east / 3600).ok()?;
            if east % 3600 != 0 {
                write!(text, ":{:02}", east / 60 % 60).ok()?;
            }
            write_text(out, &text);
        }
    }
    Some(())
}

/// Microseconds from the beginning of 2000. Years have four digits.
fn timestamp(out: &mut String, micros: i64) -> Option<()> {
    let micros = micros.checked_add(EPOCH * MICROS)?;
    let time = jiff::Timestamp::from_microsecond(micros).ok()?;
    let text = time.to_string();
    if text.starts_with(['-', '+']) {
        return None;
    }
    write!(out, "\"{text}\"").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(oid: u32, bytes: &[u8]) -> Option<String> {
        let mut out = String::new();
        any(&mut out, oid, None, bytes, DEEPEST).map(|()| out)
    }

    #[test]
    fn bytes_that_end_too_early_are_refused() {
        for oid in (1..=6000).filter(|oid| ![114, 2278].contains(oid)) {
            for length in 0..3 {
                // Some types take any bytes; none may panic.
                let _ = written(oid, &[0xFF; 3][..length]);
            }
        }
        assert_eq!(written(23, &[0, 0, 1]), None);
        assert_eq!(written(2249, &[0x7F, 0xFF, 0xFF, 0xFF]), None);
        assert_eq!(written(604, &[0x7F, 0xFF, 0xFF, 0xFF, 1]), None);
    }

    #[test]
    fn numerics_keep_their_digits() {
        // 1 0000.0005
        let bytes = [0, 3, 0, 1, 0, 0, 0, 4, 0, 1, 0, 0, 0, 5];
        assert_eq!(written(1700, &bytes).as_deref(), Some("10000.0005"));
        // -0.05
        let bytes = [0, 1, 0xFF, 0xFF, 0x40, 0, 0, 2, 0x01, 0xF4];
        assert_eq!(written(1700, &bytes).as_deref(), Some("-0.05"));
        let zero = [0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(written(1700, &zero).as_deref(), Some("0"));
        let nan = [0, 0, 0, 0, 0xC0, 0, 0, 0];
        assert_eq!(written(1700, &nan).as_deref(), Some("\"NaN\""));
    }
}
