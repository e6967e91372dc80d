//! What this sidecar announces about itself.

use std::net::IpAddr;

use outrider_components::{Context, Error};

use super::message::{
    ANY, AUTHORITATIVE, Data, INTERNET, Message, Name, PTR, Question, RESPONSE, Record, SRV,
    TOP_BIT, TXT,
};

/// Of everything but addresses, in seconds.
const TTL: u32 = 3200;
/// Of an address, in seconds, since addresses change.
const ADDRESS_TTL: u32 = 120;

/// The application as a DNS-SD service (RFC 6763), under the bare type
/// `<app id>.local.`.
#[derive(Debug)]
pub struct Service {
    app_id: String,
    address: IpAddr,
    port: u16,
    /// `_services._dns-sd._udp.local.`, where all types are listed.
    types: Name,
    /// `<app id>.local.`
    name: Name,
    /// `<host>:<pid>.<app id>.local.`
    instance: Name,
    /// `<host>.local.`
    host: Name,
}

impl Service {
    pub fn new(context: &Context, host: &str, process: u32) -> Result<Service, Error> {
        if context.app_id.is_empty() {
            return Err(Error::invalid("name is missing"));
        }
        if context.host.is_empty() {
            return Err(Error::invalid("address is missing"));
        }
        if context.internal_port == 0 {
            return Err(Error::invalid("port is missing or invalid"));
        }
        let address = context.host.parse().map_err(|_| {
            Error::invalid(format!(
                "mDNS can only announce an IP address: set DAPR_HOST_IP to one instead of '{}'",
                context.host
            ))
        })?;
        let app_id = context.app_id.clone();
        let name = |text: String| {
            Name::new(&text).ok_or_else(|| {
                Error::invalid(format!(
                    "'{text}' is too long for mDNS or has an empty part"
                ))
            })
        };
        Ok(Service {
            address,
            port: context.internal_port,
            types: name("_services._dns-sd._udp.local".to_owned())?,
            name: name(format!("{app_id}.local"))?,
            instance: name(format!("{host}:{process}.{app_id}.local"))?,
            host: name(format!("{host}.local"))?,
            app_id,
        })
    }

    /// Asks whether another host has the name (RFC 6762 section 8.1).
    pub fn probe(&self, id: u16) -> Message {
        Message {
            id,
            questions: vec![Question {
                name: self.instance.clone(),
                kind: PTR,
                class: INTERNET,
            }],
            authorities: vec![self.service(TTL, 0), self.text(TTL, 0)],
            ..Message::default()
        }
    }

    pub fn announcement(&self) -> Message {
        self.all_records(TTL, ADDRESS_TTL)
    }

    pub fn goodbye(&self) -> Message {
        self.all_records(0, 0)
    }

    fn all_records(&self, ttl: u32, address_ttl: u32) -> Message {
        Message {
            flags: RESPONSE,
            answers: vec![
                self.service(ttl, TOP_BIT),
                self.text(ttl, TOP_BIT),
                self.pointer(ttl),
                self.kind(ttl),
                self.host(address_ttl, TOP_BIT),
            ],
            ..Message::default()
        }
    }

    /// The answers to a query, one message for each question about this
    /// service, and whether the message goes to the sender of the query alone.
    pub fn answers(&self, query: &Message) -> Vec<(Message, bool)> {
        // A probe, which is only answered to refuse the name.
        if !query.authorities.is_empty() {
            return Vec::new();
        }
        let answer = |question| {
            let answer = self.answer(query, question)?;
            Some((answer, question.class & TOP_BIT != 0))
        };
        query.questions.iter().filter_map(answer).collect()
    }

    fn answer(&self, query: &Message, question: &Question) -> Option<Message> {
        let asked = |kinds: &[u16]| kinds.contains(&question.kind) || question.kind == ANY;
        let mut answer = Message {
            id: query.id,
            flags: RESPONSE | AUTHORITATIVE,
            ..Message::default()
        };
        if question.name == self.name && asked(&[PTR]) {
            answer.answers = vec![self.pointer(TTL)];
            answer.additionals = vec![
                self.service(TTL, 0),
                self.text(TTL, 0),
                self.host(ADDRESS_TTL, 0),
            ];
        } else if question.name == self.types && asked(&[PTR]) {
            answer.answers = vec![self.kind(TTL)];
        } else if question.name == self.instance && asked(&[SRV, TXT]) {
            answer.answers = vec![
                self.service(TTL, TOP_BIT),
                self.text(TTL, TOP_BIT),
                self.pointer(TTL),
                self.kind(TTL),
                self.host(ADDRESS_TTL, 0),
            ];
            return Some(answer);
        } else {
            return None;
        }
        // RFC 6762 section 7.1: nothing that the query lists as known.
        let known = query.answers.iter().any(|known| {
            let same = answer.answers.first().map(|own| (&own.name, &own.data));
            same == Some((&known.name, &known.data)) && known.ttl >= TTL / 2
        });
        (!known).then_some(answer)
    }

    fn pointer(&self, ttl: u32) -> Record {
        record(&self.name, 0, ttl, Data::Pointer(self.instance.clone()))
    }

    fn kind(&self, ttl: u32) -> Record {
        record(&self.types, 0, ttl, Data::Pointer(self.name.clone()))
    }

    fn service(&self, ttl: u32, flush: u16) -> Record {
        let data = Data::Service {
            port: self.port,
            target: self.host.clone(),
        };
        record(&self.instance, flush, ttl, data)
    }

    fn text(&self, ttl: u32, flush: u16) -> Record {
        let data = Data::Text(vec![self.app_id.clone().into_bytes()]);
        record(&self.instance, flush, ttl, data)
    }

    fn host(&self, ttl: u32, flush: u16) -> Record {
        let data = match self.address {
            IpAddr::V4(address) => Data::V4(address),
            IpAddr::V6(address) => Data::V6(address),
        };
        record(&self.host, flush, ttl, data)
    }
}

fn record(name: &Name, flush: u16, ttl: u32, data: Data) -> Record {
    Record {
        name: name.clone(),
        class: INTERNET | flush,
        ttl,
        data,
    }
}
