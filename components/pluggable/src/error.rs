//! What a component's status means.

use outrider_components::{Error, Kind, Refusal};
use outrider_kit::grpc;
use tonic::{Code, Response, Status};
use tonic_types::{ErrorDetail, ErrorInfo, StatusExt as _};

/// A status as Go prints it.
pub fn text(status: &Status) -> String {
    grpc::status(status.code() as i32, status.message())
}

/// The error of any operation.
pub fn of(status: Status) -> Error {
    meaning(&status).with_code(status.code() as i32)
}

/// Of an operation whose answer says nothing but that it went well.
pub fn done<T>(answer: Result<Response<T>, Status>) -> Result<(), Error> {
    answer.map(drop).map_err(of)
}

fn meaning(status: &Status) -> Error {
    let details = status.get_error_details_vec();
    match details.as_slice() {
        [ErrorDetail::ErrorInfo(info)] => refusal(status, info),
        [ErrorDetail::BadRequest(bad)] => match bad.field_violations.as_slice() {
            [violation] if violation.field == "etag" => match status.code() {
                Code::FailedPrecondition => Some(Error::etag_mismatch(&violation.description)),
                Code::InvalidArgument => Some(Error::etag_invalid(&violation.description)),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
    .unwrap_or_else(|| {
        let kind = match status.code() {
            Code::Unimplemented => Kind::Unsupported,
            Code::Unavailable | Code::DeadlineExceeded => Kind::Unavailable,
            _ => Kind::Internal,
        };
        Error::new(kind, text(status))
    })
}

/// The error of a bulk delete, which may have hit fewer rows than asked for.
pub fn of_bulk_delete(status: Status) -> Error {
    if status.code() == Code::Internal
        && let [ErrorDetail::ErrorInfo(info)] = status.get_error_details_vec().as_slice()
        && let Some(expected) = info.metadata.get("expected")
        && let Some(affected) = info.metadata.get("affected")
    {
        return match (expected.parse::<u64>(), affected.parse::<u64>()) {
            (Ok(expected), Ok(affected)) => Error::internal(format!(
                "delete affected only {affected} rows, expected {expected}"
            )),
            _ => Error::internal(format!(
                "{}; the numbers of rows are none: expected {expected:?}, affected {affected:?}",
                text(&status)
            )),
        };
    }
    of(status)
}

/// What the component wants its caller to see.
fn refusal(status: &Status, info: &ErrorInfo) -> Option<Error> {
    let said = |key: &str| info.metadata.get(key).map_or("", String::as_str);
    if said("kit_error") != "true" {
        return None;
    }
    let (code, message) = (status.code() as i32, status.message());
    let refusal = Refusal {
        code,
        http: said("http_code").parse().ok()?,
        message: message.to_owned(),
        tag: said("tag").to_owned(),
        reason: info.reason.clone(),
        domain: info.domain.clone(),
    };
    let name = grpc::code_name(code);
    let text = format!("api error: code = {name} desc = {message}");
    Some(Error::internal(text).refusing(refusal))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::{ErrorDetails, FieldViolation};

    use super::*;

    fn info(code: Code, pairs: &[(&str, &str)]) -> Status {
        let pairs: HashMap<String, String> = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let details = ErrorDetails::with_error_info("why", "where", pairs);
        Status::with_error_details(code, "no", details)
    }

    fn violation(code: Code, field: &str) -> Status {
        let violations = vec![FieldViolation::new(field, "it is 3")];
        let details = ErrorDetails::with_bad_request(violations);
        Status::with_error_details(code, "no", details)
    }

    #[test]
    fn etags_have_their_own_kinds() {
        let mismatch = of(violation(Code::FailedPrecondition, "etag"));
        assert_eq!(mismatch.kind(), Kind::EtagMismatch);
        assert_eq!(
            mismatch.to_string(),
            "possible etag mismatch. error from state store: it is 3"
        );
        let invalid = of(violation(Code::InvalidArgument, "etag"));
        assert_eq!(invalid.kind(), Kind::EtagInvalid);
        for other in [
            violation(Code::FailedPrecondition, "key"),
            violation(Code::Aborted, "etag"),
        ] {
            assert_eq!(of(other).kind(), Kind::Internal);
        }
    }

    #[test]
    fn a_component_may_say_what_its_caller_sees() {
        let pairs = [("kit_error", "true"), ("http_code", "507"), ("tag", "T")];
        let error = of(info(Code::DataLoss, &pairs));
        assert_eq!(error.to_string(), "api error: code = DataLoss desc = no");
        let refusal = error.refusal().expect("it was said");
        assert_eq!((refusal.code, refusal.http), (15, 507));
        assert_eq!((&*refusal.tag, &*refusal.reason), ("T", "why"));
        let plain = of(info(Code::DataLoss, &pairs[1..]));
        assert!(plain.refusal().is_none());
        assert_eq!(plain.to_string(), "rpc error: code = DataLoss desc = no");
    }

    #[test]
    fn rows_that_were_not_deleted_are_counted() {
        let rows = |affected| info(Code::Internal, &[("expected", "3"), ("affected", affected)]);
        assert_eq!(
            of_bulk_delete(rows("1")).to_string(),
            "delete affected only 1 rows, expected 3"
        );
        assert!(of_bulk_delete(rows("x")).to_string().contains("\"x\""));
    }

    #[test]
    fn the_rest_goes_by_code() {
        assert_eq!(of(Status::unimplemented("")).kind(), Kind::Unsupported);
        assert_eq!(of(Status::unavailable("")).kind(), Kind::Unavailable);
        assert_eq!(of(Status::unavailable("")).code(), Some(14));
        assert_eq!(
            of(Status::not_found("gone")).to_string(),
            "rpc error: code = NotFound desc = gone"
        );
    }
}
