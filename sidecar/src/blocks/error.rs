//! What the APIs answer when they refuse or fail: one value, two encodings.
//! <https://docs.dapr.io/reference/errors/>

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use outrider_components::ApiError;
use outrider_metrics::ErrorCode;
use prost::Message as _;
use serde_json::{Value, json};
use tonic::Code;

use outrider_net::body::ReadError;

/// An error of the API.
#[derive(Debug, Clone)]
pub struct Error {
    /// `ERR_…`, or nothing for an error that has only a reason.
    pub code: &'static str,
    pub http: StatusCode,
    pub grpc: Code,
    pub message: String,
    /// Present on errors of the rich form; boxed because most calls succeed.
    pub rich: Option<Box<Rich>>,
}

/// What the rich form adds.
#[derive(Debug, Clone, Default)]
pub struct Rich {
    pub reason: &'static str,
    pub metadata: Option<BTreeMap<String, String>>,
    pub resource: Option<Resource>,
    pub violation: Option<Violation>,
    pub help: Option<Help>,
    /// What the component says instead: to gRPC clients, and to HTTP ones if
    /// they get the rich form.
    pub refusal: Option<ApiError>,
    /// Whether HTTP still answers in the short form.
    pub grpc_only: bool,
}

#[derive(Debug, Clone)]
pub struct Resource {
    pub kind: &'static str,
    pub name: String,
    pub description: String,
}

#[derive(Debug, Clone)]
pub struct Violation {
    pub field: String,
    pub description: String,
}

#[derive(Debug, Clone, Copy)]
pub struct Help {
    pub url: &'static str,
    pub description: &'static str,
}

/// The category that metrics have for a code.
fn category(code: &str) -> &'static str {
    let mut all = super::ALL.iter().flat_map(|block| block.errors);
    let found = all.find(|(of, _)| match of.ends_with('_') {
        true => code.starts_with(of),
        false => code == *of,
    });
    found.map_or("common", |(_, category)| category)
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of the short form: a code and a message.
    pub fn legacy(
        code: &'static str,
        http: StatusCode,
        grpc: Code,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code,
            http,
            grpc,
            message: message.into(),
            rich: None,
        }
    }

    /// An error of the rich form.
    pub fn rich(
        code: &'static str,
        reason: &'static str,
        http: StatusCode,
        grpc: Code,
        message: impl Into<String>,
    ) -> Self {
        Self {
            rich: Some(Box::new(Rich {
                reason,
                ..Rich::default()
            })),
            ..Self::legacy(code, http, grpc, message)
        }
    }

    /// Rich for gRPC clients, short for HTTP ones; the reason is the code.
    pub fn rich_on_grpc(
        code: &'static str,
        http: StatusCode,
        grpc: Code,
        message: impl Into<String>,
    ) -> Self {
        let mut error = Self::rich(code, code, http, grpc, message);
        error.edit(|rich| rich.grpc_only = true);
        error
    }

    pub fn with_metadata<K: Into<String>, V: Into<String>>(
        mut self,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let pairs: BTreeMap<String, String> = pairs
            .into_iter()
            .map(|(k, v)| (k.into(), v.into()))
            .collect();
        self.edit(|rich| rich.metadata = Some(pairs));
        self
    }

    pub fn with_resource(
        mut self,
        kind: &'static str,
        name: impl Into<String>,
        description: impl Into<String>,
    ) -> Self {
        let resource = Resource {
            kind,
            name: name.into(),
            description: description.into(),
        };
        self.edit(|rich| rich.resource = Some(resource));
        self
    }

    pub fn with_violation(
        mut self,
        field: impl Into<String>,
        description: impl Into<String>,
    ) -> Self {
        let violation = Violation {
            field: field.into(),
            description: description.into(),
        };
        self.edit(|rich| rich.violation = Some(violation));
        self
    }

    pub fn with_help(mut self, url: &'static str, description: &'static str) -> Self {
        self.edit(|rich| rich.help = Some(Help { url, description }));
        self
    }

    /// Answers the way that the component wants, without details of ours.
    pub fn with_refusal(mut self, refusal: &ApiError) -> Self {
        self.http = StatusCode::from_u16(refusal.http).unwrap_or(self.http);
        self.grpc = Code::from_i32(refusal.code);
        self.edit(|rich| {
            *rich = Rich {
                reason: rich.reason,
                grpc_only: rich.grpc_only,
                refusal: Some(refusal.clone()),
                ..Rich::default()
            };
        });
        self
    }

    /// The same where a body could not be read: one that is too large is reported
    /// by its status.
    pub fn of_body(mut self, cause: &ReadError) -> Self {
        if matches!(cause, ReadError::TooLarge) {
            self.http = StatusCode::PAYLOAD_TOO_LARGE;
            self.grpc = Code::ResourceExhausted;
        }
        self
    }

    /// What metrics know the error by; nothing if it has no code.
    pub fn known(&self) -> Option<ErrorCode> {
        let reason = self.rich.as_deref().map_or("", |rich| rich.reason);
        let category = match self.code {
            "" => return None,
            "ERR_MALFORMED_REQUEST" if reason == "DAPR_STATE_ILLEGAL_KEY" => "state",
            code => category(code),
        };
        Some(ErrorCode {
            code: self.code,
            category,
        })
    }

    fn edit(&mut self, change: impl FnOnce(&mut Rich)) {
        change(self.rich.get_or_insert_default());
    }

    /// The JSON body of the HTTP answer.
    pub fn body(&self) -> Bytes {
        /// Clients see the keys in this order.
        #[derive(serde::Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Shown<'a> {
            error_code: &'a str,
            message: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            details: Option<Value>,
        }
        let rich = self.rich.as_deref().filter(|rich| !rich.grpc_only);
        let refusal = rich.and_then(|rich| rich.refusal.as_ref());
        Bytes::from(super::json::to_vec(&Shown {
            error_code: refusal.map_or(self.code, |refusal| &refusal.tag),
            message: refusal.map_or(&self.message, |refusal| &refusal.message),
            details: rich.map(Rich::json),
        }))
    }

    /// The gRPC status, with the details of the rich form.
    pub fn status(&self) -> tonic::Status {
        let mut status = self.bare_status();
        if let Some(known) = self.known() {
            status.set_source(Arc::new(known));
        }
        status
    }

    fn bare_status(&self) -> tonic::Status {
        match &self.rich {
            None => tonic::Status::new(self.grpc, self.message.clone()),
            Some(rich) => {
                let refusal = rich.refusal.as_ref();
                let message = refusal.map_or(&self.message, |refusal| &refusal.message);
                let status = tonic_types::Status {
                    code: self.grpc as i32,
                    message: message.clone(),
                    details: rich.any(),
                };
                let details = Bytes::from(status.encode_to_vec());
                tonic::Status::with_details(self.grpc, message, details)
            }
        }
    }

    /// How the error reads inside of another one's message.
    pub fn nested(&self) -> String {
        format!(
            "api error: code = {} desc = {}",
            outrider_net::grpc::code_name(self.grpc),
            self.message
        )
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        error.status()
    }
}

const TYPE_URL: &str = "type.googleapis.com/google.rpc.";

impl Rich {
    fn json(&self) -> Value {
        let typed = |name: &str, mut value: Value| {
            value["@type"] = format!("{TYPE_URL}{name}").into();
            value
        };
        let mut details = Vec::new();
        if let Some(help) = &self.help {
            details.push(typed(
                "Help",
                json!({"links": [{"description": help.description, "url": help.url}]}),
            ));
        }
        if let Some(violation) = &self.violation {
            let mut one = json!({"description": violation.description});
            if !violation.field.is_empty() {
                one["field"] = violation.field.clone().into();
            }
            details.push(typed("BadRequest", json!({"field_violations": [one]})));
        }
        if let Some(resource) = &self.resource {
            details.push(typed(
                "ResourceInfo",
                json!({
                    "resource_type": resource.kind,
                    "resource_name": resource.name,
                    "owner": "",
                    "description": resource.description,
                }),
            ));
        }
        let (reason, domain) = self.origin();
        details.push(typed(
            "ErrorInfo",
            json!({"reason": reason, "domain": domain, "metadata": self.metadata}),
        ));
        details.into()
    }

    /// What happened, and whose word that is.
    fn origin(&self) -> (&str, &str) {
        match &self.refusal {
            None => (self.reason, "dapr.io"),
            Some(refusal) => (&refusal.reason, &refusal.domain),
        }
    }

    fn any(&self) -> Vec<outrider_proto::Any> {
        use tonic_types::pb;
        let any = |name: &str, value: Vec<u8>| outrider_proto::Any {
            type_url: format!("{TYPE_URL}{name}"),
            value,
        };
        let mut details = Vec::new();
        if let Some(help) = &self.help {
            let links = vec![pb::help::Link {
                description: help.description.into(),
                url: help.url.into(),
            }];
            details.push(any("Help", pb::Help { links }.encode_to_vec()));
        }
        if let Some(violation) = &self.violation {
            let field_violations = vec![pb::bad_request::FieldViolation {
                field: violation.field.clone(),
                description: violation.description.clone(),
                ..Default::default()
            }];
            details.push(any(
                "BadRequest",
                pb::BadRequest { field_violations }.encode_to_vec(),
            ));
        }
        if let Some(resource) = &self.resource {
            let info = pb::ResourceInfo {
                resource_type: resource.kind.into(),
                resource_name: resource.name.clone(),
                owner: String::new(),
                description: resource.description.clone(),
            };
            details.push(any("ResourceInfo", info.encode_to_vec()));
        }
        let (reason, domain) = self.origin();
        let info = pb::ErrorInfo {
            reason: reason.into(),
            domain: domain.into(),
            metadata: self
                .metadata
                .clone()
                .unwrap_or_default()
                .into_iter()
                .collect(),
        };
        details.push(any("ErrorInfo", info.encode_to_vec()));
        details
    }
}

// Errors that several blocks share.

pub fn malformed(message: impl Into<String>) -> Error {
    Error::legacy(
        "ERR_MALFORMED_REQUEST",
        StatusCode::BAD_REQUEST,
        Code::InvalidArgument,
        message,
    )
}

pub fn body_read(cause: ReadError) -> Error {
    let error = Error::legacy(
        "ERR_BODY_READ",
        StatusCode::BAD_REQUEST,
        Code::InvalidArgument,
        format!("failed to read request body: {cause}"),
    );
    error.of_body(&cause)
}

/// A route of Dapr's API that this release does not have yet.
pub fn unimplemented(what: &str) -> Error {
    Error::legacy(
        "ERR_API_UNIMPLEMENTED",
        StatusCode::NOT_IMPLEMENTED,
        Code::Unimplemented,
        format!(
            "this API is currently not implemented: {what} is not part of this release of Outrider"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_form_has_two_keys() {
        let error = malformed("bad <input>");
        assert_eq!(
            &error.body()[..],
            br#"{"errorCode":"ERR_MALFORMED_REQUEST","message":"bad \u003cinput\u003e"}"#
        );
        assert!(error.status().details().is_empty());
    }

    #[test]
    fn rich_form_ends_with_error_info() {
        let error = Error::rich(
            "ERR_X",
            "DAPR_X",
            StatusCode::BAD_REQUEST,
            Code::InvalidArgument,
            "m",
        )
        .with_resource("state", "s", "");
        let text = error.body();
        assert!(text.starts_with(br#"{"errorCode":"ERR_X","message":"m","details":[{"#));
        let body: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(body["details"][0]["resource_name"], "s");
        assert_eq!(
            body["details"][1]["@type"],
            "type.googleapis.com/google.rpc.ErrorInfo"
        );
        assert_eq!(body["details"][1]["metadata"], Value::Null);
        let status = tonic_types::Status::decode(error.status().details()).unwrap();
        assert_eq!((status.code, status.details.len()), (3, 2));
    }
}
