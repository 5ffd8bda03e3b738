//! Calls of the socket interface that a script makes, and their results as text.

use std::io;
use std::time::Duration;

use hematite_netstack::{Stack, TcpKeepalive, TcpSocket, TcpStream};

use crate::common::tcp::byte_at;
use crate::run::{OUR_SALT, PEER_SALT};
use crate::script::Call;

/// Calls that need nothing but the stream; `written` and `read` are where it is in both directions.
pub fn call(
    stack: &mut Stack,
    stream: &TcpStream,
    call: &Call,
    (written, read): (&mut usize, &mut usize),
) -> Result<String, String> {
    let result = match call {
        Call::Write(len) => {
            let bytes: Vec<u8> = (0..*len).map(|i| byte_at(OUR_SALT, *written + i)).collect();
            let done = stream.write(stack, &bytes);
            *written += *done.as_ref().unwrap_or(&0);
            done.map(|n| n.to_string())
        }
        Call::Read(len) | Call::Peek(len) => {
            let mut buf = vec![0; *len];
            let taken = matches!(call, Call::Read(_));
            let done = if taken {
                stream.read(stack, &mut buf)
            } else {
                stream.peek(stack, &mut buf)
            };
            let len = *done.as_ref().unwrap_or(&0);
            let wrong = (0..len).find(|i| buf[*i] != byte_at(PEER_SALT, *read + i));
            if let Some(i) = wrong {
                return Err(format!(
                    "  byte {} of what was read is not what the peer sent",
                    *read + i
                ));
            }
            *read += if taken { len } else { 0 };
            done.map(|n| n.to_string())
        }
        Call::Shutdown(how) => stream.shutdown(stack, *how).map(|()| "ok".into()),
        Call::Error => stream
            .take_error(stack)
            .map(|e| e.map_or("none".into(), |e| format!("{:?}", e.kind()))),
        Call::Info(field) => stream.info(stack).map(|info| {
            // The fields have the names that the debug output gives them.
            let all = format!("{info:?}");
            let field = all
                .split(&format!(" {field}: "))
                .nth(1)
                .unwrap_or("no such field");
            field.split([',', '}']).next().unwrap_or(field).trim().into()
        }),
        other => return Err(format!("  {other:?} is no call of a stream")),
    };
    Ok(result.unwrap_or_else(|e| format!("{:?}", e.kind())))
}

/// Options that sockets of all kinds have.
macro_rules! set_common {
    ($socket:expr, $stack:expr, $name:expr, $values:expr) => {
        match ($name, $values) {
            ("rcvbuf", [size]) => Some($socket.set_recv_buffer_size($stack, *size as usize)),
            ("sndbuf", [size]) => Some($socket.set_send_buffer_size($stack, *size as usize)),
            ("mss", [mss]) => Some($socket.set_mss($stack, *mss as u32)),
            ("keepalive", [time, interval, retries]) => Some($socket.set_tcp_keepalive(
                $stack,
                Some(TcpKeepalive {
                    time: Duration::from_secs_f64(*time),
                    interval: Duration::from_secs_f64(*interval),
                    retries: *retries as u32,
                }),
            )),
            _ => None,
        }
    };
}

/// Sets an option of a socket that is not connected. `None` if there is none of that name.
pub fn set_socket(
    socket: &TcpSocket,
    stack: &mut Stack,
    name: &str,
    values: &[f64],
) -> Option<io::Result<()>> {
    set_common!(socket, stack, name, values)
}

/// Sets an option of a stream.
pub fn set_stream(
    stream: &TcpStream,
    stack: &mut Stack,
    name: &str,
    values: &[f64],
) -> Option<io::Result<()>> {
    if let Some(done) = set_common!(stream, stack, name, values) {
        return Some(done);
    }
    let [value] = values else { return None };
    let (on, time) = (*value != 0.0, Duration::from_secs_f64(*value));
    Some(match name {
        "nodelay" => stream.set_nodelay(stack, on),
        "cork" => stream.set_cork(stack, on),
        "quickack" => stream.set_quickack(stack, on),
        "user_timeout" => stream.set_tcp_user_timeout(stack, Some(time)),
        "linger" => stream.set_linger(stack, Some(time)),
        _ => return None,
    })
}
