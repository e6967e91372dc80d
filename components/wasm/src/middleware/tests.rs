use std::sync::atomic::{AtomicUsize, Ordering};

use http::HeaderValue;
use http_body_util::BodyExt as _;
use outrider_components::middleware::{End, Response, full};

use super::*;

/// A guest: its imports and the bodies of its two functions. The memory has
/// texts at its beginning, and room from 1024 on.
fn guest(imports: &str, request: &str, response: &str) -> String {
    format!(
        r#"(module
        {imports}
        (memory (export "memory") 1)
        (data (i32.const 0) "x-wasm")
        (data (i32.const 16) "set by the guest")
        (data (i32.const 32) "/other?from=guest")
        (data (i32.const 64) "x-result")
        (func (export "handle_request") (result i64) {request})
        (func (export "handle_response") (param $context i32) (param $failed i32) {response}))"#
    )
}

const PASS: &str = "(i64.const 1)";

/// Answers with path, header `x-wasm` and body of the request.
#[derive(Default)]
struct Echo(AtomicUsize);

#[async_trait]
impl End for Echo {
    async fn answer(&self, request: Request) -> Outcome {
        self.0.fetch_add(1, Ordering::Relaxed);
        let (parts, body) = request.into_parts();
        if parts.uri.path() == "/lost" {
            return Err("no connection".into());
        }
        let header = parts.headers.get("x-wasm").cloned();
        let header = header.unwrap_or(HeaderValue::from_static("-"));
        let body = body.collect().await?.to_bytes();
        let line = format!("{} {} ", parts.uri, header.to_str().unwrap_or_default());
        let mut response = Response::new(full([line.as_bytes(), &body].concat()));
        *response.status_mut() = StatusCode::ACCEPTED;
        Ok(response)
    }
}

async fn connected(wat: &str, more: &[(&str, &str)]) -> Result<Arc<dyn Middleware>, Error> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("guest.wasm");
    std::fs::write(&path, wat).expect("a file");
    let url = format!("file://{}", path.display());
    let pairs = more.iter().copied().chain([("url", url.as_str())]);
    connect(Metadata::new("wasm", pairs), Context::default()).await
}

async fn send(wasm: &Arc<dyn Middleware>, uri: &str, body: &str) -> (u16, http::HeaderMap, String) {
    let mut request = Request::new(full(body.to_owned()));
    *request.uri_mut() = uri.parse().expect("a URI");
    let chain = [wasm.clone()];
    let sent = Next::new(&chain, &Echo::default()).run(request).await;
    let (parts, body) = sent.expect("an answer").into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let text = String::from_utf8_lossy(&body).into_owned();
    (parts.status.as_u16(), parts.headers, text)
}

#[tokio::test]
async fn a_guest_changes_the_request() {
    let imports = r#"
        (import "http_handler" "set_uri" (func $set_uri (param i32 i32)))
        (import "http_handler" "set_header_value" (func $set (param i32 i32 i32 i32 i32)))"#;
    let request = r#"
        (call $set_uri (i32.const 32) (i32.const 17))
        (call $set (i32.const 0) (i32.const 0) (i32.const 6) (i32.const 16) (i32.const 16))
        (i64.const 1)"#;
    let wasm = connected(&guest(imports, request, ""), &[])
        .await
        .expect("a guest");
    for _ in 0..3 {
        let (status, _, text) = send(&wasm, "/x", "body").await;
        assert_eq!(
            (status, &*text),
            (202, "/other?from=guest set by the guest body")
        );
    }
}

#[tokio::test]
async fn a_guest_answers_itself_with_what_it_was_configured() {
    let imports = r#"
        (import "http_handler" "get_config" (func $config (param i32 i32) (result i32)))
        (import "http_handler" "set_status_code" (func $status (param i32)))
        (import "http_handler" "write_body" (func $write (param i32 i32 i32)))"#;
    let request = r#"
        (call $status (i32.const 418))
        (call $write (i32.const 1) (i32.const 1024) (call $config (i32.const 1024) (i32.const 100)))
        (i64.const 0)"#;
    let more = [("guestConfig", "configured")];
    let wasm = connected(&guest(imports, request, ""), &more)
        .await
        .expect("a guest");
    let (status, _, text) = send(&wasm, "/x", "body").await;
    assert_eq!((status, &*text), (418, "configured"));
}

#[tokio::test]
async fn a_guest_reads_bodies_and_leaves_them_to_the_next_one() {
    // Keeps both bodies, and puts what it read of the request into the answer.
    let imports = r#"
        (import "http_handler" "enable_features" (func $enable (param i32) (result i32)))
        (import "http_handler" "read_body" (func $read (param i32 i32 i32) (result i64)))
        (import "http_handler" "get_status_code" (func $status (result i32)))
        (import "http_handler" "set_status_code" (func $set_status (param i32)))
        (import "http_handler" "set_header_value" (func $set (param i32 i32 i32 i32 i32)))"#;
    let request = r#"
        (drop (call $enable (i32.const 3)))
        (if (i64.ne (call $read (i32.const 0) (i32.const 1024) (i32.const 100)) (i64.const 0x100000004)) (then unreachable))
        (i64.const 0x700000001)"#;
    let response = r#"
        (if (i32.ne (local.get $context) (i32.const 7)) (then unreachable))
        (call $set_status (i32.add (call $status) (i32.const 1)))
        (call $set (i32.const 1) (i32.const 64) (i32.const 8) (i32.const 1024) (i32.const 4))"#;
    let wasm = connected(&guest(imports, request, response), &[])
        .await
        .expect("a guest");
    let (status, headers, text) = send(&wasm, "/x", "body").await;
    assert_eq!((status, &*text), (203, "/x - body"));
    assert_eq!(headers["x-result"], "body");
    // A body of another length traps, and the next request gets a new instance.
    assert_eq!(send(&wasm, "/x", "longer").await.0, 500);
    assert_eq!(send(&wasm, "/x", "body").await.0, 203);
}

#[tokio::test]
async fn an_answer_that_is_not_kept_cannot_be_changed() {
    let imports = r#"(import "http_handler" "set_status_code" (func $status (param i32)))"#;
    let response = "(call $status (i32.const 200))";
    let wasm = connected(&guest(imports, PASS, response), &[])
        .await
        .expect("a guest");
    assert_eq!(send(&wasm, "/x", "").await.0, 500);
}

#[tokio::test]
async fn a_failure_behind_a_guest_is_told_to_it_and_passed_back() {
    let response = "(if (i32.eqz (local.get $failed)) (then unreachable))";
    let wasm = connected(&guest("", PASS, response), &[])
        .await
        .expect("a guest");
    let mut request = Request::new(full(""));
    *request.uri_mut() = "/lost".parse().expect("a path");
    let chain = [wasm];
    let sent = Next::new(&chain, &Echo::default()).run(request).await;
    assert_eq!(sent.expect_err("fails").to_string(), "no connection");
}

#[tokio::test]
async fn headers_are_listed_with_their_lengths() {
    let imports = r#"
        (import "http_handler" "get_header_values" (func $values (param i32 i32 i32 i32 i32) (result i64)))
        (import "http_handler" "get_header_names" (func $names (param i32 i32 i32) (result i64)))
        (import "http_handler" "add_header_value" (func $add (param i32 i32 i32 i32 i32)))
        (import "http_handler" "remove_header" (func $remove (param i32 i32 i32)))"#;
    let request = r#"
        (call $add (i32.const 0) (i32.const 0) (i32.const 6) (i32.const 16) (i32.const 3))
        (call $add (i32.const 0) (i32.const 0) (i32.const 6) (i32.const 20) (i32.const 2))
        (if (i64.ne (call $values (i32.const 0) (i32.const 0) (i32.const 6) (i32.const 1024) (i32.const 0)) (i64.const 0x200000007)) (then unreachable))
        (if (i64.ne (call $names (i32.const 0) (i32.const 1024) (i32.const 99)) (i64.const 0x100000007)) (then unreachable))
        (call $remove (i32.const 0) (i32.const 0) (i32.const 6))
        (i64.const 1)"#;
    let wasm = connected(&guest(imports, request, ""), &[])
        .await
        .expect("a guest");
    let (status, _, text) = send(&wasm, "/x", "").await;
    assert_eq!((status, &*text), (202, "/x - "));
}

#[tokio::test]
async fn guests_that_loop_or_take_too_much_are_stopped() {
    let write = r#"(import "http_handler" "write_body" (func $write (param i32 i32 i32)))"#;
    let add =
        r#"(import "http_handler" "add_header_value" (func $add (param i32 i32 i32 i32 i32)))"#;
    for (what, imports, request) in [
        ("loops", "", "(loop $again (br $again)) (i64.const 1)"),
        (
            "grows",
            "",
            "(if (i32.eq (memory.grow (i32.const 2000)) (i32.const -1)) (then unreachable)) (i64.const 1)",
        ),
        (
            "reads out of its memory",
            write,
            "(call $write (i32.const 0) (i32.const 65000) (i32.const 65000)) (i64.const 1)",
        ),
        (
            "writes much",
            write,
            "(loop $again (call $write (i32.const 0) (i32.const 0) (i32.const 65536)) (br $again)) (i64.const 1)",
        ),
        (
            "has a header that is too long",
            add,
            "(drop (memory.grow (i32.const 2))) (memory.fill (i32.const 16) (i32.const 97) (i32.const 65537)) (call $add (i32.const 0) (i32.const 0) (i32.const 6) (i32.const 16) (i32.const 65537)) (i64.const 1)",
        ),
        (
            "has the host work for ever",
            r#"(import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))"#,
            "(local $n i32) (loop $again (drop (call $random (i32.const 0) (i32.const 32768))) (local.set $n (i32.add (local.get $n) (i32.const 1))) (br_if $again (i32.lt_u (local.get $n) (i32.const 2000)))) (i64.const 1)",
        ),
        (
            "adds many headers",
            add,
            "(loop $again (call $add (i32.const 0) (i32.const 0) (i32.const 6) (i32.const 16) (i32.const 3)) (br $again)) (i64.const 1)",
        ),
    ] {
        let wasm = connected(&guest(imports, request, ""), &[])
            .await
            .expect("a guest");
        assert_eq!(send(&wasm, "/x", "").await.0, 500, "{what}");
    }
}

#[tokio::test]
async fn a_looping_guest_lets_others_have_their_turn() {
    let wat = guest("", "(loop $again (br $again)) (i64.const 1)", "");
    let wasm = connected(&wat, &[]).await.expect("a guest");
    let looping = send(&wasm, "/x", "");
    tokio::pin!(looping);
    // On one thread: the other future is polled before the loop has ended.
    let first = tokio::select! {
        biased;
        _ = &mut looping => "the loop",
        () = tokio::task::yield_now() => "the other",
    };
    assert_eq!(first, "the other");
    assert_eq!(looping.await.0, 500);
}

#[tokio::test]
async fn output_goes_to_the_log_and_a_strict_sandbox_has_no_clock_of_the_machine() {
    let imports = r#"
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "clock_time_get" (func $time (param i32 i64 i32) (result i32)))"#;
    // The vector of the text at 16 is at 1024.
    let request = r#"
        (i32.store (i32.const 1024) (i32.const 16))
        (i32.store (i32.const 1028) (i32.const 16))
        (if (call $write (i32.const 1) (i32.const 1024) (i32.const 1) (i32.const 1032)) (then unreachable))
        (if (i32.ne (i32.load (i32.const 1032)) (i32.const 16)) (then unreachable))
        (drop (call $time (i32.const 0) (i64.const 0) (i32.const 1040)))
        (if (i64.gt_u (i64.load (i32.const 1040)) (i64.const 1000000000000)) (then unreachable))
        (i64.const 1)"#;
    let wat = guest(imports, request, "");
    for (strict, status) in [("true", 202), ("false", 500)] {
        let wasm = connected(&wat, &[("strictSandbox", strict)])
            .await
            .expect("a guest");
        assert_eq!(send(&wasm, "/x", "").await.0, status, "{strict}");
    }
}

#[tokio::test]
async fn modules_that_are_no_guests_are_refused() {
    // As the sidecar does when it starts.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let foreign = r#"(import "elsewhere" "f" (func))"#;
    for wat in [
        "not a module",
        "(module)",
        &guest(foreign, PASS, ""),
        r#"(module (memory (export "memory") 2000) (func (export "handle_request") (result i64) (i64.const 1)) (func (export "handle_response") (param i32 i32)))"#,
    ] {
        assert!(connected(wat, &[]).await.is_err(), "{wat}");
    }
    for url in [
        "",
        "guest.wasm",
        "oci://x",
        "file:///nowhere",
        "http://127.0.0.1:1/x",
    ] {
        let pairs = [("url", url)];
        let failed = connect(Metadata::new("wasm", pairs), Context::default()).await;
        assert!(failed.is_err(), "{url}");
    }
}
