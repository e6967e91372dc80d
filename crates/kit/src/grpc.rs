//! Status codes the way Go writes them, which clients and logs compare:
//! <https://grpc.io/docs/guides/status-codes/>.

/// The name of a code.
pub fn code_name(code: i32) -> &'static str {
    match code {
        0 => "OK",
        1 => "Canceled",
        3 => "InvalidArgument",
        4 => "DeadlineExceeded",
        5 => "NotFound",
        6 => "AlreadyExists",
        7 => "PermissionDenied",
        8 => "ResourceExhausted",
        9 => "FailedPrecondition",
        10 => "Aborted",
        11 => "OutOfRange",
        12 => "Unimplemented",
        13 => "Internal",
        14 => "Unavailable",
        15 => "DataLoss",
        16 => "Unauthenticated",
        _ => "Unknown",
    }
}

/// A status as one line.
pub fn status(code: i32, message: &str) -> String {
    format!("rpc error: code = {} desc = {message}", code_name(code))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_status_is_one_line() {
        assert_eq!(
            super::status(5, "gone"),
            "rpc error: code = NotFound desc = gone"
        );
        assert_eq!(super::code_name(2), "Unknown");
        assert_eq!(super::code_name(99), "Unknown");
    }
}
