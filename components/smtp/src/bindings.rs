//! `bindings.smtp`: <https://docs.dapr.io/reference/components-reference/supported-bindings/smtp/>.

use std::sync::Arc;

use async_trait::async_trait;
use lettre::Message;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder};
use outrider_components::bindings::{Answer, Binding, CREATE, Failure, Output, Request};
use outrider_components::{Context, Error, Field, Metadata, Secret, Truthy};

use crate::connection::{Server, User};

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

const SCOPE: &str = "dapr.contrib";
/// Between addresses.
const SEPARATOR: char = ';';
const DEFAULT_PRIORITY: i64 = 3;
/// Addresses of one kind.
const MOST_ADDRESSES: usize = 1000;
const NO_HOST: &str = "smtp binding error: host and port fields are required in metadata";

outrider_components::fields! {
    struct Fields {
        /// Host of the server.
        "host" => host: String, missing "smtp binding error: host and port fields are required in metadata";
        /// Port of the server. On 465 TLS begins at once, elsewhere when the
        /// server offers it.
        "port" => port: u16 = "587";
        /// User at the server. The password is not sent without TLS, other than
        /// to this machine.
        "user" => user: Option<String>;
        /// Password of the user.
        "password" => password: Option<Secret>;
        /// Whether any certificate of the server is accepted.
        "skipTLSVerify" => skip_verify: Truthy = "false";
        /// The sender, `name <address>` or an address. This and the following
        /// can be set in the metadata of a request as well.
        "emailFrom" => from: Option<String>;
        /// Recipients, separated by `;`.
        "emailTo" => to: Option<String>;
        /// More of them.
        "emailCC" => cc: Option<String>;
        /// More of them, of whom the others do not know.
        "emailBCC" => bcc: Option<String>;
        /// The subject.
        "subject" => subject: Option<String>;
        /// From 1 (highest) to 5 (lowest).
        "priority" => priority: Option<String>;
    }
}

struct Smtp {
    server: Server,
    fields: Fields,
}

/// Connects for each mail.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<Binding>, Error> {
    let fields = Fields::read(&metadata)?;
    if fields.port == 0 {
        return Err(Error::invalid(NO_HOST));
    }
    priority(fields.priority.as_deref())?;
    let user = match (&fields.user, &fields.password) {
        (Some(name), Some(Secret(password))) => Some(User {
            name: name.clone(),
            password: password.clone(),
        }),
        (None, None) => {
            tracing::warn!(target: SCOPE, "smtp binding warn: User and password are empty");
            None
        }
        _ => {
            return Err(Error::invalid(
                "smtp binding error: both user and password fields are required in metadata",
            ));
        }
    };
    if fields.skip_verify.0 {
        tracing::warn!(target: SCOPE, "smtp binding warn: Skip TLS Verification is enabled. This is insecure and is NOT recommended for production scenarios.");
    }
    let server = Server::new(&fields.host, fields.port, user, fields.skip_verify.0)?;
    Ok(Binding::of_output(&metadata, Smtp { server, fields }))
}

fn priority(text: Option<&str>) -> Result<i64, Error> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(DEFAULT_PRIORITY);
    };
    let quoted = outrider_kit::quote::go(text);
    let number: i64 = text
        .parse()
        .map_err(|_| Error::invalid(format!("strconv.Atoi: parsing {quoted}: invalid syntax")))?;
    match number {
        1..=5 => Ok(number),
        _ => Err(Error::invalid(
            "smtp binding error:  priority value must be between 1 (highest) and 5 (lowest)",
        )),
    }
}

/// Adds addresses with names, separated.
fn addressed(
    mut message: MessageBuilder,
    text: &str,
    add: fn(MessageBuilder, Mailbox) -> MessageBuilder,
) -> Result<MessageBuilder, Error> {
    if text.is_empty() {
        return Ok(message);
    }
    for (count, text) in text.split(SEPARATOR).enumerate() {
        if count == MOST_ADDRESSES {
            return Err(Error::invalid(format!(
                "smtp binding error: {MOST_ADDRESSES} addresses of a kind at most"
            )));
        }
        message = add(message, mailbox(text)?);
    }
    Ok(message)
}

fn mailbox(text: &str) -> Result<Mailbox, Error> {
    text.trim().parse().map_err(|error| {
        let quoted = outrider_kit::quote::go(text);
        failed(format!("gomail: invalid address {quoted}: {error}"))
    })
}

fn failed(what: String) -> Error {
    Error::invalid(format!(
        "error from smtp binding, sending email failed: {what}"
    ))
}

impl Smtp {
    /// The mail that a request asks for.
    fn message(&self, request: &Request) -> Result<Message, Error> {
        let fields = &self.fields;
        let get = |name: &str, own: &Option<String>| {
            let given = request.metadata.get(name).filter(|text| !text.is_empty());
            let text = given.or(own.as_ref()).cloned().unwrap_or_default();
            // Nothing may end its header and begin another.
            match text.chars().any(char::is_control) {
                true => Err(Error::invalid(format!(
                    "smtp binding error: {name} has control characters or line breaks"
                ))),
                false => Ok(text),
            }
        };
        let needed = |name: &str, own: &Option<String>| match get(name, own)? {
            text if text.is_empty() => Err(Error::invalid(format!(
                "smtp binding error: {name} property not supplied in configuration- or request-metadata"
            ))),
            text => Ok(text),
        };
        let priority = priority(Some(&get("priority", &fields.priority)?))?;
        let from = needed("emailFrom", &fields.from)?;
        let to = needed("emailTo", &fields.to)?;
        let subject = needed("subject", &fields.subject)?;
        let mut message = Message::builder().from(mailbox(&from)?).subject(subject);
        message = addressed(message, &to, MessageBuilder::to)?;
        message = addressed(message, &get("emailCC", &fields.cc)?, MessageBuilder::cc)?;
        message = addressed(message, &get("emailBCC", &fields.bcc)?, MessageBuilder::bcc)?;
        let name = HeaderName::new_from_ascii_str("X-Priority");
        message = message
            .raw_header(HeaderValue::new(name, priority.to_string()))
            .header(ContentType::TEXT_HTML);
        // A text in JSON is what it says.
        let body = serde_json::from_slice(&request.data)
            .unwrap_or_else(|_| String::from_utf8_lossy(&request.data).into_owned());
        message
            .body(body)
            .map_err(|error| failed(error.to_string()))
    }
}

#[async_trait]
impl Output for Smtp {
    fn operations(&self) -> Vec<&str> {
        vec![CREATE]
    }

    async fn invoke(&self, request: &Request) -> Result<Option<Answer>, Failure> {
        let message = self.message(request)?;
        self.server
            .send(&message)
            .await
            .map_err(|error| error.context("error from smtp binding, sending email failed"))?;
        tracing::debug!(target: SCOPE, "smtp binding: sent email successfully");
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use outrider_components::Pairs;

    use super::*;

    fn message(properties: &[(&str, &str)], request: &[(&str, &str)]) -> Result<String, String> {
        let metadata = Metadata::new("mail", properties.iter().copied());
        let fields = Fields::read(&metadata).expect("is right");
        let server = Server::new("localhost", 25, None, false).expect("is right");
        let pairs = request.iter();
        let pairs: Pairs = pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let request = Request {
            operation: CREATE.to_owned(),
            data: "\"<b>hi</b>\"".into(),
            metadata: pairs,
        };
        let message = Smtp { server, fields }.message(&request);
        let message = message.map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&message.formatted()).into_owned())
    }

    const COMPLETE: &[(&str, &str)] = &[
        ("host", "localhost"),
        ("emailFrom", "me@a.example"),
        ("emailTo", "you@a.example"),
        ("subject", "hello"),
    ];

    #[test]
    fn requests_replace_what_the_file_says() {
        let text = message(
            COMPLETE,
            &[
                ("emailTo", "A B <a@b.example>; c@d.example"),
                ("emailCC", "e@f.example"),
                ("emailBCC", "secret@g.example"),
                ("subject", "grüße"),
                ("priority", "1"),
            ],
        )
        .expect("is complete");
        for line in [
            "From: me@a.example\r\n",
            "To: \"A B\" <a@b.example>, c@d.example\r\n",
            "Cc: e@f.example\r\n",
            "X-Priority: 1\r\n",
            "Content-Type: text/html; charset=utf-8\r\n",
            "Subject: =?utf-8?b?",
        ] {
            let plain = line.replace('"', "");
            assert!(
                text.contains(line) || text.contains(&plain),
                "{line} {text}"
            );
        }
        assert!(!text.contains("secret"), "{text}");
        assert!(text.ends_with("<b>hi</b>"), "{text}");
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let error = |request: &[(&str, &str)]| message(COMPLETE, request).expect_err("is wrong");
        assert_eq!(
            message(&COMPLETE[..3], &[]).expect_err("has no subject"),
            "smtp binding error: subject property not supplied in configuration- or request-metadata"
        );
        assert_eq!(
            error(&[("priority", "6")]),
            "smtp binding error:  priority value must be between 1 (highest) and 5 (lowest)"
        );
        assert_eq!(
            error(&[("priority", "high")]),
            r#"strconv.Atoi: parsing "high": invalid syntax"#
        );
        assert!(error(&[("emailTo", "a@b.example;")]).contains(r#"gomail: invalid address """#));
    }

    #[test]
    fn headers_cannot_be_added_by_what_clients_send() {
        for (name, value) in [
            ("subject", "x\r\nBcc: evil@a.example"),
            ("subject", "x\ny"),
            ("emailFrom", "a@b.example\r\nRCPT TO:<evil@a.example>"),
            ("emailTo", "\"a\r\nBcc: evil\" <a@b.example>"),
            ("emailCC", "a@b.example\0"),
            ("priority", "1\r\nX: y"),
        ] {
            let error = message(COMPLETE, &[(name, value)]).expect_err(name);
            assert!(error.starts_with("smtp binding error: "), "{error}");
        }
        // What has no line breaks may look like a header.
        let text = message(COMPLETE, &[("subject", "x%0d%0aBcc: evil@a.example")]);
        let text = text.expect("is a subject");
        assert!(!text.contains("\nBcc"), "{text}");
    }
}
