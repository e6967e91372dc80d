//! The error of a component for a gRPC status of its program.

use outrider_components::{ApiError, Error, Kind};
use outrider_kit::grpc;
use tonic::{Code, Response, Status};
use tonic_types::{ErrorDetail, ErrorInfo, StatusExt as _};

/// A status as Go prints it.
pub fn text(status: &Status) -> String {
    grpc::status(status.code() as i32, status.message())
}

/// The error of any operation.
pub fn from_status(status: Status) -> Error {
    without_code(&status).with_code(status.code() as i32)
}

/// The result of an operation whose answer is empty.
pub fn check<T>(answer: Result<Response<T>, Status>) -> Result<(), Error> {
    answer.map(drop).map_err(from_status)
}

fn without_code(status: &Status) -> Error {
    let details = status.get_error_details_vec();
    match details.as_slice() {
        [ErrorDetail::ErrorInfo(info)] => api_error(status, info),
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

/// The error of a bulk delete, which may have deleted fewer rows than it should.
pub fn from_bulk_delete(status: Status) -> Error {
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
                "{}; expected {expected:?} and affected {affected:?} are not numbers of rows",
                text(&status)
            )),
        };
    }
    from_status(status)
}

/// The error that the component chooses for its caller.
fn api_error(status: &Status, info: &ErrorInfo) -> Option<Error> {
    let value = |key: &str| info.metadata.get(key).map_or("", String::as_str);
    if value("kit_error") != "true" {
        return None;
    }
    let (code, message) = (status.code() as i32, status.message());
    let api_error = ApiError {
        code,
        http: value("http_code").parse().ok()?,
        message: message.to_owned(),
        tag: value("tag").to_owned(),
        reason: info.reason.clone(),
        domain: info.domain.clone(),
    };
    let name = grpc::code_name(code);
    let text = format!("api error: code = {name} desc = {message}");
    Some(Error::internal(text).with_api_error(api_error))
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
    fn etag_violations_are_etag_errors() {
        let mismatch = from_status(violation(Code::FailedPrecondition, "etag"));
        assert_eq!(mismatch.kind(), Kind::EtagMismatch);
        assert_eq!(
            mismatch.to_string(),
            "possible etag mismatch. error from state store: it is 3"
        );
        let invalid = from_status(violation(Code::InvalidArgument, "etag"));
        assert_eq!(invalid.kind(), Kind::EtagInvalid);
        for other in [
            violation(Code::FailedPrecondition, "key"),
            violation(Code::Aborted, "etag"),
        ] {
            assert_eq!(from_status(other).kind(), Kind::Internal);
        }
    }

    #[test]
    fn a_component_can_choose_the_error_for_its_caller() {
        let pairs = [("kit_error", "true"), ("http_code", "507"), ("tag", "T")];
        let error = from_status(info(Code::DataLoss, &pairs));
        assert_eq!(error.to_string(), "api error: code = DataLoss desc = no");
        let chosen = error.api_error().expect("kit_error is set");
        assert_eq!((chosen.code, chosen.http), (15, 507));
        assert_eq!((&*chosen.tag, &*chosen.reason), ("T", "why"));
        let plain = from_status(info(Code::DataLoss, &pairs[1..]));
        assert!(plain.api_error().is_none());
        assert_eq!(plain.to_string(), "rpc error: code = DataLoss desc = no");
    }

    #[test]
    fn a_bulk_delete_error_has_the_numbers_of_rows() {
        let rows = |affected| info(Code::Internal, &[("expected", "3"), ("affected", affected)]);
        assert_eq!(
            from_bulk_delete(rows("1")).to_string(),
            "delete affected only 1 rows, expected 3"
        );
        assert!(from_bulk_delete(rows("x")).to_string().contains("\"x\""));
    }

    #[test]
    fn without_details_the_code_decides_the_kind() {
        assert_eq!(
            from_status(Status::unimplemented("")).kind(),
            Kind::Unsupported
        );
        assert_eq!(
            from_status(Status::unavailable("")).kind(),
            Kind::Unavailable
        );
        assert_eq!(from_status(Status::unavailable("")).code(), Some(14));
        assert_eq!(
            from_status(Status::not_found("gone")).to_string(),
            "rpc error: code = NotFound desc = gone"
        );
    }
}
