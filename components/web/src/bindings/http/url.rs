//! Where a request goes: to the URL of the component, or to what is below it.

use outrider_components::Error;
use outrider_kit::quote;
use percent_encoding::percent_decode;
use reqwest::Url;

/// How often a path is decoded until nothing changes; others are refused.
const MOST_DECODED: usize = 8;

/// The URL of the component.
#[derive(Debug, Clone)]
pub struct Base {
    /// As it was written.
    text: String,
    url: Url,
}

impl Base {
    /// The error follows the name of the property.
    pub fn parse(text: &str) -> Result<Base, String> {
        match Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(Base {
                text: text.to_owned(),
                url,
            }),
            _ => Err(format!(
                "must be an http or https URL, not {}",
                quote::go(text)
            )),
        }
    }

    /// The URL with `path` behind it. Clients of the sidecar give the path, and
    /// must not reach other parts of the server by `..` in any spelling, or
    /// another server.
    pub fn with(&self, path: &str) -> Result<Url, Error> {
        if path.is_empty() {
            return Ok(self.url.clone());
        }
        let refused = || {
            Error::invalid(format!(
                "the path {} is refused: it leads out of the URL of the binding",
                quote::go(path)
            ))
        };
        let text = format!(
            "{}/{}",
            self.text.trim_end_matches('/'),
            path.trim_start_matches('/')
        );
        let url = Url::parse(&text).map_err(|_| refused())?;
        let authority = |url: &Url| {
            let (host, port) = (
                url.host_str().map(str::to_owned),
                url.port_or_known_default(),
            );
            (
                url.scheme().to_owned(),
                url.username().to_owned(),
                host,
                port,
            )
        };
        let is_below = url
            .path()
            .strip_prefix(self.url.path().trim_end_matches('/'))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if authority(&url) != authority(&self.url) || !is_below || climbs(url.path()) {
            return Err(refused());
        }
        Ok(url)
    }
}

/// Whether a server could find `..` in the path, which it and proxies before it
/// may decode once each. What follows a `;` are parameters, which some servers
/// cut off.
fn climbs(path: &str) -> bool {
    let mut decoded = path.as_bytes().to_vec();
    for _ in 0..MOST_DECODED {
        let next: Vec<u8> = percent_decode(&decoded).collect();
        if next == decoded {
            return decoded
                .split(|byte| matches!(byte, b'/' | b'\\'))
                .any(|part| part.split(|byte| *byte == b';').next() == Some(b".."));
        }
        decoded = next;
    }
    // Nobody means that.
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with(base: &str, path: &str) -> Option<String> {
        let base = Base::parse(base).expect("is valid");
        base.with(path).ok().map(|url| url.to_string())
    }

    #[test]
    fn a_path_goes_behind_the_url() {
        for (base, path, wanted) in [
            ("http://a/b", "", "http://a/b"),
            ("http://a/b/", "/c", "http://a/b/c"),
            ("http://a", "c/d?e=1&f=%20", "http://a/c/d?e=1&f=%20"),
            ("http://a:1/b?k=v", "x", "http://a:1/b?k=v/x"),
            ("http://a/b", "c/../d", "http://a/b/d"),
            ("http://u:p@a/b", "//c", "http://u:p@a/b/c"),
            ("https://a", "@evil", "https://a/@evil"),
            ("http://a/b", "c;v=1/d..;e", "http://a/b/c;v=1/d..;e"),
            ("http://a/b", "100%25/%2541", "http://a/b/100%25/%2541"),
        ] {
            assert_eq!(with(base, path).as_deref(), Some(wanted), "{base} {path}");
        }
    }

    #[test]
    fn no_path_leads_out_of_the_url() {
        for path in [
            "..",
            "../admin",
            "c/../../admin",
            "%2e%2e/admin",
            ".%2E/admin",
            "..\\admin",
            "c/..\\..\\admin",
            "%2e%2e%2fadmin",
            "..%2fadmin",
            "..%5cadmin",
            "c/%2e%2e%2f%2e%2e%2fadmin",
            "..;/admin",
            "..;a=b/admin",
            "%2e%2e%3ba/admin",
            "%252e%252e/admin",
            "%25252e%25252e%25252fadmin",
            "..%253b/admin",
        ] {
            assert_eq!(with("http://a/b", path), None, "{path}");
        }
        let often = format!("%{}2e./admin", "25".repeat(20));
        assert_eq!(with("http://a/b", &often), None);
        assert_eq!(
            with("http://a", ":80@evil/x").as_deref(),
            Some("http://a/:80@evil/x")
        );
    }

    proptest! {
        #[test]
        fn prop_the_server_and_its_folder_stay(path in "[a-z./\\\\%2eE5cfF@:?#\t\n ]{0,24}") {
            let base = Base::parse("http://a/b/c").expect("is valid");
            if let Ok(url) = base.with(&path) {
                prop_assert_eq!(url.host_str(), Some("a"));
                prop_assert!(url.path().starts_with("/b/c"));
                prop_assert!(!climbs(url.path()));
            }
        }
    }
}
