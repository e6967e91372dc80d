//! `bindings.smtp` on a real server.

use std::sync::Arc;
use std::time::Duration;

use outrider_components::bindings::Binding;
use outrider_conformance::bindings::{has_directions, invoke, output};
use outrider_conformance::server::{self, Server};
use serde_json::Value;

use crate::bindings::connect;

const SCRIPT: &str = include_str!("smtp_server.py");

/// The mail with a number, once it has arrived.
async fn mail(server: &Server, number: usize) -> Value {
    let path = server.folder().join(format!("mail{number}.json"));
    let limit = Duration::from_secs(10);
    outrider_conformance::eventually("the mail arrives", limit, || async { path.exists() }).await;
    let text = std::fs::read(&path).expect("is there");
    serde_json::from_slice(&text).expect("is JSON")
}

async fn binding(server: &Server, more: &[(&str, &str)]) -> Arc<Binding> {
    let port = server.port.to_string();
    let mut properties = vec![
        ("host", "localhost"),
        ("port", &*port),
        ("emailFrom", "me@a.example"),
        ("subject", "of the file"),
    ];
    properties.extend(more);
    let binding = connect("bindings.smtp", &properties).await;
    binding.expect("connects")
}

#[tokio::test]
async fn mails_arrive() {
    let Some(server) = server::smtp(SCRIPT, None).await else {
        return;
    };
    let mails = binding(&server, &[("emailTo", "first@a.example")]).await;
    let request = [
        ("emailTo", "Zoë Q. <zoe@b.example>;two@b.example"),
        ("emailCC", "three@b.example"),
        ("emailBCC", "four@b.example"),
        ("subject", "grüße, 世界"),
        ("priority", "2"),
    ];
    // Lines that begin with points, long lines and other alphabets.
    let long = "ж".repeat(5000);
    let body = format!("<p>{long}</p>\n.\n..\n.end\r\nMAIL FROM:<evil@a.example>");
    let sent = invoke(output(&mails), "create", body, &request).await;
    assert!(sent.expect("sends").is_none());
    let arrived = mail(&server, 1).await;
    let to = [
        "zoe@b.example",
        "two@b.example",
        "three@b.example",
        "four@b.example",
    ];
    assert_eq!(arrived["to"], serde_json::json!(to));
    let text = arrived["text"].as_str().expect("a text");
    assert!(text.contains("X-Priority: 2\r\n"), "{text}");
    assert!(!text.contains("four@"), "{text}");
    assert_eq!(arrived["encrypted"], false);
    // A request changes nothing for the next one.
    let data = serde_json::to_string("<b>\"hi\"</b>").expect("is JSON");
    let sent = invoke(output(&mails), "create", data, &[]).await;
    sent.expect("sends");
    let arrived = mail(&server, 2).await;
    assert_eq!(arrived["to"], serde_json::json!(["first@a.example"]));
    let text = arrived["text"].as_str().expect("a text");
    assert!(text.contains("Subject: of the file\r\n"), "{text}");
    assert!(text.contains("X-Priority: 3\r\n"), "{text}");
    assert!(text.trim_end().ends_with("<b>\"hi\"</b>"), "{text}");
    // With a password, right and wrong.
    let user = [
        ("emailTo", "a@a.example"),
        ("user", "me"),
        ("password", "secret"),
    ];
    let sender = binding(&server, &user).await;
    let sent = invoke(output(&sender), "create", "x", &[]).await;
    sent.expect("sends");
    assert_eq!(mail(&server, 3).await["user"], "me");
    let sender = binding(&server, &[user[0], user[1], ("password", "guess")]).await;
    let refused = invoke(output(&sender), "create", "x", &[]).await;
    let error = refused.expect_err("is refused").to_string();
    let start = "error from smtp binding, sending email failed: ";
    assert!(error.starts_with(start) && error.contains("535"), "{error}");
    has_directions((false, true), |direction| async move {
        let properties = [("host", "localhost"), ("direction", direction)];
        connect("bindings.smtp", &properties).await
    })
    .await;
}

#[tokio::test]
async fn tls_is_used_where_the_server_offers_it() {
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]);
    let certificate = certificate.expect("generates");
    let pem = format!(
        "{}{}",
        certificate.cert.pem(),
        certificate.signing_key.serialize_pem()
    );
    let Some(server) = server::smtp(SCRIPT, Some(&pem)).await else {
        return;
    };
    let to = ("emailTo", "a@a.example");
    let trusting = binding(&server, &[to, ("skipTLSVerify", "true")]).await;
    let sent = invoke(output(&trusting), "create", "x", &[]).await;
    sent.expect("sends");
    assert_eq!(mail(&server, 1).await["encrypted"], true);
    let checking = binding(&server, &[to]).await;
    let refused = invoke(output(&checking), "create", "x", &[]).await;
    let error = refused.expect_err("nobody has signed it").to_string();
    assert!(error.contains("certificate"), "{error}");
}

#[tokio::test]
async fn what_a_file_lacks_is_named() {
    for (properties, error) in [
        (
            &[("port", "25")][..],
            "smtp binding error: host and port fields are required in metadata",
        ),
        (
            &[("host", "a"), ("user", "b")],
            "smtp binding error: both user and password fields are required in metadata",
        ),
        (
            &[("host", "a"), ("priority", "9")],
            "smtp binding error:  priority value must be between 1 (highest) and 5 (lowest)",
        ),
    ] {
        let refused = connect("bindings.smtp", properties).await.err();
        assert_eq!(refused.expect("is refused").to_string(), error);
    }
    let nobody = [
        ("host", "127.0.0.1"),
        ("port", "1"),
        ("emailFrom", "a@a.example"),
        ("emailTo", "a@a.example"),
        ("subject", "x"),
    ];
    let binding = connect("bindings.smtp", &nobody)
        .await
        .expect("connects later");
    let error = invoke(output(&binding), "create", "x", &[]).await;
    let error = error.expect_err("nothing listens").to_string();
    let start = "error from smtp binding, sending email failed: ";
    assert!(error.starts_with(start), "{error}");
}
