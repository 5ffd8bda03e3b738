//! The scripts: a line is a time and an event.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use crate::segment::Segment;

/// The peer's port where a line names none with `@port`.
pub const PORT: u16 = 4000;

/// A line of a script.
#[derive(Debug)]
pub struct Line {
    /// Where it is.
    pub place: String,
    /// What it says.
    pub text: String,
    /// Earliest and latest time since the line before.
    pub delay: (Duration, Duration),
    /// The peer's port.
    pub port: u16,
    pub event: Event,
}

/// What a line says.
#[derive(Debug)]
pub enum Event {
    /// The peer sends a segment; if damaged, with a wrong checksum.
    In { segment: Segment, damaged: bool },
    /// The stack sends a segment.
    Out(Segment),
    /// The stack has sent nothing but what the lines before say.
    Quiet,
    /// An ICMP error about our segment with this sequence number.
    Icmp { kind: IcmpError, seq: i64 },
    /// A setting of the stack, before anything else.
    Sysctl { name: String, value: u64 },
    /// Numbers of the peer's port count from the next connection on.
    Fresh,
    /// A call with its result.
    Call { call: Call, result: String },
}

/// ICMP errors (RFC 792).
#[derive(Debug, Clone, Copy)]
pub enum IcmpError {
    FragNeeded(u16),
    PortUnreachable,
    HostUnreachable,
}

/// Calls of the socket interface.
#[derive(Debug)]
pub enum Call {
    Socket,
    Listen(u32),
    Connect,
    Accept,
    Write(usize),
    Read(usize),
    Peek(usize),
    Shutdown(std::net::Shutdown),
    Close,
    CloseListener,
    Set(String, Vec<f64>),
    /// `SO_ERROR`.
    Error,
    /// A field of `TCP_INFO`.
    Info(String),
    /// A counter by its name in `nstat`.
    Nstat(String),
    /// Entries of TCP, TIME-WAIT included, and those in TIME-WAIT.
    Sockets,
    TimeWait,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = f64::from_str(text).map_err(|_| format!("`{text}` is no time in seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|e| format!("`{text}`: {e}"))
}

fn number<T: FromStr>(word: Option<&str>) -> Result<T, String> {
    let word = word.ok_or("a number is missing")?;
    word.parse()
        .map_err(|_| format!("`{word}` is no number that fits"))
}

fn call(verb: &str, args: &str) -> Result<Call, String> {
    let mut words = args.split_whitespace();
    let call = match verb {
        "socket" => Call::Socket,
        "listen" => match words.next() {
            None => Call::Listen(128),
            Some("backlog") => Call::Listen(number(words.next())?),
            Some(word) => return Err(format!("listen has no `{word}`")),
        },
        "connect" => Call::Connect,
        "accept" => Call::Accept,
        "write" => Call::Write(number(words.next())?),
        "read" => Call::Read(number(words.next())?),
        "peek" => Call::Peek(number(words.next())?),
        "shutdown" => Call::Shutdown(match words.next() {
            Some("read") => std::net::Shutdown::Read,
            Some("write") => std::net::Shutdown::Write,
            Some("both") => std::net::Shutdown::Both,
            _ => return Err("shutdown what: read, write or both?".into()),
        }),
        "close" => match words.next() {
            None => Call::Close,
            Some("listener") => Call::CloseListener,
            Some(word) => return Err(format!("close has no `{word}`")),
        },
        "set" => {
            let option = words.next().ok_or("set which option?")?.to_string();
            let values: Result<_, _> = words.by_ref().map(|w| number(Some(w))).collect();
            Call::Set(option, values?)
        }
        "error" => Call::Error,
        "info" => Call::Info(words.next().ok_or("info of which field?")?.into()),
        "nstat" => Call::Nstat(words.next().ok_or("nstat of which counter?")?.into()),
        "sockets" => Call::Sockets,
        "timewait" => Call::TimeWait,
        other => return Err(format!("no event is called `{other}`")),
    };
    match words.next() {
        Some(word) => Err(format!("`{word}` is too much")),
        None => Ok(call),
    }
}

fn event(verb: &str, args: &str) -> Result<Event, String> {
    let (first, rest) = args.split_once(' ').unwrap_or((args, ""));
    Ok(match verb {
        "in" => Event::In {
            damaged: first == "damaged",
            segment: Segment::parse(if first == "damaged" { rest } else { args })?,
        },
        "out" => Event::Out(Segment::parse(args)?),
        "quiet" => Event::Quiet,
        "fresh" => Event::Fresh,
        "icmp" => {
            let mut words = rest.split_whitespace();
            let kind = match first {
                "frag-needed" => IcmpError::FragNeeded(number(words.next())?),
                "port-unreachable" => IcmpError::PortUnreachable,
                "host-unreachable" => IcmpError::HostUnreachable,
                other => return Err(format!("no ICMP error is called `{other}`")),
            };
            if words.next() != Some("seq") {
                return Err("an ICMP error tells the `seq` of a segment".into());
            }
            let seq = number(words.next())?;
            Event::Icmp { kind, seq }
        }
        "sysctl" => {
            let (name, value) = args.split_once('=').ok_or("sysctl name=value")?;
            let value = number(Some(value.trim()))?;
            Event::Sysctl {
                name: name.trim().into(),
                value,
            }
        }
        _ => {
            let (args, result) = args.split_once('=').unwrap_or((args, "ok"));
            Event::Call {
                call: call(verb, args)?,
                result: result.trim().into(),
            }
        }
    })
}

fn line(place: &str, text: &str) -> Result<Line, String> {
    let (mut delay, mut rest) = ((Duration::ZERO, Duration::ZERO), text);
    if let Some(timed) = text.strip_prefix('+') {
        let (time, event) = timed.split_once(' ').ok_or("a time, and then?")?;
        let (early, late) = time.split_once('~').unwrap_or((time, time));
        delay = (seconds(early)?, seconds(late)?);
        rest = event.trim_start();
    }
    let (verb, mut args) = rest.split_once(' ').unwrap_or((rest, ""));
    args = args.trim();
    let mut port = PORT;
    if let Some(named) = args.strip_prefix('@') {
        let (name, rest) = named.split_once(' ').unwrap_or((named, ""));
        port = number(Some(name))?;
        args = rest.trim();
    }
    Ok(Line {
        place: place.into(),
        text: text.into(),
        delay,
        port,
        event: event(verb, args)?,
    })
}

/// Reads a script; `include name` stands for the lines of another.
///
/// # Errors
/// The place and what is wrong there.
pub fn parse(path: &Path) -> Result<Vec<Line>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let name = path.file_name().unwrap_or_default().display();
    let mut lines = vec![];
    for (n, text) in text.lines().enumerate() {
        let place = format!("{name}:{}", n + 1);
        let text = text.split('#').next().unwrap_or("").trim();
        if let Some(other) = text.strip_prefix("include ") {
            lines.extend(parse(&path.with_file_name(other.trim()))?);
        } else if !text.is_empty() {
            lines.push(line(&place, text).map_err(|e| format!("{place}: {text}\n  {e}"))?);
        }
    }
    Ok(lines)
}
