use super::*;
use outrider_call::message::Origin;

fn request(method: &str, query: &str) -> Request {
    Request {
        method: method.to_owned(),
        verb: Some(http::Method::GET),
        query: query.to_owned(),
        metadata: Vec::new(),
        origin: Origin::Http,
        content_type: None,
        content_length: None,
        data_type_url: String::new(),
        body: Data::Whole(bytes::Bytes::new()),
    }
}

#[test]
fn addresses() {
    for (base, method, query, expected) in [
        ("http://h:1", "a/b c", "q=1", "http://h:1/a/b%20c?q=1"),
        ("https://h/base/", "a", "", "https://h/base/a"),
        ("https://h", "", "", "https://h/"),
        ("http://[::1]:8", "a", "", "http://[::1]:8/a"),
    ] {
        let uri = address(base, &request(method, query)).unwrap();
        assert_eq!(uri.to_string(), expected);
    }
    for base in ["h:1", "ftp://h", "http://", ""] {
        address(base, &request("a", "")).unwrap_err();
    }
}
