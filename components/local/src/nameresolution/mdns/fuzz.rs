//! What reads packets of the network, for the crate `outrider-fuzz`.

use super::book::Sighting;
use super::message::{Message, Name};

pub fn packet(bytes: &[u8]) {
    let Some(message) = Message::decode(bytes) else {
        return;
    };
    let written = message.encode();
    assert_eq!(Message::decode(&written).as_ref(), Some(&message));
    if let Some(domain) = Name::new("local") {
        let _ = Sighting::all(&message, &domain);
    }
}
