use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use outrider_call::channel::connect::Connector;
use outrider_call::channel::{Healthy, Kind, http as app};
use outrider_components::Error;
use outrider_components::bindings::{self as component, Event, Handler, Input, Subscription};
use outrider_resiliency::Block;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::blocks::bindings::Settings;
use crate::components::instance::{Description, Instance, Policies};

type Reading = (Arc<dyn Handler>, CancellationToken);

/// Tells of every time that it is read, and when that ends.
struct Probe {
    readings: mpsc::UnboundedSender<Reading>,
    failures: Mutex<u32>,
}

#[async_trait]
impl Input for Probe {
    async fn read(&self, handler: Arc<dyn Handler>) -> Result<Subscription, Error> {
        {
            let mut failures = self.failures.lock().unwrap();
            if *failures > 0 {
                *failures -= 1;
                return Err(Error::unavailable("not yet"));
            }
        }
        let subscription = Subscription::new(&CancellationToken::new());
        let _ = self.readings.send((handler, subscription.stopping()));
        Ok(subscription)
    }
}

fn binding(failures: u32) -> (Arc<Binding>, mpsc::UnboundedReceiver<Reading>) {
    let (readings, readings_rx) = mpsc::unbounded_channel();
    let probe = Probe {
        readings,
        failures: Mutex::new(failures),
    };
    let inner = component::Binding {
        input: Some(Arc::new(probe)),
        output: None,
    };
    let description = Description {
        name: "b".into(),
        component_type: "bindings.probe".into(),
        version: "v1".into(),
        capabilities: Vec::new(),
    };
    let policies = Policies {
        resiliency: Resiliency::default(),
        block: Block::Binding,
    };
    let instance = Instance::new(description, Arc::new(inner), policies, Default::default());
    let binding = Binding {
        instance,
        settings: Settings {
            route: "events".into(),
            reads_unasked: true,
        },
        metrics: Default::default(),
    };
    (Arc::new(binding), readings_rx)
}

/// An application that takes an event, and answers when it is let.
struct App {
    listener: TcpListener,
}

impl App {
    async fn start() -> (App, Arc<Channel>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connector = Connector::new("127.0.0.1", port, false, &[b"http/1.1"]).unwrap();
        let client =
            app::Client::new(connector, false, None, 4096, 1, None, Default::default()).unwrap();
        let channel = Channel {
            kind: Kind::Http(client),
            limit: None,
            tracer: outrider_trace::Tracer::off(),
            healthy: Arc::new(Healthy::default()),
        };
        (App { listener }, Arc::new(channel))
    }

    /// The connection of an event that waits for its answer.
    async fn event(&self) -> tokio::net::TcpStream {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"POST /events");
        stream
    }
}

fn readers(channel: Arc<Channel>, bindings: &Arc<Map<Binding>>) -> Readers {
    Readers::new(Options {
        api: Api {
            bindings: bindings.clone(),
        },
        stores: Arc::default(),
        channel: Some(channel),
        probe_limit: Duration::from_secs(3),
        resiliency: Resiliency::default(),
        workers: Workers::with_threads(1).unwrap(),
        tasks: Tasks::new(),
    })
}

#[tokio::test]
async fn a_binding_is_read_once_at_a_time_and_finishes_first() {
    let (app, channel) = App::start().await;
    let bindings = Arc::<Map<Binding>>::default();
    let (one, mut readings) = binding(0);
    bindings.insert("b", one);
    let readers = readers(channel, &bindings);
    readers.start().await;
    let (handler, stopping) = readings.recv().await.unwrap();
    let in_flight = {
        let handler = handler.clone();
        async move { handler.handle(Event::default()).await }
    };
    tokio::pin!(in_flight);
    let mut stream = tokio::select! {
        stream = app.event() => stream,
        _ = &mut in_flight => panic!("the application has not answered"),
    };
    // Unhealthy, and healthy again: the first reading goes on until its event
    // is answered, takes no other, and the next one waits for it.
    readers.stop();
    readers.start().await;
    let refused = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let asked = handler.handle(Event::default());
            let asked = tokio::time::timeout(Duration::from_millis(50), asked).await;
            if let Ok(Err(error)) = asked {
                return error.to_string();
            }
        }
    });
    assert_eq!(refused.await.unwrap(), "input binding is closed");
    assert!(!stopping.is_cancelled());
    assert!(readings.try_recv().is_err());
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes";
    stream.write_all(answer).await.unwrap();
    assert_eq!(in_flight.await.unwrap(), Bytes::from("yes"));
    readings.recv().await.unwrap();
    assert!(stopping.is_cancelled());
    readers.end().await;
    readers.start().await;
    assert!(readings.try_recv().is_err());
}

#[tokio::test]
async fn reading_that_cannot_begin_is_tried_again_and_changes_are_followed() {
    let (_app, channel) = App::start().await;
    let bindings = Arc::<Map<Binding>>::default();
    let (changes, changes_rx) = watch::channel(());
    let readers = readers(channel, &bindings);
    readers.start().await;
    let follow = readers.clone().follow(changes_rx);
    tokio::pin!(follow);
    let (one, mut readings) = binding(1);
    bindings.insert("b", one);
    changes.send_replace(());
    let first = tokio::select! {
        first = readings.recv() => first.unwrap(),
        () = &mut follow => panic!("follows for ever"),
    };
    let (two, mut others) = binding(0);
    bindings.insert("b", two);
    changes.send_replace(());
    let second = tokio::select! {
        second = others.recv() => second.unwrap(),
        () = &mut follow => panic!("follows for ever"),
    };
    first.1.cancelled().await;
    assert!(!second.1.is_cancelled());
    bindings.remove("b");
    changes.send_replace(());
    tokio::select! {
        () = second.1.cancelled() => {}
        () = &mut follow => panic!("follows for ever"),
    }
}
