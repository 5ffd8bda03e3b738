//! `hematite ping`.

use crate::arguments::PingOptions;
use crate::session::Session;
use anyhow::Result;
use hematite_bus::vfio::Port;
use hematite_netstack::PingSocket;
use std::time::{Duration, Instant};

pub fn run<P: Port>(session: &mut Session<P>, options: &PingOptions) -> Result<bool> {
    let socket = PingSocket::bind(&mut session.host().stack, None)?;
    let payload: Vec<u8> = (0..options.size).map(|i| (i * 31 + 7) as u8).collect();
    let mut buffer = vec![0; 65_536];
    let mut answered = 0;
    for sequence in 0..options.count {
        let sent = Instant::now();
        {
            let host = &mut *session.host();
            let now = host.now();
            host.stack.poll(now);
            socket.send_to(&mut host.stack, &payload, options.host, sequence)?;
        }
        let limit = Duration::from_millis(options.timeout);
        let mut reply = None;
        while reply.is_none() && sent.elapsed() < limit && !session.is_stopping() {
            session.turn(limit.saturating_sub(sent.elapsed()))?;
            match socket.recv_from(&mut session.host().stack, &mut buffer) {
                Ok(found) if found.sequence == sequence => reply = Some(found),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => println!("{}: seq {sequence}: {error}", options.host),
            }
        }
        let millis = sent.elapsed().as_secs_f64() * 1e3;
        match reply {
            Some(reply) if reply.len == payload.len() && buffer[..reply.len] == payload[..] => {
                answered += 1;
                println!(
                    "{} bytes from {}: seq {sequence} ttl {} time {millis:.2} ms",
                    reply.len, reply.from, reply.ttl
                );
            }
            Some(reply) => println!(
                "{} bytes from {}: seq {sequence}: wrong data",
                reply.len, reply.from
            ),
            None => println!("{}: seq {sequence}: no answer", options.host),
        }
        if session.is_stopping() {
            break;
        }
    }
    socket.close(&mut session.host().stack);
    println!("{} sent, {answered} answered", options.count);
    Ok(answered == options.count)
}
