//! Personal data in texts, replaced by the name of their kind.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

/// A kind of personal data. Of two that begin at the same place and are as
/// long, the one that is listed first counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Email,
    Mac,
    Ip,
    Iban,
    Ssn,
    Card,
    Isbn,
    PoBox,
    Street,
    Zip,
    Phone,
}

impl Kind {
    fn label(self) -> &'static str {
        match self {
            Self::Email => "<EMAIL_ADDRESS>",
            Self::Mac => "<MAC_ADDRESS>",
            Self::Ip => "<IP>",
            Self::Iban => "<IBAN>",
            Self::Ssn => "<US_SSN>",
            Self::Card => "<CREDIT_CARD>",
            Self::Isbn => "<ISBN>",
            Self::PoBox => "<PO_BOX>",
            Self::Street => "<STREET_ADDRESS>",
            Self::Zip => "<ZIP_CODE>",
            Self::Phone => "<PHONE_NUMBER>",
        }
    }

    /// Whether URLs are made of such things as well: there they stay.
    fn is_in_links(self) -> bool {
        matches!(self, Self::Ip | Self::Isbn | Self::Zip | Self::Phone)
    }
}

/// What may be of a kind. A check says whether it is.
struct Pattern {
    kind: Kind,
    regex: Regex,
    check: Check,
}

type Check = fn(&str) -> bool;

const PATTERNS: [(Kind, &str, Check); 13] = [
    (
        Kind::Email,
        r"[A-Za-z0-9.!$%'*+^_`{|}~-]+@(?:[A-Za-z0-9-]+\.)+[A-Za-z0-9-]*[A-Za-z0-9]",
        always,
    ),
    (
        Kind::Mac,
        r"\b[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}\b",
        always,
    ),
    (Kind::Ip, r"\b[0-9]{1,3}(?:\.[0-9]{1,3}){3}\b", is_ip),
    (
        Kind::Ip,
        r"(?:[0-9A-Fa-f]{1,4}|:):[0-9A-Fa-f:]*(?:(?:[0-9]{1,3}\.){3}[0-9]{1,3}|[0-9A-Fa-f]|::)",
        is_ip,
    ),
    (
        Kind::Iban,
        r"\b[A-Z]{2}[0-9]{2}(?:\x20?[A-Z0-9]{4}){2,7}(?:\x20?[A-Z0-9]{1,3})?\b",
        is_iban,
    ),
    (Kind::Ssn, r"\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b", always),
    (Kind::Card, r"\b[0-9](?:[ -]?[0-9]){12,18}\b", is_card),
    (
        Kind::Isbn,
        r"\b(?i-u:isbn)(?:-1[03])?:?\x20?(?:[0-9][ -]?){9,12}[0-9xX]\b",
        always,
    ),
    (
        Kind::Isbn,
        r"\b97[89][ -]?(?:[0-9][ -]?){9}[0-9]\b",
        is_isbn,
    ),
    (
        Kind::PoBox,
        r"\b(?i-u:p\.?\x20?o\.?\x20?box\x20#?[0-9]+)",
        always,
    ),
    (
        Kind::Street,
        r"\b[0-9]{1,5}\x20(?:[A-Za-z0-9.'-]{1,24}\x20){1,4}(?i-u:street|st|avenue|ave|road|rd|highway|hwy|square|sq|trail|trl|drive|dr|court|ct|park|parkway|pkwy|circle|cir|boulevard|blvd|lane|ln)\b\.?",
        always,
    ),
    (Kind::Zip, r"\b[0-9]{5}(?:[ -][0-9]{4})?\b", always),
    (
        Kind::Phone,
        r"[+(]{0,2}[0-9](?:[ ./()-]{0,2}[0-9]){5,}",
        is_phone,
    ),
];

static KINDS: LazyLock<Vec<Pattern>> = LazyLock::new(|| {
    let all = PATTERNS.into_iter();
    let all = all.filter_map(|(kind, regex, check)| {
        let regex = Regex::new(regex).ok()?;
        Some(Pattern { kind, regex, check })
    });
    all.collect()
});

static LINK: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"\b(?i-u:https?)://[^ \t\r\n<>"]+"#).ok());

fn always(_: &str) -> bool {
    true
}

fn digits(text: &str) -> usize {
    text.bytes().filter(u8::is_ascii_digit).count()
}

fn is_ip(text: &str) -> bool {
    text.parse::<Ipv4Addr>().is_ok() || text.parse::<Ipv6Addr>().is_ok()
}

/// From 15 characters, as in Norway, to 34.
fn is_iban(text: &str) -> bool {
    let bytes = text.bytes().filter(|byte| *byte != b' ');
    (15..=34).contains(&bytes.count()) && digits(text) >= 8
}

/// Every number of 15 or 16 digits counts; of the other lengths only those
/// whose check digit is right.
fn is_card(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_digit).map(|d| d - b'0');
    let sum: u32 = digits
        .clone()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, u32::from(digit)) {
            (0, digit) => digit,
            (_, digit @ 0..5) => digit * 2,
            (_, digit) => digit * 2 - 9,
        })
        .sum();
    matches!(digits.count(), 15 | 16) || sum.is_multiple_of(10)
}

fn is_isbn(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_digit).map(|d| d - b'0');
    let weighted = digits.enumerate().map(|(place, digit)| {
        let weight = if place % 2 == 0 { 1 } else { 3 };
        u32::from(digit) * weight
    });
    weighted.sum::<u32>().is_multiple_of(10)
}

/// Several numbers in a row count as one.
fn is_phone(text: &str) -> bool {
    let least = if text.contains('+') { 6 } else { 7 };
    digits(text) >= least
}

/// The text, without personal data where that is wanted.
pub fn text_if(wanted: bool, text: String) -> String {
    match wanted {
        true => redact(&text),
        false => text,
    }
}

/// Replaces personal data. What overlaps is one, of the kind that begins first
/// or is longer.
fn redact(text: &str) -> String {
    let links: Vec<Range<usize>> = match &*LINK {
        Some(link) => link.find_iter(text).map(|found| found.range()).collect(),
        None => Vec::new(),
    };
    let in_link = |range: &Range<usize>| {
        // Links come in order, so the last that begins before is the one.
        let before = links.partition_point(|link| link.start <= range.start);
        before > 0 && range.start < links[before - 1].end
    };
    let mut found: Vec<(Range<usize>, Kind)> = Vec::new();
    for Pattern { kind, regex, check } in KINDS.iter() {
        let of_kind = regex.find_iter(text);
        let of_kind = of_kind.filter(|one| check(one.as_str()));
        let ranges = of_kind.map(|one| one.range());
        let ranges = ranges.filter(|range| !(kind.is_in_links() && in_link(range)));
        found.extend(ranges.map(|range| (range, *kind)));
    }
    found.sort_by_key(|(range, kind)| (range.start, std::cmp::Reverse(range.end), *kind));
    let mut redacted = String::with_capacity(text.len());
    let mut end = 0;
    for (range, kind) in found {
        if range.start >= end {
            redacted.push_str(&text[end..range.start]);
            redacted.push_str(kind.label());
        }
        end = end.max(range.end);
    }
    redacted.push_str(&text[end..]);
    redacted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_pattern_is_one() {
        assert_eq!(KINDS.len(), PATTERNS.len());
        assert!(LINK.is_some());
    }

    #[test]
    fn personal_data_is_replaced_by_its_kind() {
        for (text, wanted) in [
            ("call +2222222222", "call <PHONE_NUMBER>"),
            ("call (425) 555-0123 now", "call <PHONE_NUMBER> now"),
            ("call 555-0123.", "call <PHONE_NUMBER>."),
            ("call +49 30 123456", "call <PHONE_NUMBER>"),
            ("mail test@test.com", "mail <EMAIL_ADDRESS>"),
            (
                "mail a.b+c@mail.example.org, please",
                "mail <EMAIL_ADDRESS>, please",
            ),
            ("from 10.8.9.1", "from <IP>"),
            ("from 2001:db8::1, and ::1", "from <IP>, and <IP>"),
            ("from ::ffff:10.0.0.1.", "from <IP>."),
            ("card 4111 1111 1111 1111", "card <CREDIT_CARD>"),
            ("card 378282246310005", "card <CREDIT_CARD>"),
            ("ssn 123-45-6789", "ssn <US_SSN>"),
            ("zip 98052", "zip <ZIP_CODE>"),
            ("zip 98052-1234", "zip <ZIP_CODE>"),
            ("at 1 Microsoft Way Street", "at <STREET_ADDRESS>"),
            ("at 221 Baker St.", "at <STREET_ADDRESS>"),
            ("P.O. Box 12 and po box 13", "<PO_BOX> and <PO_BOX>"),
            ("mac 00:1A:2b:3c:4d:5e", "mac <MAC_ADDRESS>"),
            ("to DE89 3704 0044 0532 0130 00", "to <IBAN>"),
            ("to GB82WEST12345698765432", "to <IBAN>"),
            ("ISBN 0-306-40615-2", "<ISBN>"),
            ("book 978-0-306-40615-7", "book <ISBN>"),
            ("é test@test.com ü", "é <EMAIL_ADDRESS> ü"),
        ] {
            assert_eq!(redact(text), wanted, "{text}");
        }
    }

    #[test]
    fn other_texts_stay() {
        for text in [
            "well hello there",
            "in 2024, at 10:30, for 19.99 or 1,000",
            "std::net::Ipv4Addr",
            "version 1.2.3",
            "see https://example.com/orders/4255550123?zip=98052 there",
            "see http://10.0.0.1:8080/x",
        ] {
            assert_eq!(redact(text), text);
        }
        let link = "https://example.com/?to=a@b.com";
        assert_eq!(redact(link), "https://example.com/?to=<EMAIL_ADDRESS>");
        assert_eq!(text_if(false, "a@b.com".to_owned()), "a@b.com");
    }

    #[test]
    fn what_overlaps_is_replaced_as_a_whole() {
        let text = redact("a@10.8.9.1 555-0123 555-0123");
        assert_eq!(digits(&text), 0, "{text}");
    }

    proptest! {
        #[test]
        fn prop_no_digits_of_phone_numbers_are_left(
            before in "[a-z é]{0,20}",
            number in "\\+[1-9][0-9]{8,12}",
            after in "[a-z é]{0,20}",
        ) {
            let redacted = redact(&format!("{before} {number} {after}"));
            prop_assert_eq!(digits(&redacted), 0, "{}", redacted);
        }

        #[test]
        fn prop_never_panics(text in "\\PC{0,200}") {
            redact(&text);
        }
    }
}
