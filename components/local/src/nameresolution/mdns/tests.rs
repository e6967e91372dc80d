use std::collections::BTreeSet;

use super::message::{AUTHORITATIVE, Data, RESPONSE, Record, TOP_BIT};
use super::*;

fn sidecar(app_id: &str, host: &str, port: u16) -> Context {
    Context {
        app_id: app_id.to_owned(),
        host: host.to_owned(),
        internal_port: port,
        ..Context::default()
    }
}

async fn start(app_id: &str, port: u16) -> Arc<dyn Resolver> {
    connect(Metadata::default(), sidecar(app_id, "127.0.0.1", port))
        .await
        .expect("can start")
}

fn service(app_id: &str, host: &str, port: u16) -> Service {
    Service::new(&sidecar(app_id, host, port), "machine", port.into()).expect("is right")
}

fn name(text: &str) -> Name {
    Name::new(text).expect("is short")
}

fn query(text: &str, class: u16) -> Message {
    Message {
        id: 99,
        questions: vec![Question {
            name: name(text),
            kind: PTR,
            class,
        }],
        ..Message::default()
    }
}

fn announcements(message: &Message) -> Vec<Announcement> {
    // Encoded and decoded, as on the network.
    let message = Message::decode(&message.encode()).expect("is right");
    Announcement::all(&message, &name("local"))
}

fn update(instances: &mut Instances, message: &Message, now: Instant) {
    for announcement in announcements(message) {
        instances.update(announcement, now);
    }
}

fn addresses(instances: &mut Instances, now: Instant) -> BTreeSet<String> {
    (0..10)
        .filter_map(|_| instances.next("cart", now))
        .map(|address| address.to_string())
        .collect()
}

fn set(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn an_answer_has_all_records_of_the_instance() {
    let answers = service("cart", "10.0.0.7", 50002).answers(&query("cart.local", INTERNET));
    let [(answer, is_unicast)] = &answers[..] else {
        panic!("not one answer: {answers:?}");
    };
    assert!(!is_unicast);
    assert_eq!((answer.id, answer.flags), (99, RESPONSE | AUTHORITATIVE));
    let own = name("machine:50002.cart.local");
    let record = |name: &Name, ttl, data| Record {
        name: name.clone(),
        class: INTERNET,
        ttl,
        data,
    };
    let pointer = record(&name("cart.local"), 3200, Data::Pointer(own.clone()));
    assert_eq!(answer.answers, std::slice::from_ref(&pointer));
    let target = name("machine.local");
    let location = Data::Service {
        port: 50002,
        target: target.clone(),
    };
    assert_eq!(
        answer.additionals,
        [
            record(&own, 3200, location),
            record(&own, 3200, Data::Text(vec![b"cart".to_vec()])),
            record(&target, 120, Data::V4([10, 0, 0, 7].into())),
        ]
    );

    // A known answer is not sent again.
    let mut informed = query("cart.local", INTERNET);
    informed.answers.push(pointer);
    assert_eq!(service("cart", "10.0.0.7", 50002).answers(&informed), []);
}

#[test]
fn only_questions_about_this_service_are_answered() {
    let service = service("cart", "10.0.0.7", 50002);
    assert_eq!(service.answers(&query("basket.local", INTERNET)), []);
    assert_eq!(service.answers(&service.probe(1)), []);
    let alone = service.answers(&query("cart.local", INTERNET | TOP_BIT));
    assert!(alone[0].1);
    let types = service.answers(&query("_services._dns-sd._udp.local", INTERNET));
    assert_eq!(
        types[0].0.answers[0].data,
        Data::Pointer(name("cart.local"))
    );
}

#[test]
fn a_sidecar_without_a_usable_address_cannot_be_announced() {
    let refused = |app_id, host, port| {
        Service::new(&sidecar(app_id, host, port), "machine", 1)
            .expect_err("is wrong")
            .to_string()
    };
    assert_eq!(refused("", "10.0.0.1", 1), "name is missing");
    assert_eq!(refused("a", "", 1), "address is missing");
    assert_eq!(refused("a", "10.0.0.1", 0), "port is missing or invalid");
    assert!(refused("a", "box.example", 1).contains("DAPR_HOST_IP"));
    assert!(refused(&"a".repeat(64), "10.0.0.1", 1).contains("too long"));
}

#[test]
fn instances_take_turns_until_they_say_goodbye() {
    let now = Instant::now();
    let mut instances = Instances::default();
    let first = service("cart", "10.0.0.1", 1);
    let second = service("cart", "10.0.0.2", 2);
    update(&mut instances, &first.announcement(), now);
    assert_eq!(addresses(&mut instances, now), set(&["10.0.0.1:1"]));
    update(
        &mut instances,
        &second.answers(&query("cart.local", INTERNET))[0].0,
        now,
    );
    assert_eq!(
        addresses(&mut instances, now),
        set(&["10.0.0.1:1", "10.0.0.2:2"])
    );
    assert_ne!(instances.next("cart", now), instances.next("cart", now));

    update(&mut instances, &first.goodbye(), now);
    assert_eq!(addresses(&mut instances, now), set(&["10.0.0.2:2"]));
    // A goodbye that has only the name of the instance.
    let mut terse = second.goodbye();
    terse
        .answers
        .retain(|record| matches!(record.data, Data::Pointer(_)));
    update(&mut instances, &terse, now);
    assert_eq!(instances.next("cart", now), None);
}

#[test]
fn instances_expire_or_are_removed() {
    let now = Instant::now();
    let minute = Duration::from_secs(60);
    let mut instances = Instances::default();
    update(
        &mut instances,
        &service("cart", "10.0.0.1", 1).announcement(),
        now,
    );
    update(
        &mut instances,
        &service("cart", "10.0.0.2", 2).announcement(),
        now + minute / 2,
    );
    assert!(instances.has_live("cart", now + minute));
    assert_eq!(
        addresses(&mut instances, now + minute),
        set(&["10.0.0.2:2"])
    );

    instances.remove("cart", ([10, 0, 0, 2], 2).into());
    assert_eq!(addresses(&mut instances, now), set(&["10.0.0.1:1"]));
    assert_eq!(instances.remove_expired(now), ["cart"]);
    assert!(instances.remove_expired(now + minute).is_empty());
    assert!(!instances.has_app("cart"));
}

#[test]
fn ipv6_is_used_without_ipv4_only_and_has_brackets() {
    let now = Instant::now();
    let mut instances = Instances::default();
    update(
        &mut instances,
        &service("cart", "fd00::1", 1).announcement(),
        now,
    );
    assert_eq!(addresses(&mut instances, now), set(&["[fd00::1]:1"]));
    update(
        &mut instances,
        &service("cart", "10.0.0.2", 2).announcement(),
        now,
    );
    assert_eq!(addresses(&mut instances, now), set(&["10.0.0.2:2"]));
}

#[test]
fn inconsistent_announcements_are_ignored() {
    let mut other_text = service("cart", "10.0.0.1", 1).announcement();
    other_text.answers[1].data = Data::Text(vec![b"basket".to_vec()]);
    assert_eq!(announcements(&other_text), []);

    for missing in [0, 1, 4] {
        let mut partial = service("cart", "10.0.0.1", 1).announcement();
        partial.answers.remove(missing);
        assert_eq!(announcements(&partial), [], "without record {missing}");
    }
}

fn unique(app: &str) -> String {
    format!("{app}-{:016x}", super::super::random())
}

fn request(app_id: &str) -> Request<'_> {
    Request {
        app_id,
        ..Request::default()
    }
}

async fn settled(resolver: &dyn Resolver, request: &Request<'_>, expected: &BTreeSet<String>) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut seen = BTreeSet::new();
        for _ in 0..4 {
            seen.extend(resolver.resolve(request).await.ok());
        }
        if seen == *expected {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{seen:?} instead of {expected:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn sidecars_find_each_other() {
    let (caller, called) = (unique("caller"), unique("called"));
    let caller = start(&caller, 1000).await;
    let first = start(&called, 1001).await;
    let wanted = request(&called);

    let asked = Instant::now();
    let address = caller.resolve(&wanted).await.expect("is there");
    assert_eq!(address, "127.0.0.1:1001");
    assert!(
        asked.elapsed() < LOOKUP_TIMEOUT,
        "took {:?}",
        asked.elapsed()
    );

    // A new instance is used, a closed one is not.
    let second = start(&called, 1002).await;
    settled(
        &*caller,
        &wanted,
        &set(&["127.0.0.1:1001", "127.0.0.1:1002"]),
    )
    .await;
    first.close().await.expect("can close");
    settled(&*caller, &wanted, &set(&["127.0.0.1:1002"])).await;

    // A suspect that answers is used again.
    caller.suspect(&wanted, "127.0.0.1:1002");
    settled(&*caller, &wanted, &set(&["127.0.0.1:1002"])).await;

    drop(second);
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Ok(address) = caller.resolve(&wanted).await {
        assert!(Instant::now() < deadline, "{address} is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn concurrent_lookups_of_a_missing_application_share_one_timeout() {
    let resolver = start(&unique("caller"), 1003).await;
    let missing = unique("missing");
    let wanted = request(&missing);
    let asked = Instant::now();
    let (one, two) = tokio::join!(resolver.resolve(&wanted), resolver.resolve(&wanted));
    let took = asked.elapsed();
    for answer in [one, two] {
        let error = answer.expect_err("is not there").to_string();
        assert_eq!(error, format!("couldn't find service: {missing}"));
    }
    assert!(
        took >= LOOKUP_TIMEOUT && took < LOOKUP_TIMEOUT * 3,
        "took {took:?}"
    );
}
