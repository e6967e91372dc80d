//! The network interfaces, and one socket per interface and family.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use rustix::net::sockopt;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockRef, Type};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

/// The port of multicast DNS. Answers come from it too.
pub const PORT: u16 = 5353;
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
/// What RFC 6762 section 11 asks for, so that receivers may refuse packets
/// that came through a router.
const HOPS: u32 = 255;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// A socket that receives and sends on one interface only.
#[derive(Debug)]
pub struct Socket {
    pub interface: u32,
    pub family: Family,
    socket: UdpSocket,
    group: SocketAddr,
    closed: CancellationToken,
}

impl Socket {
    pub fn open(interface: u32, family: Family) -> io::Result<Socket> {
        let (domain, any, group) = match family {
            Family::V4 => (
                Domain::IPV4,
                IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                SocketAddr::from((GROUP_V4, PORT)),
            ),
            Family::V6 => (
                Domain::IPV6,
                IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                SocketAddrV6::new(GROUP_V6, PORT, 0, interface).into(),
            ),
        };
        let socket = socket2::Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        // All sidecars of the machine, and often a daemon, share the port.
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        match family {
            Family::V4 => {
                // Else it also receives from groups that other sockets joined.
                socket.set_multicast_all_v4(false)?;
                socket.set_multicast_ttl_v4(HOPS)?;
                socket.set_multicast_loop_v4(true)?;
                let here = Ipv4Addr::UNSPECIFIED;
                sockopt::set_ip_multicast_if_with_ifindex(&socket, &GROUP_V4, &here, interface)?;
                socket
                    .join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(interface))?;
            }
            Family::V6 => {
                socket.set_only_v6(true)?;
                socket.set_multicast_all_v6(false)?;
                socket.set_multicast_hops_v6(HOPS)?;
                socket.set_multicast_loop_v6(true)?;
                socket.set_multicast_if_v6(interface)?;
                socket.join_multicast_v6(&GROUP_V6, interface)?;
            }
        }
        socket.bind(&SocketAddr::from((any, PORT)).into())?;
        Ok(Socket {
            interface,
            family,
            socket: UdpSocket::from_std(socket.into())?,
            group,
            closed: CancellationToken::new(),
        })
    }

    /// Sends to the group. A packet that cannot be sent at once is lost, as any
    /// packet may be.
    pub fn send(&self, packet: &[u8]) {
        self.send_to(packet, self.group);
    }

    pub fn send_to(&self, packet: &[u8], to: SocketAddr) {
        // Not through tokio, where the first send fails before the socket is
        // polled.
        if let Err(error) = SockRef::from(&self.socket).send_to(packet, &to.into()) {
            tracing::debug!(target: super::SCOPE, "cannot send an mDNS packet to {to} on interface {}: {error}", self.interface);
        }
    }

    /// The next packet and its sender; `None` after [`Socket::close`].
    pub async fn receive<'b>(
        &self,
        buffer: &'b mut [u8],
    ) -> io::Result<Option<(&'b [u8], SocketAddr)>> {
        tokio::select! {
            () = self.closed.cancelled() => Ok(None),
            received = self.socket.recv_from(buffer) => {
                let (length, from) = received?;
                Ok(Some((&buffer[..length], from)))
            }
        }
    }

    /// Ends the reader.
    pub fn close(&self) {
        self.closed.cancel();
    }
}

/// The indexes of the interfaces to use: those that are up, the loopback only if
/// there are no others.
pub fn interfaces() -> Vec<u32> {
    let all = if_addrs::get_if_addrs().unwrap_or_default();
    let up = all.iter().filter(|interface| interface.is_oper_up());
    let (loopback, mut usable): (Vec<_>, Vec<_>) = up
        .filter_map(|interface| Some((interface.is_loopback(), interface.index?)))
        .partition(|(loopback, _)| *loopback);
    if usable.is_empty() {
        usable = loopback;
    }
    let mut indexes: Vec<_> = usable.into_iter().map(|(_, index)| index).collect();
    indexes.sort_unstable();
    indexes.dedup();
    indexes
}
