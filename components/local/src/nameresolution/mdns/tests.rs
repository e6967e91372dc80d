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

fn sightings(message: &Message) -> Vec<Sighting> {
    // Through the wire form, as they come.
    let message = Message::decode(&message.encode()).expect("is right");
    Sighting::all(&message, &name("local"))
}

fn note(book: &mut Book, message: &Message, now: Instant) {
    for sighting in sightings(message) {
        book.note(sighting, now);
    }
}

fn addresses(book: &mut Book, now: Instant) -> BTreeSet<String> {
    (0..10)
        .filter_map(|_| book.next("cart", now))
        .map(|address| address.to_string())
        .collect()
}

fn set(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn an_answer_has_everything_that_a_client_needs() {
    let answers = service("cart", "10.0.0.7", 50002).answers(&query("cart.local", INTERNET));
    let [(answer, alone)] = &answers[..] else {
        panic!("not one answer: {answers:?}");
    };
    assert!(!alone);
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

    // Nobody is told what they know.
    let mut informed = query("cart.local", INTERNET);
    informed.answers.push(pointer);
    assert_eq!(service("cart", "10.0.0.7", 50002).answers(&informed), []);
}

#[test]
fn who_is_answered() {
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
fn what_cannot_be_announced() {
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
    let mut book = Book::default();
    let first = service("cart", "10.0.0.1", 1);
    let second = service("cart", "10.0.0.2", 2);
    note(&mut book, &first.hello(), now);
    assert_eq!(addresses(&mut book, now), set(&["10.0.0.1:1"]));
    note(
        &mut book,
        &second.answers(&query("cart.local", INTERNET))[0].0,
        now,
    );
    assert_eq!(
        addresses(&mut book, now),
        set(&["10.0.0.1:1", "10.0.0.2:2"])
    );
    assert_ne!(book.next("cart", now), book.next("cart", now));

    note(&mut book, &first.goodbye(), now);
    assert_eq!(addresses(&mut book, now), set(&["10.0.0.2:2"]));
    // A goodbye that says no more than which instance it is about.
    let mut terse = second.goodbye();
    terse
        .answers
        .retain(|record| matches!(record.data, Data::Pointer(_)));
    note(&mut book, &terse, now);
    assert_eq!(book.next("cart", now), None);
}

#[test]
fn instances_are_forgotten() {
    let now = Instant::now();
    let minute = Duration::from_secs(60);
    let mut book = Book::default();
    note(&mut book, &service("cart", "10.0.0.1", 1).hello(), now);
    note(
        &mut book,
        &service("cart", "10.0.0.2", 2).hello(),
        now + minute / 2,
    );
    assert!(book.reaches("cart", now + minute));
    assert_eq!(addresses(&mut book, now + minute), set(&["10.0.0.2:2"]));

    book.strike("cart", ([10, 0, 0, 2], 2).into());
    assert_eq!(addresses(&mut book, now), set(&["10.0.0.1:1"]));
    assert_eq!(book.tidy(now), ["cart"]);
    assert!(book.tidy(now + minute).is_empty());
    assert!(!book.knows("cart"));
}

#[test]
fn ipv6_stands_back_and_has_brackets() {
    let now = Instant::now();
    let mut book = Book::default();
    note(&mut book, &service("cart", "fd00::1", 1).hello(), now);
    assert_eq!(addresses(&mut book, now), set(&["[fd00::1]:1"]));
    note(&mut book, &service("cart", "10.0.0.2", 2).hello(), now);
    assert_eq!(addresses(&mut book, now), set(&["10.0.0.2:2"]));
}

#[test]
fn announcements_that_are_not_believed() {
    let mut other_text = service("cart", "10.0.0.1", 1).hello();
    other_text.answers[1].data = Data::Text(vec![b"basket".to_vec()]);
    assert_eq!(sightings(&other_text), []);

    for missing in [0, 1, 4] {
        let mut partial = service("cart", "10.0.0.1", 1).hello();
        partial.answers.remove(missing);
        assert_eq!(sightings(&partial), [], "without record {missing}");
    }
}

fn unique(app: &str) -> String {
    format!("{app}-{:016x}", super::super::random())
}

fn request(app_id: &str) -> Request {
    Request {
        app_id: app_id.to_owned(),
        ..Request::default()
    }
}

async fn settled(resolver: &dyn Resolver, request: &Request, expected: &BTreeSet<String>) {
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
    assert!(asked.elapsed() < PATIENCE, "took {:?}", asked.elapsed());

    // An instance that comes is used, one that goes is not.
    let second = start(&called, 1002).await;
    settled(
        &*caller,
        &wanted,
        &set(&["127.0.0.1:1001", "127.0.0.1:1002"]),
    )
    .await;
    first.close().await.expect("can close");
    settled(&*caller, &wanted, &set(&["127.0.0.1:1002"])).await;

    // A suspect that is alive after all comes back.
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
async fn a_missing_application_takes_a_second_for_all_who_ask() {
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
    assert!(took >= PATIENCE && took < PATIENCE * 3, "took {took:?}");
}
