//! `--device system`: the same checks over the operating system's own sockets.

use crate::arguments::{Command, TransferOptions};
use crate::transfer::{Datagrams, Pattern, echo};
use anyhow::{Result, bail};
use std::io;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

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

/// Echoes datagrams and streams until the process is ended.
fn up(port: u16) -> Result<bool> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || io::copy(&mut &stream, &mut &stream));
        }
    });
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
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
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((options.host, options.port))?;
    echo(&mut System(socket), options)
}

/// Both directions at once: this thread checks what another one sends.
fn tcp(options: &TransferOptions) -> Result<bool> {
    let limit = Duration::from_millis(options.timeout);
    let begun = Instant::now();
    let stream = TcpStream::connect_timeout(&SocketAddr::from((options.host, options.port)), limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let (mut writer, bytes, seed) = (stream.try_clone()?, options.bytes, options.seed);
    let sender = std::thread::spawn(move || -> io::Result<()> {
        let mut pattern = Pattern::new(seed);
        let (mut buffer, mut left) = (vec![0; 16_384], bytes);
        while left > 0 {
            let here = left.min(buffer.len() as u64) as usize;
            pattern.fill(&mut buffer[..here]);
            writer.write_all(&buffer[..here])?;
            left -= here as u64;
        }
        writer.shutdown(Shutdown::Write)
    });
    let mut pattern = Pattern::new(seed);
    let (mut buffer, mut expected) = (vec![0; 16_384], vec![0; 16_384]);
    let (mut received, mut wrong) = (0u64, 0u64);
    let mut reader = &stream;
    let ended = loop {
        match reader.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(len) => {
                pattern.fill(&mut expected[..len]);
                wrong += u64::from(expected[..len] != buffer[..len]);
                received += len as u64;
            }
            Err(error) => break Err(error),
        }
    };
    let sent = sender.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "tcp: {bytes} bytes sent, {received} came back, {wrong} reads with wrong bytes; {seconds:.2} s, {:.0} kB/s each way",
        received as f64 / seconds * 1e-3
    );
    sent?;
    ended?;
    Ok(received == bytes && wrong == 0)
}
