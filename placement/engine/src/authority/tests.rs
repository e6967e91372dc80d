use super::*;

fn member(address: &str, is_capable: bool) -> Member {
    Member {
        address: address.to_owned(),
        is_capable,
    }
}

/// One scheduler that may serve, and that has found no placement service.
fn alone() -> Authority {
    let mut authority = Authority::default();
    authority.set_members(vec![member("a:1", true)], "a:1");
    for _ in 0..SIGHTLESS {
        authority.detected(false, &[]);
    }
    authority
}

fn leaders(authority: &Authority) -> Vec<String> {
    let announced = authority.announced();
    let leaders = announced.into_iter().filter(|it| it.is_leader);
    leaders.map(|it| it.address).collect()
}

fn is_capable(authority: &Authority) -> bool {
    authority.announced().iter().any(|it| it.is_capable)
}

#[test]
fn the_first_capable_address_in_byte_order_leads() {
    let members = vec![
        member("10.0.0.2:1", true),
        member("10.0.0.1:1", false),
        member("10.0.0.10:1", true),
    ];
    for (own, serves) in [("10.0.0.2:1", false), ("10.0.0.10:1", true)] {
        let mut authority = alone();
        let _sidecar = authority.connect(true, &[]);
        authority.set_members(members.clone(), own);
        assert_eq!(leaders(&authority), ["10.0.0.10:1"]);
        assert_eq!(authority.serves(), serves);
    }
    // One that may not serve announces nobody.
    let mut authority = alone();
    let _sidecar = authority.connect(true, &[]);
    authority.set_members(members, "10.0.0.1:1");
    assert_eq!(leaders(&authority), [""; 0]);
    assert!(!authority.serves());
}

#[test]
fn nobody_is_announced_before_an_absence_is_sure_or_while_nobody_would_follow() {
    let mut authority = Authority::default();
    authority.set_members(vec![member("a:1", true)], "a:1");
    let sidecar = authority.connect(true, &[]);
    for _ in 0..SIGHTLESS {
        assert_eq!(leaders(&authority), [""; 0]);
        assert!(is_capable(&authority), "sidecars are to wait");
        assert_eq!(authority.pause(), SHORT_PAUSE);
        authority.detected(false, &[]);
    }
    assert_eq!(authority.pause(), PAUSE);
    assert_eq!(leaders(&authority), ["a:1"]);
    authority.disconnect(&sidecar);
    assert_eq!(leaders(&authority), [""; 0]);
    // A sidecar that cannot follow does not count; one that has asked does.
    let _old = authority.connect(false, &[]);
    assert_eq!(leaders(&authority), [""; 0]);
    assert!(authority.serves());
    authority.set_streams(1);
    assert_eq!(leaders(&authority), ["a:1"]);
    assert!(authority.leaves_out());
}

#[test]
fn what_a_sidecar_has_used_stays_announced_until_a_placement_service_appears() {
    let mut authority = alone();
    let sidecar = authority.connect(true, &[]);
    authority.set_streams(1);
    authority.disconnect(&sidecar);
    authority.set_streams(0);
    assert_eq!(leaders(&authority), ["a:1"]);
    // Its addresses are not asked first any more.
    let _late = authority.connect(true, &["p:1".to_owned()]);
    assert_eq!(leaders(&authority), ["a:1"]);
    authority.detected(true, &[]);
    assert_eq!(authority.pause(), PRESENT_PAUSE);
    assert_eq!(leaders(&authority), [""; 0]);
    assert!(!is_capable(&authority) && !authority.serves());
    for _ in 1..SIGHTLESS {
        authority.detected(false, &[]);
        assert!(!authority.serves() && authority.is_service_present());
    }
    authority.detected(false, &["p:1".to_owned()]);
    assert!(authority.serves() && is_capable(&authority));
    assert_eq!(leaders(&authority), ["a:1"]);
}

#[test]
fn an_address_that_nobody_has_looked_at_holds_the_announcement_back() {
    let mut authority = alone();
    let sidecar = authority.connect(true, &["p:1".to_owned()]);
    assert!(authority.has_unprobed());
    assert_eq!(leaders(&authority), [""; 0]);
    assert!(is_capable(&authority), "sidecars are to wait, not to leave");
    authority.detected(false, &authority.addresses());
    assert_eq!(leaders(&authority), ["a:1"]);
    authority.disconnect(&sidecar);
    assert_eq!(authority.addresses(), [""; 0]);
}

#[test]
fn only_some_addresses_are_looked_at() {
    let mut authority = alone();
    let of = |n: usize| -> Vec<String> { (0..n).map(|i| format!("p{i}:1")).collect() };
    let one = authority.connect(true, &of(1000));
    assert_eq!(authority.addresses().len(), MOST_OF_ONE);
    let _long = authority.connect(true, &["x".repeat(1 << 20), String::new()]);
    assert_eq!(authority.addresses().len(), MOST_OF_ONE);
    let all: Vec<Sidecar> = of(1000)
        .chunks(MOST_OF_ONE)
        .map(|some| authority.connect(true, some))
        .collect();
    assert_eq!(authority.addresses().len(), MOST_ADDRESSES);
    for sidecar in all.iter().chain([&one]) {
        authority.disconnect(sidecar);
    }
    assert_eq!(authority.addresses(), [""; 0]);
}
