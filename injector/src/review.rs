//! Admission reviews: requests of the API server and their answers.
//! <https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/>

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use outrider_crds::decode;
use serde::Deserialize;
use serde_json::{Value, json};

/// `admission.k8s.io/v1` or `v1beta1`; the answer has the same.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Review {
    pub api_version: String,
    pub kind: String,
    pub request: Option<Request>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Request {
    pub uid: String,
    pub kind: GroupVersionKind,
    pub name: String,
    pub namespace: String,
    pub operation: String,
    #[serde(rename = "userInfo")]
    pub user: User,
    pub object: Value,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct GroupVersionKind {
    pub group: String,
    pub version: String,
    pub kind: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct User {
    pub username: String,
    pub groups: Vec<String>,
}

impl Review {
    pub fn parse(body: &[u8]) -> Result<Self, decode::Error> {
        let document: Value = serde_json::from_slice(body).map_err(|error| {
            decode::Error::new(format!(
                "couldn't get version/kind; json parse error: {error}"
            ))
        })?;
        if !document.is_object() {
            return Err(decode::Error::new(
                "couldn't get version/kind; json parse error: not an object",
            ));
        }
        decode::from_value(&document)
    }

    /// The answer to this review.
    pub fn answer(&self, verdict: &Verdict) -> Value {
        let uid = self
            .request
            .as_ref()
            .map(|request| request.uid.as_str())
            .unwrap_or_default();
        let mut answer = json!({"response": verdict.response(uid)});
        if !self.kind.is_empty() {
            answer["kind"] = json!(self.kind);
            answer["apiVersion"] = json!(self.api_version);
        }
        answer
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The object is fine as it is.
    Unchanged,
    Patched {
        operations: Vec<Value>,
        warnings: Vec<String>,
    },
    Refused(String),
}

impl Verdict {
    fn response(&self, uid: &str) -> Value {
        match self {
            Self::Unchanged => json!({"uid": uid, "allowed": true}),
            Self::Refused(message) => {
                json!({"uid": uid, "allowed": false, "status": {"metadata": {}, "message": message}})
            }
            Self::Patched {
                operations,
                warnings,
            } => {
                let patch = BASE64.encode(json!(operations).to_string());
                let mut response =
                    json!({"uid": uid, "allowed": true, "patch": patch, "patchType": "JSONPatch"});
                if !warnings.is_empty() {
                    response["warnings"] = json!(warnings);
                }
                response
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_the_version_and_uid_of_its_request() {
        for version in ["admission.k8s.io/v1", "admission.k8s.io/v1beta1"] {
            let body = json!({"apiVersion": version, "kind": "AdmissionReview", "request": {"uid": "u", "object": null}});
            let review = Review::parse(body.to_string().as_bytes()).unwrap();
            assert_eq!(
                review.answer(&Verdict::Unchanged),
                json!({"apiVersion": version, "kind": "AdmissionReview", "response": {"uid": "u", "allowed": true}})
            );
        }
    }

    #[test]
    fn a_body_that_is_not_a_review_is_an_error() {
        for (body, error) in [
            ("<", "json parse error: expected value"),
            ("[]", "not an object"),
            (r#"{"request":[]}"#, "request"),
        ] {
            let error_text = Review::parse(body.as_bytes()).unwrap_err().to_string();
            assert!(error_text.contains(error), "{error_text}");
        }
    }

    #[test]
    fn a_refusal_has_a_message_and_a_patch_is_encoded() {
        let review = Review::default();
        assert_eq!(
            review.answer(&Verdict::Refused("no".into())),
            json!({"response": {"uid": "", "allowed": false, "status": {"metadata": {}, "message": "no"}}})
        );
        let patched = Verdict::Patched {
            operations: vec![json!({"op": "add"})],
            warnings: vec!["w".into()],
        };
        let answer = review.answer(&patched);
        assert_eq!(answer["response"]["patchType"], "JSONPatch");
        let patch = BASE64
            .decode(answer["response"]["patch"].as_str().unwrap())
            .unwrap();
        assert_eq!(patch, br#"[{"op":"add"}]"#);
        assert_eq!(answer["response"]["warnings"], json!(["w"]));
    }
}
