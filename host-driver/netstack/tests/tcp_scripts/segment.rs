//! Segments in the notation of scripts: `PA 1:1001 ack 1 win 502 <nop, nop, TS 20 ecr 1000>`.

use std::fmt;

use etherparse::TcpHeader;

/// Letters of the control bits, in the order of writing.
const FLAGS: [(char, u8); 8] = [
    ('S', 0x02),
    ('F', 0x01),
    ('R', 0x04),
    ('P', 0x08),
    ('A', 0x10),
    ('U', 0x20),
    ('E', 0x40),
    ('C', 0x80),
];
/// Names of the ECN fields of the IP header that say something.
const ECN: [(&str, u8); 3] = [("ect1", 1), ("ect0", 2), ("ce", 3)];
const ACK: u8 = 0x10;
const URG: u8 = 0x20;

/// What a segment's numbers are counted from.
#[derive(Debug, Clone, Copy, Default)]
pub struct Base {
    /// Initial sequence number of the sender.
    pub seq: u32,
    /// Initial sequence number of the receiver.
    pub ack: u32,
    /// First timestamp of the sender.
    pub ts: u32,
    /// First timestamp of the receiver.
    pub echo: u32,
}

/// A TCP option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opt {
    Eol,
    Nop,
    Mss(u16),
    Wscale(u8),
    SackOk,
    /// `None` is any.
    Ts(Option<u32>, u32),
    Sack(Vec<(i64, i64)>),
    Other(u8, Vec<u8>),
}

/// A segment, sent or expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub flags: u8,
    /// The sequence number is not counted from the initial one.
    pub absolute: bool,
    /// First byte of the payload and the one behind it.
    pub seq: (i64, i64),
    pub ack: Option<i64>,
    pub win: Option<u16>,
    pub urg: Option<u16>,
    /// ECN field of the IP header.
    pub ecn: u8,
    /// `None` is any.
    pub options: Option<Vec<Opt>>,
}

/// Distance in sequence space.
fn relative(number: u32, base: u32) -> i64 {
    i64::from(number.wrapping_sub(base) as i32)
}

fn number<T: std::str::FromStr>(what: &str, word: Option<&str>) -> Result<T, String> {
    let word = word.ok_or_else(|| format!("{what} is missing"))?;
    word.parse()
        .map_err(|_| format!("{what}: `{word}` is no number that fits"))
}

fn range(word: &str) -> Result<(i64, i64), String> {
    let (start, end) = word
        .split_once(':')
        .ok_or_else(|| format!("`{word}`: sequence numbers are written first:behind-the-last"))?;
    let range = (number("first", Some(start))?, number("end", Some(end))?);
    if range.1 < range.0 {
        return Err(format!("`{word}` ends before it begins"));
    }
    Ok(range)
}

impl Opt {
    fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let opt = match words.next().unwrap_or("") {
            "eol" => Self::Eol,
            "nop" => Self::Nop,
            "mss" => Self::Mss(number("mss", words.next())?),
            "wscale" => Self::Wscale(number("wscale", words.next())?),
            "sackOK" => Self::SackOk,
            "TS" => {
                let val = match words.next() {
                    Some("*") => None,
                    word => Some(number("TS", word)?),
                };
                if words.next() != Some("ecr") {
                    return Err("a timestamp is written `TS value ecr echo`".into());
                }
                Self::Ts(val, number("ecr", words.next())?)
            }
            "sack" => {
                let blocks: Result<Vec<_>, _> = words.by_ref().map(range).collect();
                Self::Sack(blocks?)
            }
            "kind" => {
                let kind = number("kind", words.next())?;
                let body: Result<Vec<u8>, _> = words.by_ref().map(|w| number("byte", Some(w))).collect();
                Self::Other(kind, body?)
            }
            other => return Err(format!("no option is called `{other}`")),
        };
        match words.next() {
            Some(word) => Err(format!("`{word}` is too much in the option `{text}`")),
            None => Ok(opt),
        }
    }

    fn emit(&self, base: &Base, out: &mut Vec<u8>) {
        let start = out.len();
        let kind = match self {
            Self::Eol => return out.push(0),
            Self::Nop => return out.push(1),
            Self::Mss(_) => 2,
            Self::Wscale(_) => 3,
            Self::SackOk => 4,
            Self::Sack(_) => 5,
            Self::Ts(..) => 8,
            Self::Other(kind, _) => *kind,
        };
        out.extend([kind, 0]);
        match self {
            Self::Mss(mss) => out.extend(mss.to_be_bytes()),
            Self::Wscale(shift) => out.push(*shift),
            Self::Ts(val, ecr) => {
                out.extend(base.ts.wrapping_add(val.unwrap_or(0)).to_be_bytes());
                out.extend(base.echo.wrapping_add(*ecr).to_be_bytes());
            }
            Self::Sack(blocks) => {
                for edge in blocks.iter().flat_map(|b| [b.0, b.1]) {
                    out.extend(base.ack.wrapping_add(edge as u32).to_be_bytes());
                }
            }
            Self::Other(_, body) => out.extend(body),
            Self::Eol | Self::Nop | Self::SackOk => {}
        }
        out[start + 1] = (out.len() - start) as u8;
    }

    fn read(bytes: &[u8], base: &Base) -> Vec<Self> {
        let be = |b: &[u8]| u32::from_be_bytes(b.try_into().unwrap());
        let mut opts = vec![];
        let mut rest = bytes;
        while let [kind, tail @ ..] = rest {
            if *kind <= 1 {
                opts.push(if *kind == 0 { Self::Eol } else { Self::Nop });
                rest = tail;
                continue;
            }
            let len = usize::from(tail.first().copied().unwrap_or(0));
            let Some(body) = rest.get(2..len) else {
                opts.push(Self::Other(*kind, tail.to_vec()));
                break;
            };
            opts.push(match (*kind, body) {
                (2, [hi, lo]) => Self::Mss(u16::from_be_bytes([*hi, *lo])),
                (3, [shift]) => Self::Wscale(*shift),
                (4, []) => Self::SackOk,
                (5, body) if body.len() % 8 == 0 => Self::Sack(
                    body.chunks(8)
                        .map(|b| (relative(be(&b[..4]), base.ack), relative(be(&b[4..]), base.ack)))
                        .collect(),
                ),
                (8, body) if body.len() == 8 => Self::Ts(
                    Some(be(&body[..4]).wrapping_sub(base.ts)),
                    be(&body[4..]).wrapping_sub(base.echo),
                ),
                (kind, body) => Self::Other(kind, body.to_vec()),
            });
            rest = &rest[len..];
        }
        opts
    }

    /// Whether a segment with `sent` is what was meant.
    fn matches(&self, sent: &Self) -> bool {
        match (self, sent) {
            (Self::Ts(None, ecr), Self::Ts(_, sent)) => ecr == sent,
            _ => self == sent,
        }
    }
}

impl Segment {
    /// Reads the notation.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (text, options) = match text.split_once('<') {
            None => (text, Some(vec![])),
            Some((text, rest)) => {
                let list = rest
                    .trim_end()
                    .strip_suffix('>')
                    .ok_or("options end with `>`, and the segment with them")?;
                let options = match list.trim() {
                    "..." => None,
                    list => Some(list.split(',').map(Opt::parse).collect::<Result<Vec<_>, _>>()?),
                };
                (text, options)
            }
        };
        let mut words = text.split_whitespace();
        let mut flags = 0;
        for letter in words.next().unwrap_or("").chars() {
            let bit = FLAGS.iter().find(|f| f.0 == letter);
            flags |= bit
                .ok_or_else(|| format!("no control bit has the letter `{letter}`"))?
                .1;
        }
        let seq = words
            .next()
            .ok_or("a segment has sequence numbers: `A 1:1 ack 1`")?;
        let (absolute, seq) = match seq.strip_prefix('=') {
            Some(seq) => (true, seq),
            None => (false, seq),
        };
        let mut segment = Self {
            flags,
            absolute,
            seq: range(seq)?,
            ack: None,
            win: None,
            urg: None,
            ecn: 0,
            options,
        };
        while let Some(word) = words.next() {
            match word {
                "ack" => segment.ack = Some(number(word, words.next())?),
                "win" => segment.win = Some(number(word, words.next())?),
                "urg" => segment.urg = Some(number(word, words.next())?),
                _ => {
                    let field = ECN.iter().find(|e| e.0 == word);
                    segment.ecn = field.ok_or_else(|| format!("a segment has no `{word}`"))?.1;
                }
            }
        }
        if segment.ack.is_some() != (flags & ACK != 0) {
            return Err("`ack` and the flag A go together".into());
        }
        Ok(segment)
    }

    /// The segment that a host sent.
    pub fn read(header: &TcpHeader, payload: usize, known: bool, base: &Base) -> Self {
        let bytes = header.to_bytes();
        let (flags, options) = (bytes[13], header.options.as_slice());
        let start = if known {
            relative(header.sequence_number, base.seq)
        } else {
            header.sequence_number.into()
        };
        Self {
            flags,
            absolute: !known,
            seq: (start, start + payload as i64),
            ack: (flags & ACK != 0).then(|| relative(header.acknowledgment_number, base.ack)),
            win: Some(header.window_size),
            urg: (flags & URG != 0).then_some(header.urgent_pointer),
            ecn: 0,
            options: Some(Opt::read(options, base)),
        }
    }

    /// The header of the segment, its checksum apart.
    pub fn header(&self, ports: (u16, u16), win: u16, base: &Base) -> Result<TcpHeader, String> {
        let seq = if self.absolute { 0 } else { base.seq };
        let mut header = TcpHeader::new(ports.0, ports.1, seq.wrapping_add(self.seq.0 as u32), win);
        header.acknowledgment_number = self.ack.map_or(0, |ack| base.ack.wrapping_add(ack as u32));
        for (flag, letter) in [
            (&mut header.syn, 'S'),
            (&mut header.fin, 'F'),
            (&mut header.rst, 'R'),
            (&mut header.psh, 'P'),
            (&mut header.ack, 'A'),
            (&mut header.urg, 'U'),
            (&mut header.ece, 'E'),
            (&mut header.cwr, 'C'),
        ] {
            let bit = FLAGS.iter().find(|f| f.0 == letter).map_or(0, |f| f.1);
            *flag = self.flags & bit != 0;
        }
        header.urgent_pointer = self.urg.unwrap_or(0);
        let mut options = vec![];
        for opt in self.options.iter().flatten() {
            opt.emit(base, &mut options);
        }
        header
            .set_options_raw(&options)
            .map_err(|e| format!("options: {e}"))?;
        Ok(header)
    }

    /// The fields as a table row; those that may be anything are empty.
    pub fn columns(&self) -> [String; 7] {
        let flags = FLAGS
            .iter()
            .filter(|f| self.flags & f.1 != 0)
            .map(|f| f.0)
            .collect();
        let abs = if self.absolute { "=" } else { "" };
        let field = |name: &str, value: Option<i64>| value.map_or(String::new(), |v| format!("{name} {v}"));
        let options = match &self.options {
            None => "<...>".into(),
            Some(opts) if opts.is_empty() => String::new(),
            Some(opts) => {
                let opts: Vec<_> = opts.iter().map(ToString::to_string).collect();
                format!("<{}>", opts.join(", "))
            }
        };
        [
            flags,
            format!("{abs}{}:{}", self.seq.0, self.seq.1),
            field("ack", self.ack),
            field("win", self.win.map(i64::from)),
            field("urg", self.urg.map(i64::from)),
            ECN.iter()
                .find(|e| e.1 == self.ecn)
                .map_or(String::new(), |e| e.0.into()),
            options,
        ]
    }

    /// Which of the [`Segment::columns`] of a segment that was sent are not as expected.
    pub fn differences(&self, sent: &Self) -> [bool; 7] {
        let options = match (&self.options, &sent.options) {
            (Some(a), Some(b)) => a.len() != b.len() || a.iter().zip(b).any(|(a, b)| !a.matches(b)),
            _ => false,
        };
        [
            self.flags != sent.flags,
            self.seq != sent.seq || self.absolute != sent.absolute,
            self.ack != sent.ack,
            self.win.is_some() && self.win != sent.win,
            self.urg != sent.urg,
            self.ecn != sent.ecn,
            options,
        ]
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.columns().into_iter().filter(|c| !c.is_empty());
        f.write_str(&columns.collect::<Vec<_>>().join(" "))
    }
}

impl fmt::Display for Opt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eol => f.write_str("eol"),
            Self::Nop => f.write_str("nop"),
            Self::Mss(mss) => write!(f, "mss {mss}"),
            Self::Wscale(shift) => write!(f, "wscale {shift}"),
            Self::SackOk => f.write_str("sackOK"),
            Self::Ts(Some(val), ecr) => write!(f, "TS {val} ecr {ecr}"),
            Self::Ts(None, ecr) => write!(f, "TS * ecr {ecr}"),
            Self::Sack(blocks) => {
                f.write_str("sack")?;
                blocks.iter().try_for_each(|b| write!(f, " {}:{}", b.0, b.1))
            }
            Self::Other(kind, body) => {
                write!(f, "kind {kind}")?;
                body.iter().try_for_each(|b| write!(f, " {b}"))
            }
        }
    }
}
