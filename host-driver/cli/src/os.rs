//! `--device system`: the same checks over the operating system's own sockets.

use crate::arguments::{Command, TransferOptions};
use crate::transfer::{ByteStream, Datagrams, echo, stream_echo};
use anyhow::{Result, bail};
use std::io;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

pub fn run(command: &Command) -> Result<bool> {
    match command {
        Command::Udp(options) => udp(options),
        Command::Tcp(options) => tcp(options),
        Command::Up { port, .. } => up(*port),
        _ => bail!(
            "--device system knows up, udp and tcp only; for the rest the system has commands of its own"
        ),
    }
}

/// Echoes datagrams and streams until the process is ended. Port 0 is any that is free.
fn up(port: u16) -> Result<bool> {
    // Of both families, unless the system has no IPv6.
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))?;
    let address = listener.local_addr()?;
    let (port, socket) = (address.port(), UdpSocket::bind(address)?);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || io::copy(&mut &stream, &mut &stream));
        }
    });
    println!("echoing on port {port}");
    let mut buffer = vec![0; 65_536];
    loop {
        let (len, from) = socket.recv_from(&mut buffer)?;
        // A datagram that can't be sent is one that the network lost.
        let _ = socket.send_to(&buffer[..len], from);
    }
}

struct System(UdpSocket);

impl Datagrams for System {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.send(bytes).map(drop)
    }

    fn receive(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.set_nonblocking(true)?;
        let received = self.0.recv(into);
        self.0.set_nonblocking(false)?;
        received
    }

    fn turn(&mut self, timeout: Duration) -> Result<bool> {
        self.0
            .set_read_timeout(Some(timeout.max(Duration::from_millis(1))))?;
        // What is there stays there: only its arrival is waited for.
        let _ = self.0.peek(&mut [0; 1]);
        Ok(true)
    }
}

fn udp(options: &TransferOptions) -> Result<bool> {
    let any: IpAddr = match options.server() {
        server if server.is_ipv4() => Ipv4Addr::UNSPECIFIED.into(),
        _ => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(options.server())?;
    echo(&mut System(socket), options)
}

impl ByteStream for TcpStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.set_nonblocking(true)?;
        Write::write(self, bytes)
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.set_nonblocking(true)?;
        Read::read(self, into)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn turn(&mut self, timeout: Duration) -> Result<bool> {
        // Room to write is not waited for, so this looks again soon.
        const TICK: Duration = Duration::from_millis(5);
        self.set_nonblocking(false)?;
        self.set_read_timeout(Some(timeout.clamp(Duration::from_millis(1), TICK)))?;
        let _ = self.peek(&mut [0; 1]);
        Ok(true)
    }
}

fn tcp(options: &TransferOptions) -> Result<bool> {
    let limit = Duration::from_millis(options.timeout);
    let mut stream = TcpStream::connect_timeout(&options.server(), limit)?;
    stream_echo(&mut stream, options)
}
