//! The decoder of packets, for the crate `outrider-fuzz`.

use super::instances::Announcement;
use super::message::{Message, Name};

pub fn packet(bytes: &[u8]) {
    let Some(message) = Message::decode(bytes) else {
        return;
    };
    let encoded = message.encode();
    assert_eq!(Message::decode(&encoded).as_ref(), Some(&message));
    if let Some(domain) = Name::new("local") {
        let _ = Announcement::all(&message, &domain);
    }
}
