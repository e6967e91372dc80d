use proptest::prelude::*;

use super::*;

#[test]
fn a_token_for_another_audience_or_user_has_no_account() {
    let ok = json!({
        "authenticated": true,
        "audiences": ["x", "a"],
        "user": {"username": "system:serviceaccount:ns:sa"},
    });
    let account = account_of(&ok, &["a"]).ok().unwrap();
    assert_eq!(
        (account.namespace.as_str(), account.name.as_str()),
        ("ns", "sa")
    );
    let changed = |path: &str, value: Value| {
        let mut status = ok.clone();
        *status.pointer_mut(path).unwrap_or(&mut Value::Null) = value.clone();
        if status == ok {
            status[&path[1..]] = value;
        }
        account_of(&status, &["a"]).err().unwrap_or_default()
    };
    assert_eq!(changed("/error", json!("bad")), "invalid token: bad");
    assert_eq!(
        changed("/authenticated", json!(false)),
        "authentication failed"
    );
    assert_eq!(
        changed("/audiences", json!(["other"])),
        "authentication failed"
    );
    assert_eq!(changed("/audiences", json!([])), "authentication failed");
    assert_eq!(changed("/audiences", json!(["a"])), "");
    for user in ["system:node:a:b", "system:serviceaccount:a", "x", ""] {
        assert_eq!(
            changed("/user/username", json!(user)),
            "provided token is not a properly structured service account token"
        );
    }
}

#[test]
fn the_pod_is_read_from_a_token_or_from_bare_claims() {
    let claims = r#"{"kubernetes.io":{"pod":{"name":"mypod.x"}}}"#;
    assert_eq!(pod_name(claims), Ok("mypod.x".into()));
    let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
    assert_eq!(pod_name(&token), Ok("mypod.x".into()));
    assert_eq!(
        pod_name("{}").unwrap_err(),
        "kubernetes.io/pod/name claim is missing from Kubernetes token"
    );
    assert!(
        pod_name("x")
            .unwrap_err()
            .starts_with("failed to parse Kubernetes token: ")
    );
}

proptest! {
    #[test]
    fn prop_reading_a_token_never_panics(token in ".{0,80}", claims in any::<Vec<u8>>()) {
        let _ = pod_name(&token);
        let _ = pod_name(&format!("a.{}.b", URL_SAFE_NO_PAD.encode(&claims)));
    }
}
