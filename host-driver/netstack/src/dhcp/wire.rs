//! DHCP messages (RFC 2131 section 2, RFC 2132).

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::wire::ethernet::MacAddr;

/// Bytes before the options, the magic cookie included.
const FIXED: usize = 240;
pub(crate) const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// Least size of a message (RFC 1542 section 2.1): what every relay takes.
pub(crate) const MIN_MESSAGE: usize = 300;
/// Most DNS servers and routers that are read.
pub(crate) const MAX_LIST: usize = 4;

const OPT_SUBNET_MASK: u8 = 1;
const OPT_ROUTER: u8 = 3;
const OPT_DNS: u8 = 6;
const OPT_MTU: u8 = 26;
const OPT_REQUESTED_IP: u8 = 50;
const OPT_LEASE_TIME: u8 = 51;
const OPT_OVERLOAD: u8 = 52;
const OPT_MESSAGE_TYPE: u8 = 53;
const OPT_SERVER_ID: u8 = 54;
const OPT_PARAMETER_LIST: u8 = 55;
const OPT_MAX_SIZE: u8 = 57;
const OPT_T1: u8 = 58;
const OPT_T2: u8 = 59;
const OPT_CLIENT_ID: u8 = 61;

/// What a message is (RFC 2132 section 9.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageType {
    Discover,
    Offer,
    Request,
    Decline,
    Ack,
    Nak,
    Release,
}

impl MessageType {
    const fn number(self) -> u8 {
        match self {
            Self::Discover => 1,
            Self::Offer => 2,
            Self::Request => 3,
            Self::Decline => 4,
            Self::Ack => 5,
            Self::Nak => 6,
            Self::Release => 7,
        }
    }

    const fn from_number(n: u8) -> Option<Self> {
        Some(match n {
            1 => Self::Discover,
            2 => Self::Offer,
            3 => Self::Request,
            4 => Self::Decline,
            5 => Self::Ack,
            6 => Self::Nak,
            7 => Self::Release,
            _ => return None,
        })
    }
}

/// What a client asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    pub kind: MessageType,
    pub xid: u32,
    /// Seconds since the client began.
    pub secs: u16,
    pub mac: MacAddr,
    /// The client's address, if it has one.
    pub ciaddr: Ipv4Addr,
    pub requested: Option<Ipv4Addr>,
    pub server: Option<Ipv4Addr>,
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub kind: MessageType,
    pub yiaddr: Ipv4Addr,
    pub server: Option<Ipv4Addr>,
    pub subnet_mask: Option<Ipv4Addr>,
    pub routers: Vec<Ipv4Addr>,
    pub dns: Vec<Ipv4Addr>,
    pub mtu: Option<u16>,
    /// None: for ever.
    pub lease: Option<Duration>,
    pub t1: Option<Duration>,
    pub t2: Option<Duration>,
}

impl Ask {
    /// The message (RFC 2131 section 4.3.6, table 5).
    pub(crate) fn emit(&self) -> Vec<u8> {
        let mut m = vec![0; FIXED];
        let set = |m: &mut Vec<u8>, at: usize, bytes: &[u8]| {
            if let Some(to) = m.get_mut(at..at + bytes.len()) {
                to.copy_from_slice(bytes);
            }
        };
        // Request, Ethernet, six bytes of address.
        set(&mut m, 0, &[1, 1, 6, 0]);
        set(&mut m, 4, &self.xid.to_be_bytes());
        set(&mut m, 8, &self.secs.to_be_bytes());
        // A host without address cannot be sent to: the answer shall be broadcast (section 4.1).
        if self.ciaddr.is_unspecified() {
            set(&mut m, 10, &0x8000u16.to_be_bytes());
        }
        set(&mut m, 12, &self.ciaddr.octets());
        set(&mut m, 28, &self.mac.0);
        set(&mut m, 236, &MAGIC);
        m.extend_from_slice(&[OPT_MESSAGE_TYPE, 1, self.kind.number()]);
        m.extend_from_slice(&[OPT_CLIENT_ID, 7, 1]);
        m.extend_from_slice(&self.mac.0);
        if let Some(addr) = self.requested {
            m.extend_from_slice(&[OPT_REQUESTED_IP, 4]);
            m.extend_from_slice(&addr.octets());
        }
        if let Some(addr) = self.server {
            m.extend_from_slice(&[OPT_SERVER_ID, 4]);
            m.extend_from_slice(&addr.octets());
        }
        if matches!(self.kind, MessageType::Discover | MessageType::Request) {
            m.extend_from_slice(&[OPT_MAX_SIZE, 2]);
            m.extend_from_slice(&1500u16.to_be_bytes());
            m.extend_from_slice(&[
                OPT_PARAMETER_LIST,
                6,
                OPT_SUBNET_MASK,
                OPT_ROUTER,
                OPT_DNS,
                OPT_MTU,
                OPT_T1,
                OPT_T2,
            ]);
        }
        m.push(255);
        m.resize(m.len().max(MIN_MESSAGE), 0);
        m
    }
}

/// The options of a field: each with its code and content; nothing after the end or after one cut short.
fn options(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> + '_ {
    std::iter::from_fn(move || {
        loop {
            match *bytes {
                [0, ref rest @ ..] => bytes = rest,
                [255, ..] | [] | [_] => return None,
                [code, len, ref rest @ ..] => {
                    let (value, rest) = rest.split_at_checked(usize::from(len))?;
                    bytes = rest;
                    return Some((code, value));
                }
            }
        }
    })
}

fn addr(value: &[u8]) -> Option<Ipv4Addr> {
    value.first_chunk::<4>().map(|a| Ipv4Addr::from(*a))
}

fn addrs(value: &[u8]) -> impl Iterator<Item = Ipv4Addr> + '_ {
    value.as_chunks::<4>().0.iter().map(|a| Ipv4Addr::from(*a))
}

fn seconds(value: &[u8]) -> Option<Option<Duration>> {
    let secs = u32::from_be_bytes(*value.first_chunk()?);
    Some((secs != u32::MAX).then(|| Duration::from_secs(secs.into())))
}

impl Answer {
    /// Reads a server's message for the client with this transaction and address. None if it is not one, or
    /// malformed.
    pub(crate) fn parse(bytes: &[u8], xid: u32, mac: MacAddr) -> Option<Self> {
        let fixed = bytes.first_chunk::<FIXED>()?;
        let ours = fixed[..3] == [2, 1, 6] && fixed[4..8] == xid.to_be_bytes() && fixed[28..34] == mac.0;
        if !ours || fixed[236..] != MAGIC {
            return None;
        }
        let main = bytes.get(FIXED..)?;
        // RFC 2132 section 9.3: more options in the fields for the file and the server's name.
        let overload = options(main)
            .find(|o| o.0 == OPT_OVERLOAD)
            .and_then(|o| o.1.first().copied());
        let file = fixed.get(108..236).filter(|_| matches!(overload, Some(1 | 3)));
        let sname = fixed.get(44..108).filter(|_| matches!(overload, Some(2 | 3)));
        let all = || {
            let more = file.into_iter().chain(sname).flat_map(options);
            options(main).chain(more)
        };
        let (_, kind) = all().find(|o| o.0 == OPT_MESSAGE_TYPE)?;
        let mut answer = Self {
            kind: MessageType::from_number(*kind.first()?)?,
            yiaddr: addr(fixed.get(16..20)?)?,
            server: None,
            subnet_mask: None,
            routers: Vec::new(),
            dns: Vec::new(),
            mtu: None,
            lease: Some(Duration::ZERO),
            t1: None,
            t2: None,
        };
        for (code, value) in all() {
            match code {
                OPT_SUBNET_MASK => answer.subnet_mask = addr(value),
                OPT_ROUTER => answer.routers = addrs(value).take(MAX_LIST).collect(),
                OPT_DNS => answer.dns = addrs(value).take(MAX_LIST).collect(),
                OPT_MTU => answer.mtu = value.first_chunk().map(|m| u16::from_be_bytes(*m)),
                OPT_LEASE_TIME => answer.lease = seconds(value)?,
                OPT_SERVER_ID => answer.server = addr(value),
                OPT_T1 => answer.t1 = seconds(value)?,
                OPT_T2 => answer.t2 = seconds(value)?,
                _ => {}
            }
        }
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr};

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    #[test]
    fn smoltcp_reads_what_we_write() {
        let ask = Ask {
            kind: MessageType::Request,
            xid: 0x1234_5678,
            secs: 9,
            mac: MAC,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            requested: Some(Ipv4Addr::new(10, 0, 0, 9)),
            server: Some(Ipv4Addr::new(10, 0, 0, 1)),
        };
        let bytes = ask.emit();
        assert!(bytes.len() >= MIN_MESSAGE);
        let packet = DhcpPacket::new_checked(&bytes[..]).unwrap();
        let repr = DhcpRepr::parse(&packet).unwrap();
        assert_eq!(repr.message_type, DhcpMessageType::Request);
        assert_eq!(
            (repr.transaction_id, repr.secs, repr.broadcast),
            (0x1234_5678, 9, true)
        );
        assert_eq!(repr.client_hardware_address.as_bytes(), MAC.0);
        assert_eq!(repr.requested_ip, Some(Ipv4Addr::new(10, 0, 0, 9)));
        assert_eq!(repr.server_identifier, Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(repr.max_size, Some(1500));
        assert_eq!(repr.parameter_request_list, Some(&[1, 3, 6, 26, 58, 59][..]));
    }

    #[test]
    fn options_in_the_file_and_name_fields_are_read() {
        let mut m = vec![0; FIXED];
        m[..3].copy_from_slice(&[2, 1, 6]);
        m[28..34].copy_from_slice(&MAC.0);
        m[236..].copy_from_slice(&MAGIC);
        m[108..117].copy_from_slice(&[0, OPT_ROUTER, 4, 10, 0, 0, 3, 255, 9]);
        m[44..51].copy_from_slice(&[OPT_SUBNET_MASK, 4, 255, 255, 0, 0, 255]);
        m.extend_from_slice(&[OPT_OVERLOAD, 1, 3, OPT_MESSAGE_TYPE, 1, 2, 255]);
        let answer = Answer::parse(&m, 0, MAC).unwrap();
        assert_eq!(answer.routers, [Ipv4Addr::new(10, 0, 0, 3)]);
        assert_eq!(answer.subnet_mask, Some(Ipv4Addr::new(255, 255, 0, 0)));
        assert_eq!(Answer::parse(&m, 1, MAC), None, "another's transaction");
    }

    proptest! {
        #![proptest_config(crate::testing::config())]
        #[test]
        fn reads_what_smoltcp_writes(
            ip in any::<[u8; 4]>(), server in any::<[u8; 4]>(), lease in any::<u32>(), xid in any::<u32>(),
            kind in prop_oneof![Just(DhcpMessageType::Offer), Just(DhcpMessageType::Ack), Just(DhcpMessageType::Nak)],
        ) {
            let repr = DhcpRepr {
                message_type: kind,
                transaction_id: xid,
                secs: 0,
                client_hardware_address: smoltcp::wire::EthernetAddress(MAC.0),
                client_ip: Ipv4Addr::UNSPECIFIED,
                your_ip: ip.into(),
                server_ip: Ipv4Addr::UNSPECIFIED,
                router: Some(server.into()),
                subnet_mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
                relay_agent_ip: Ipv4Addr::UNSPECIFIED,
                broadcast: true,
                requested_ip: None,
                client_identifier: None,
                server_identifier: Some(server.into()),
                parameter_request_list: None,
                dns_servers: None,
                max_size: None,
                lease_duration: Some(lease),
                renew_duration: None,
                rebind_duration: None,
                additional_options: &[],
            };
            let mut bytes = vec![0; repr.buffer_len()];
            repr.emit(&mut DhcpPacket::new_unchecked(&mut bytes[..])).unwrap();
            let ours = Answer::parse(&bytes, xid, MAC).unwrap();
            prop_assert_eq!(ours.kind.number(), u8::from(kind));
            prop_assert_eq!((ours.yiaddr, ours.server), (ip.into(), Some(server.into())));
            let time = |s: u32| (s != u32::MAX).then(|| Duration::from_secs(s.into()));
            prop_assert_eq!((ours.lease, ours.t2), (time(lease), None));
            prop_assert_eq!(ours.routers, vec![Ipv4Addr::from(server)]);
        }
    }
}
