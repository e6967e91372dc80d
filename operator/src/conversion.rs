//! Converts Subscriptions between versions, for the API server.
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/#webhook-conversion>

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use http::{StatusCode, header};
use outrider_crds::subscription;
use serde_json::{Value, json};

pub fn router() -> Router {
    Router::new()
        .route("/convert", any(convert))
        // The listener has a limit of its own.
        .layer(DefaultBodyLimit::disable())
}

async fn convert(body: Bytes) -> Response {
    match serde_json::from_slice(&body).ok().and_then(answer) {
        Some(review) => (
            [(header::CONTENT_TYPE, "application/json")],
            review.to_string(),
        )
            .into_response(),
        None => StatusCode::BAD_REQUEST.into_response(),
    }
}

/// The review with its answer in the place of its request.
fn answer(mut review: Value) -> Option<Value> {
    let request = review
        .as_object_mut()?
        .remove("request")
        .filter(Value::is_object)?;
    let desired = request["desiredAPIVersion"].as_str().unwrap_or_default();
    let objects = request["objects"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let converted: Result<Vec<_>, _> = objects
        .iter()
        .map(|object| subscription::convert(object, desired))
        .collect();
    review["response"] = match converted {
        Ok(converted) => {
            json!({"uid": request["uid"], "convertedObjects": converted, "result": {"status": "Success"}})
        }
        Err(error) => json!({
            "uid": request["uid"],
            "convertedObjects": null,
            "result": {"status": "Failure", "message": error.to_string()},
        }),
    };
    Some(review)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(desired: &str, versions: &[&str]) -> Value {
        let object = |version: &&str| {
            json!({"apiVersion": format!("dapr.io/{version}"), "kind": "Subscription", "metadata": {"name": version},
                "spec": {"pubsubname": "p", "topic": "t", "route": "/r"}})
        };
        let objects: Vec<_> = versions.iter().map(object).collect();
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
            "request": {"uid": "u", "desiredAPIVersion": format!("dapr.io/{desired}"), "objects": objects}})
    }

    #[test]
    fn every_object_of_a_review_is_converted() {
        let answer = answer(review("v2alpha1", &["v1alpha1", "v1alpha1"])).unwrap();
        assert_eq!(answer["kind"], "ConversionReview");
        assert!(answer.get("request").is_none());
        let response = &answer["response"];
        assert_eq!(
            (&response["uid"], &response["result"]),
            (&json!("u"), &json!({"status": "Success"}))
        );
        assert_eq!(response["convertedObjects"].as_array().unwrap().len(), 2);
        assert_eq!(
            response["convertedObjects"][1]["spec"]["routes"],
            json!({"default": "/r"})
        );
    }

    #[test]
    fn one_object_that_cannot_be_converted_fails_the_whole_review() {
        let answer = answer(review("v2alpha1", &["v1alpha1", "v2alpha1"])).unwrap();
        let response = &answer["response"];
        assert_eq!(
            (&response["uid"], &response["convertedObjects"]),
            (&json!("u"), &Value::Null)
        );
        assert_eq!(response["result"]["status"], "Failure");
        let message = "conversion is not allowed between same type *v2alpha1.Subscription";
        assert_eq!(response["result"]["message"], message);
    }

    #[test]
    fn a_body_that_is_not_a_review_has_no_answer() {
        for body in [json!([]), json!({}), json!({"request": null})] {
            assert_eq!(answer(body), None);
        }
    }
}
