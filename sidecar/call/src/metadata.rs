//! Names and values that travel with a call.

use bytes::{BufMut, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Names and values; a name may stand more than once.
pub type Metadata = Vec<(Name, HeaderValue)>;

/// The name of a value. Making, sharing and dropping one copies no text.
#[derive(Debug, Clone)]
pub enum Name {
    /// Of an HTTP header, spelled as in `Content-Type`, which tells the callee
    /// that it is one.
    Http(HeaderName),
    /// As it was given.
    Text(Text),
}

/// Bytes that are UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(Bytes);

impl Text {
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    pub fn new(bytes: Bytes) -> Option<Self> {
        std::str::from_utf8(&bytes).is_ok().then_some(Self(bytes))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn as_str(&self) -> &str {
        // Checked in `new`; without unsafe code it is checked again.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl Name {
    pub const fn from_static(text: &'static str) -> Self {
        Self::Text(Text::from_static(text))
    }

    /// The name of an HTTP header in lower case, or what was given.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Http(name) => name.as_str().as_bytes(),
            Self::Text(text) => text.as_bytes(),
        }
    }

    /// In any case.
    pub fn is(&self, name: &str) -> bool {
        self.as_bytes().eq_ignore_ascii_case(name.as_bytes())
    }

    /// Whether it is spelled as names of HTTP headers are.
    pub fn is_http(&self) -> bool {
        match self {
            Self::Http(_) => true,
            Self::Text(text) => text.0.first().is_some_and(u8::is_ascii_uppercase),
        }
    }

    /// None if no header can have it.
    pub fn into_header(self) -> Option<HeaderName> {
        match self {
            Self::Http(name) => Some(name),
            Self::Text(text) => HeaderName::from_bytes(&text.0).ok(),
        }
    }

    /// How many bytes [`Self::put`] writes.
    pub fn encoded_len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Writes it as it is spelled.
    pub fn put(&self, into: &mut impl BufMut) {
        match self {
            Self::Text(text) => into.put_slice(&text.0),
            Self::Http(name) => spelled(name).for_each(|byte| into.put_u8(byte)),
        }
    }
}

/// `content-type` as `Content-Type`.
fn spelled(name: &HeaderName) -> impl Iterator<Item = u8> + '_ {
    let mut upper = true;
    name.as_str().bytes().map(move |byte| {
        let starts = std::mem::replace(&mut upper, byte == b'-');
        if starts {
            byte.to_ascii_uppercase()
        } else {
            byte
        }
    })
}

/// The same spelling.
impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Http(one), Self::Http(other)) => one == other,
            (Self::Text(one), Self::Text(other)) => one == other,
            (Self::Http(name), Self::Text(text)) | (Self::Text(text), Self::Http(name)) => {
                name.as_str().len() == text.0.len() && spelled(name).eq(text.0.iter().copied())
            }
        }
    }
}

impl Eq for Name {}

/// By their spelling.
impl Ord for Name {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let (mut one, mut two) = (Vec::new(), Vec::new());
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => return one.0.cmp(&other.0),
            _ => {
                self.put(&mut one);
                other.put(&mut two);
            }
        }
        one.cmp(&two)
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self::Text(Text(Bytes::copy_from_slice(text.as_bytes())))
    }
}

/// A value, unless it cannot be that of a header.
pub fn value(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text).ok()
}

/// The first value of a name in any case.
pub fn find<'a>(metadata: &'a Metadata, name: &str) -> Option<&'a HeaderValue> {
    let mut pairs = metadata.iter();
    pairs
        .find(|(known, _)| known.is(name))
        .map(|(_, value)| value)
}

/// The same if it is text.
pub fn text<'a>(metadata: &'a Metadata, name: &str) -> Option<&'a str> {
    std::str::from_utf8(find(metadata, name)?.as_bytes()).ok()
}

/// Headers as metadata, all that `keep` keeps.
pub fn of_headers(headers: &HeaderMap, keep: impl Fn(&HeaderName) -> bool) -> Metadata {
    let mut metadata = Vec::with_capacity(headers.len() + MORE);
    let kept = headers.iter().filter(|(name, _)| keep(name));
    metadata.extend(kept.map(|(name, value)| (Name::Http(name.clone()), value.clone())));
    metadata
}

/// What a call to another sidecar adds.
const MORE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn http(name: &'static str) -> Name {
        Name::Http(HeaderName::from_static(name))
    }

    #[test]
    fn names_of_headers_are_spelled_as_in_http1() {
        for (name, spelling) in [
            ("content-type", "Content-Type"),
            ("x", "X"),
            ("-a--b9-c_d", "-A--B9-C_d"),
        ] {
            let name = http(name);
            let mut written = Vec::new();
            name.put(&mut written);
            assert_eq!(written, spelling.as_bytes());
            assert_eq!(name.encoded_len(), spelling.len());
            assert_eq!(name, Name::from(spelling));
            assert_eq!(name.cmp(&Name::from(spelling)), std::cmp::Ordering::Equal);
            assert_ne!(name, Name::from("content_type"));
        }
        assert_ne!(http("content-type"), Name::from("content-type"));
        assert!(http("content-type").is("CONTENT-TYPE"));
    }

    #[test]
    fn text_is_utf8() {
        assert_eq!(Text::new(Bytes::from_static(b"caf\xe9")), None);
        let name = Text::new(Bytes::from_static("é".as_bytes())).map(Name::Text);
        assert_eq!(name, Some(Name::from("é")));
        assert_eq!(name.and_then(Name::into_header), None);
        assert!(Name::from_static("X-A").is_http());
        assert!(!Name::from_static("x-a").is_http());
    }
}
