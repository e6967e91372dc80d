//! HTTP middleware that asks other servers.

pub mod bearer;
mod fetch;
pub mod oauth2;
pub mod oauth2clientcredentials;
mod session;
mod token;

use outrider_kit::pattern::Pattern;

/// Whether a request passes without a login: if its path does not match, and
/// neither does what a router may make of it.
fn is_exempt(filter: &Pattern, path: &str) -> bool {
    !filter.is_match(path) && !filter.is_match(&cleaned(path))
}

/// A path without empty, `.` and `..` segments.
fn cleaned(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_way_to_write_a_path_leads_around_a_login() {
        let filter = Pattern::new("^/v1\\.0/invoke/.*").unwrap();
        for path in [
            "/v1.0/invoke/x",
            "//v1.0/invoke/x",
            "/v1.0//invoke/x",
            "/./v1.0/invoke/x",
            "/a/../v1.0/invoke/x",
        ] {
            assert!(!is_exempt(&filter, path), "{path}");
        }
        assert!(is_exempt(&filter, "/v1.0/metadata"));
    }
}
