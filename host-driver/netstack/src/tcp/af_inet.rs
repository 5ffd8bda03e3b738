//! Bind, connect, listen, accept (net/ipv4/af_inet.c, inet_connection_sock.c).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::inet_hashtables::{FlowKey, TcpSlot, TcpSockId};
use super::seq::Seq;
use super::sock::{PortHold, Shut, TcpSock, TcpState};
use super::tcp_ipv4::{advertised_mss, select_initial_window};
use super::write_queue::TcpSkb;
use super::*;
use crate::core::dst::AddrType;
use crate::core::netdevice::{Features, IfIndex};
use crate::errno::Errno;

impl Stack {
    /// A new socket (`tcp_v4_init_sock`).
    pub(crate) fn tcp_open(&mut self) -> TcpSockId {
        let sk = TcpSock::new(&self.config, self.now);
        self.tcp.socks.insert(TcpSlot::Full(Box::new(sk)))
    }

    /// `inet_bind`, `inet_csk_get_port`.
    ///
    /// # Errors
    /// [`Errno::Inval`] if it is bound, [`Errno::AddrNotAvail`] if the address is not ours,
    /// [`Errno::AddrInUse`].
    pub(crate) fn tcp_bind(&mut self, id: TcpSockId, addr: SocketAddr) -> Result<(), Errno> {
        let sk = self.tcp.socks.get(id)?;
        if sk.port != PortHold::None || sk.state != TcpState::Close {
            return Err(Errno::Inval);
        }
        let reuse = sk.opts.reuse_address;
        if !addr.ip().is_unspecified() && self.addr_type(addr.ip()) != AddrType::Local {
            return Err(Errno::AddrNotAvail);
        }
        let mut addr = addr;
        if addr.port() == 0 {
            let range = self.config.ip_local_port_range;
            let port = self.tcp.socks.ephemeral_port(range, TcpTable::port_unused);
            addr.set_port(port.ok_or(Errno::AddrInUse)?);
        }
        self.tcp.socks.bind(id, addr, reuse)?;
        let sk = self.tcp.socks.get_mut(id)?;
        sk.local = addr;
        sk.port = PortHold::Own(addr.port());
        Ok(())
    }

    /// `inet_listen`.
    ///
    /// # Errors
    /// [`Errno::Inval`] if the socket is connected or not bound, [`Errno::AddrInUse`].
    pub(crate) fn tcp_listen(&mut self, id: TcpSockId, backlog: u32) -> Result<(), Errno> {
        let most = self.config.somaxconn;
        let sk = self.tcp.socks.get_mut(id)?;
        let local = sk.local;
        match sk.state {
            TcpState::Listen => {}
            TcpState::Close if sk.port != PortHold::None => {
                self.tcp.socks.listen(id, local)?;
            }
            _ => return Err(Errno::Inval),
        }
        let sk = self.tcp.socks.get_mut(id)?;
        sk.backlog = backlog.min(most);
        sk.state = TcpState::Listen;
        sk.shutdown = Shut::empty();
        Ok(())
    }

    /// `inet_csk_accept`.
    ///
    /// # Errors
    /// [`Errno::Inval`] if it does not listen, [`Errno::Again`] if nobody has connected.
    pub(crate) fn tcp_accept(&mut self, id: TcpSockId) -> Result<(TcpSockId, SocketAddr), Errno> {
        let sk = self.tcp.socks.get_mut(id)?;
        if sk.state != TcpState::Listen {
            return Err(Errno::Inval);
        }
        if let Some(e) = sk.sock.err.take() {
            return Err(e);
        }
        loop {
            let child = self
                .tcp
                .socks
                .get_mut(id)?
                .accept_queue
                .pop_front()
                .ok_or(Errno::Again)?;
            if let Some(sk) = self.tcp.socks.sock_mut(child) {
                sk.listener = None;
                return Ok((child, sk.peer));
            }
        }
    }

    /// `tcp_v4_connect`. The handshake goes on after the call.
    ///
    /// # Errors
    /// [`Errno::IsConn`], [`Errno::Already`] while the handshake goes on, what routing says,
    /// [`Errno::AddrNotAvail`] if no port is left or the two are connected already.
    pub(crate) fn tcp_connect(&mut self, id: TcpSockId, peer: SocketAddr) -> Result<(), Errno> {
        let sk = self.tcp.socks.get(id)?;
        match sk.state {
            TcpState::Close => {}
            TcpState::SynSent | TcpState::SynRecv => return Err(Errno::Already),
            TcpState::Listen => return Err(Errno::IsConn),
            _ => return Err(Errno::IsConn),
        }
        let scope = match peer {
            SocketAddr::V6(a) if a.scope_id() != 0 => Some(IfIndex(a.scope_id())),
            _ => None,
        };
        let (bound, dev, hold) = (sk.local, sk.bound_dev.or(scope), sk.port);
        let mut peer = peer;
        if peer.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
            // Linux takes "any" for this host.
            peer.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        if peer.port() == 0 {
            return Err(Errno::AddrNotAvail);
        }
        let saddr = Some(bound.ip()).filter(|a| !a.is_unspecified());
        let dst = self
            .route_output(peer.ip(), saddr, dev)
            .map_err(|e| self.count_no_route(peer.ip(), e))?;
        if matches!(dst.kind(), AddrType::Broadcast | AddrType::Multicast) {
            return Err(Errno::NetUnreach);
        }
        let mut local = SocketAddr::new(dst.saddr(), bound.port());
        if hold == PortHold::None {
            let range = self.config.ip_local_port_range;
            let ip = local.ip();
            self.tcp_reap_time_wait(ip, peer);
            let port = self.tcp.socks.ephemeral_port(range, |table, port| {
                let key = FlowKey::new(SocketAddr::new(ip, port), peer);
                table.port_unowned(port) && table.lookup(&key).is_none()
            });
            local.set_port(port.ok_or(Errno::AddrNotAvail)?);
        }
        self.tcp.socks.hash(id, FlowKey::new(local, peer))?;
        let secret = self.tcp.secret;
        let isn = syncookies::secure_tcp_seq(secret, local, peer, self.now);
        let features = self.devs.get(dst.oif()).map_or(Features::empty(), |d| d.features);
        let scaling = self.config.tcp_window_scaling;
        let Some((sk, net)) = self.tcp_split(id) else {
            return Err(Errno::BadF);
        };
        (sk.local, sk.peer, sk.bound_dev) = (local, peer, dev);
        sk.advmss = advertised_mss(&dst, sk.opts.user_mss);
        let (wnd, clamp, wscale) = select_initial_window(
            net.config,
            sk.sock.rcvbuf,
            sk.opts.rcvbuf_locked,
            sk.advmss,
            scaling,
        );
        (sk.rcv_wnd, sk.window_clamp, sk.rx_opt.rcv_wscale) = (wnd, clamp, wscale);
        sk.rcv_ssthresh = wnd;
        sk.rx_opt.mss_clamp = u16::MAX;
        sk.ts_offset = syncookies::secure_tcp_ts_off(secret, local, peer);
        sk.set_dst(dst, features);
        sk.iss = isn;
        (sk.snd_una, sk.snd_nxt, sk.snd_sml, sk.pushed_seq) = (isn, isn, isn, isn);
        (sk.high_seq, sk.highest_sack, sk.queue.retransmit_hint) = (isn, isn, isn);
        sk.write_seq = isn + 1;
        (sk.rcv_nxt, sk.rcv_wup, sk.copied_seq) = (Seq(0), Seq(0), Seq(0));
        sk.shutdown = Shut::empty();
        sk.state = TcpState::SynSent;
        sk.sock.err = None;
        let flags = sk.ecn_send_syn(net.config);
        sk.queue.push(TcpSkb::control(isn, flags, net.now));
        net.mib.tcp.active_opens += 1;
        if hold == PortHold::None {
            sk.port = PortHold::Shared(local.port());
            self.tcp.socks.port_hold(local.port());
        }
        self.tcp_output(id);
        Ok(())
    }

    /// When all ports toward a peer are in use, connections that are over make room (net.ipv4.tcp_tw_reuse;
    /// RFC 6191 section 2 asks for a timestamp that has moved on).
    fn tcp_reap_time_wait(&mut self, ip: IpAddr, peer: SocketAddr) {
        let (first, last) = self.config.ip_local_port_range;
        if self.tcp.tw_count <= usize::from(last.saturating_sub(first)) / 2 {
            return;
        }
        let now = self.now;
        let old: Vec<_> = self
            .tcp
            .socks
            .iter()
            .filter_map(|(id, slot)| match slot {
                TcpSlot::TimeWait(tw) if tw.local.ip() == ip && tw.peer == peer => {
                    let aged = tw
                        .ts_recent_stamp
                        .is_some_and(|t| now.saturating_duration_since(t).as_secs() >= 1);
                    (tw.tstamp_ok && aged).then_some(id)
                }
                _ => None,
            })
            .collect();
        for id in old {
            self.tw_kill(id);
        }
    }
}
