//! What becomes of the messages of one sidecar.

use outrider_placement_engine::{Event, StreamId};
use outrider_placement_stream::{Orders, Reports, permit};
use outrider_proto::placement::v1::{Host, HostOperation};
use outrider_security::SpiffeId;
use tonic::Status;

use super::lead::Lead;
use super::wire;

pub struct Sidecar {
    lead: Lead,
    id: Option<SpiffeId>,
    /// From the first message on.
    open: Option<(StreamId, Orders)>,
}

impl Sidecar {
    pub fn new(lead: Lead, id: Option<SpiffeId>) -> Self {
        let open = None;
        Self { lead, id, open }
    }
}

impl Reports for Sidecar {
    type Message = Host;

    fn take(&mut self, message: Host) -> Result<(), Status> {
        if message.operation() == HostOperation::Unknown && message.version.is_some() {
            return Err(Status::invalid_argument(
                "both operation and version must be set or both must be unset",
            ));
        }
        let host = wire::host(&message);
        permit(&host, self.id.as_ref())?;
        match &self.open {
            Some((stream, _)) => self.lead.handle(wire::event(*stream, &message)),
            None => {
                let opened = |stream| Event::Opened { stream, host };
                self.open = Some(self.lead.open(opened)?);
            }
        }
        Ok(())
    }

    fn orders(&mut self) -> Option<&mut Orders> {
        self.open.as_mut().map(|(_, orders)| orders)
    }

    fn close(&mut self) {
        if let Some((stream, _)) = self.open.take() {
            self.lead.close(stream);
        }
    }
}
