use proptest::prelude::*;
use serde_json::json;

use super::*;

fn list(json: serde_json::Value) -> AccessControl {
    let spec: Spec = serde_json::from_value(json).unwrap();
    AccessControl::parse(Some(&spec)).unwrap().unwrap()
}

fn caller(app_id: &str) -> SpiffeId {
    format!("spiffe://public/ns/default/{app_id}")
        .parse()
        .unwrap()
}

fn with_operations(operations: serde_json::Value) -> AccessControl {
    list(serde_json::json!({
        "defaultAction": "deny",
        "policies": [{
            "appId": "app",
            "trustDomain": "public",
            "namespace": "default",
            "defaultAction": "deny",
            "operations": operations,
        }],
    }))
}

fn allows(list: &AccessControl, operation: &str, call: Call) -> bool {
    list.evaluate(Some(&caller("app")), operation, call).allowed
}

#[test]
fn an_absent_or_empty_list_allows_everything() {
    assert!(AccessControl::parse(None).unwrap().is_none());
    let nothing = Spec {
        default_action: String::new(),
        trust_domain: String::new(),
        policies: None,
    };
    assert!(AccessControl::parse(Some(&nothing)).unwrap().is_none());
    let only_a_domain = list(serde_json::json!({"trustDomain": "helloworld"}));
    assert_eq!(
        only_a_domain.evaluate(None, "x", Call::Grpc),
        Decision {
            allowed: true,
            rule: Rule::Global
        }
    );
}

#[test]
fn an_empty_default_denies_unless_the_list_is_empty_too() {
    for (policies, allowed) in [
        (serde_json::json!(null), false),
        (serde_json::json!([]), true),
        (
            serde_json::json!([{"appId": "b", "trustDomain": "public", "namespace": "n"}]),
            false,
        ),
    ] {
        let list = list(serde_json::json!({"defaultAction": "", "policies": policies}));
        assert_eq!(list.evaluate(None, "x", Call::Grpc).allowed, allowed);
    }
}

#[test]
fn a_policy_needs_app_id_trust_domain_and_namespace() {
    let spec: Spec = serde_json::from_value(serde_json::json!({"policies": [
        {"appId": "a", "namespace": "n"},
        {"appId": "b", "trustDomain": "public"},
        {"appId": "c"},
        {"trustDomain": "public", "namespace": "n"},
    ]}))
    .unwrap();
    assert_eq!(
        AccessControl::parse(Some(&spec)).unwrap_err().to_string(),
        "invalid access control spec. missing trustdomain for apps: [a c], missing namespace for apps: [b c], missing app name on at least one of the app policies: true"
    );
}

#[test]
fn a_caller_is_matched_by_app_namespace_and_trust_domain() {
    let list = list(serde_json::json!({
        "defaultAction": "deny",
        "policies": [{"appId": "app", "trustDomain": "public", "namespace": "default", "defaultAction": "Allow"}],
    }));
    let app_rule = Decision {
        allowed: true,
        rule: Rule::App,
    };
    let global_rule = Decision {
        allowed: false,
        rule: Rule::Global,
    };
    assert_eq!(
        list.evaluate(Some(&caller("app")), "op", Call::Grpc),
        app_rule
    );
    for other in [
        "spiffe://public/ns/default/other",
        "spiffe://public/ns/other/app",
        "spiffe://private/ns/default/app",
        "spiffe://public/app",
    ] {
        let id = other.parse().unwrap();
        assert_eq!(list.evaluate(Some(&id), "op", Call::Grpc), global_rule);
    }
    assert_eq!(list.evaluate(None, "op", Call::Grpc), global_rule);
}

#[test]
fn the_documented_operations_match_as_documented() {
    let list = with_operations(serde_json::json!([
        {"name": "/op3/a/*", "httpVerb": ["*"], "action": "allow"},
        {"name": "/op7/a/b/*", "httpVerb": ["*"], "action": "deny"},
        {"name": "/op7/a/b/c/f", "httpVerb": ["*"], "action": "allow"},
        {"name": "/op7/a/b*", "httpVerb": ["*"], "action": "allow"},
        {"name": "/op7/c/**", "httpVerb": ["*"], "action": "allow"},
        {"name": "mid/*/z", "httpVerb": ["*"], "action": "allow"},
    ]));
    let get = Call::Http(Verb::Get);
    for (operation, allowed) in [
        ("/op3/a", true),
        ("op3/a/b", true),
        ("/op3/b/b", false),
        ("op7/a/b/c/d", false),
        ("op7/a/b/c/f", true),
        ("op7/a/bc", true),
        ("op7/c/d/e", true),
        ("op7/c", true),
        ("OP7/C/D", true),
        ("mid/y/z", false),
    ] {
        assert_eq!(allows(&list, operation, get), allowed, "{operation}");
    }
    assert!(!allows(&list, "OP7/C/D", Call::Grpc));
    assert!(allows(&list, "op7/c/d", Call::Grpc));
}

#[test]
fn a_denial_is_not_hidden_by_what_allows_more() {
    let list = with_operations(serde_json::json!([
        {"name": "/*", "httpVerb": ["*"], "action": "allow"},
        {"name": "/admin", "httpVerb": ["*"], "action": "deny"},
        {"name": "/w", "httpVerb": ["GET"], "action": "allow"},
        {"name": "/w", "httpVerb": ["POST"], "action": "deny"},
        {"name": "/deep/**", "httpVerb": ["*"], "action": "allow"},
        {"name": "/deep/secret/*", "httpVerb": ["*"], "action": "deny"},
        {"name": "/deep/secret/known", "httpVerb": ["*"], "action": "allow"},
    ]));
    for call in [Call::Http(Verb::Get), Call::Http(Verb::Post)] {
        assert!(allows(&list, "public", call));
        assert!(!allows(&list, "admin", call));
        assert!(!allows(&list, "/ADMIN/below", call));
        assert!(allows(&list, "deep/a", call));
        assert!(!allows(&list, "deep/secret/a", call));
    }
    assert!(allows(&list, "admins", Call::Grpc));
    assert!(!allows(&list, "admin", Call::Grpc));
    assert!(allows(&list, "w", Call::Http(Verb::Get)));
    assert!(!allows(&list, "w", Call::Http(Verb::Post)));
}

#[test]
fn where_patterns_overlap_the_denial_counts() {
    let allow = |name: &str| json!({"name": name, "httpVerb": ["*"], "action": "allow"});
    let deny = |name: &str| json!({"name": name, "httpVerb": ["*"], "action": "deny"});
    for (allowed, denied, operation, expected) in [
        ("/ab/*", "/a*/secret", "ab/secret", false),
        ("/ab/*", "/**/secret", "ab/secret", false),
        ("/a*/secret", "/ab/*", "ab/secret", false),
        ("/ab/*", "/a*/secret", "ab/public", true),
        ("/ab/secret", "/a*/secret", "ab/secret", true),
        ("/ab/se*", "/a*/*", "ab/secret", true),
        ("/ab", "/ab/*", "ab/below", false),
    ] {
        let list = with_operations(json!([allow(allowed), deny(denied)]));
        let found = allows(&list, operation, Call::Http(Verb::Get));
        assert_eq!(found, expected, "{allowed} {denied} {operation}");
    }
}

#[test]
fn every_reading_of_an_http_path_has_to_be_allowed() {
    let list = with_operations(serde_json::json!([
        {"name": "/admin", "httpVerb": ["*"], "action": "deny"},
        {"name": "/*", "httpVerb": ["*"], "action": "allow"},
    ]));
    let get = Call::Http(Verb::Get);
    for operation in [
        "admin",
        "%61dmin",
        "%2561dmin",
        "admin;v=1",
        "admin%3Bv=1",
        "Admin",
    ] {
        assert!(!allows(&list, operation, get), "{operation}");
    }
    for operation in ["my%20op", "a;v=1", "100%25"] {
        assert!(allows(&list, operation, get), "{operation}");
    }
}

#[test]
fn of_equal_rules_the_first_one_counts() {
    let list = with_operations(serde_json::json!([
        {"name": "/public", "httpVerb": ["*"], "action": "allow"},
        {"name": "/twice", "httpVerb": ["*"], "action": "allow"},
        {"name": "/twice", "httpVerb": ["*"], "action": "deny"},
    ]));
    let get = Call::Http(Verb::Get);
    assert!(allows(&list, "public/below", get));
    assert!(allows(&list, "twice", get));
}

#[test]
fn verbs_are_upper_case_and_unlisted_ones_leave_the_default() {
    let list = with_operations(serde_json::json!([
        {"name": "/w", "httpVerb": ["GET", "post"], "action": "allow"},
        {"name": "/any", "httpVerb": ["*"], "action": "ALLOW"},
        {"name": "/none", "action": "allow"},
        {"name": "/odd", "httpVerb": ["*"], "action": "alow"},
    ]));
    assert!(allows(&list, "w", Call::Http(Verb::Get)));
    assert!(!allows(&list, "w", Call::Http(Verb::Post)));
    assert!(allows(&list, "any", Call::Http(Verb::Patch)));
    assert!(!allows(&list, "any", Call::Http(Verb::None)));
    assert!(!allows(&list, "none", Call::Http(Verb::Get)));
    assert!(allows(&list, "none", Call::Grpc));
    assert!(!allows(&list, "odd", Call::Http(Verb::Get)));
}

#[test]
fn a_denial_names_caller_operation_and_verb() {
    assert_eq!(
        denial(Some(&caller("app")), "admin", Call::Http(Verb::Post)),
        "access control policy has denied access to id: spiffe://public/ns/default/app operation: admin verb: POST"
    );
}

proptest! {
    #[test]
    fn prop_a_deny_all_list_allows_nobody(
        operation in ".{0,20}",
        app in "[a-z]{1,8}",
        names in prop::collection::vec("[/*a-z]{0,8}", 0..5),
    ) {
        let operations: Vec<_> = names
            .iter()
            .map(|n| serde_json::json!({"name": n, "httpVerb": ["*"], "action": "deny"}))
            .collect();
        let list = with_operations(serde_json::json!(operations));
        for call in [Call::Grpc, Call::Http(Verb::Get), Call::Http(Verb::None)] {
            prop_assert!(!list.evaluate(Some(&caller(&app)), &operation, call).allowed);
        }
    }

    #[test]
    fn prop_http_does_not_see_case(operation in "[a-zA-Z/]{0,12}", name in "[a-zA-Z/*]{1,8}") {
        let list = with_operations(serde_json::json!([
            {"name": name, "httpVerb": ["*"], "action": "allow"}
        ]));
        let get = Call::Http(Verb::Get);
        prop_assert_eq!(
            allows(&list, &operation, get),
            allows(&list, &operation.to_uppercase(), get)
        );
    }
}
