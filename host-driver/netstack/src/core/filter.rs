//! Socket filters: closures, and classic BPF programs with a verifier and an interpreter
//! (net/core/filter.c, linux/filter.h; McCanne and Jacobson, "The BSD Packet Filter").
//!
//! A program only jumps forward and has a bounded length, so it ends; every load is checked.

use std::fmt;

use thiserror::Error;

/// Most instructions of a program (`BPF_MAXINSNS`).
pub const BPF_MAXINSNS: usize = 4096;
/// Words of scratch memory (`BPF_MEMWORDS`).
const BPF_MEMWORDS: usize = 16;

/// Offsets from here on are not in the packet: what the kernel knows about it (`SKF_AD_OFF`).
pub const SKF_AD_OFF: u32 = 0xffff_f000;
/// Ancillary: EtherType.
pub const SKF_AD_PROTOCOL: u32 = 0;
/// Ancillary: whom the frame is addressed to.
pub const SKF_AD_PKTTYPE: u32 = 4;
/// Ancillary: number of the interface.
pub const SKF_AD_IFINDEX: u32 = 8;

/// One instruction (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SockFilter {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if the condition holds.
    pub jt: u8,
    /// Instructions to skip if it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// A program is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BpfError {
    /// It has no instructions, or more than [`BPF_MAXINSNS`].
    #[error("a filter has from 1 to 4096 instructions")]
    Length,
    /// There is no such operation.
    #[error("instruction {0} is unknown")]
    Unknown(usize),
    /// It jumps beyond the end.
    #[error("instruction {0} jumps out of the program")]
    Jump(usize),
    /// It uses scratch memory that does not exist, or that not every path to it has written.
    #[error("instruction {0} uses invalid scratch memory")]
    Memory(usize),
    /// It divides by zero, or shifts by more than 31.
    #[error("instruction {0} has an invalid operand")]
    Operand(usize),
    /// The last instruction is no return.
    #[error("a filter ends with a return")]
    NoReturn,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    K,
    X,
}

#[derive(Debug, Clone, Copy)]
enum Size {
    Word,
    Half,
    Byte,
}

#[derive(Debug, Clone, Copy)]
enum Alu {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Or,
    And,
    Xor,
    Lsh,
    Rsh,
}

#[derive(Debug, Clone, Copy)]
enum Cond {
    Eq,
    Gt,
    Ge,
    Set,
}

/// An instruction that the verifier has passed.
#[derive(Debug, Clone, Copy)]
enum Op {
    LdAbs(Size),
    LdInd(Size),
    LdImm,
    LdLen,
    LdMem,
    LdxImm,
    LdxLen,
    LdxMem,
    LdxMsh,
    St,
    Stx,
    Alu(Alu, Source),
    Neg,
    Jump,
    JumpIf(Cond, Source),
    RetK,
    RetA,
    Tax,
    Txa,
}

/// What the program may ask about a packet beside its bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct BpfContext {
    /// EtherType.
    pub protocol: u16,
    /// `PACKET_HOST` (0), `PACKET_BROADCAST` (1) and so on.
    pub pkt_type: u8,
    /// Number of the interface.
    pub ifindex: u32,
}

/// A verified classic BPF program.
#[derive(Debug, Clone)]
pub struct BpfProgram(Vec<(Op, SockFilter)>);

fn decode(code: u16) -> Option<Op> {
    let source = if code & 0x08 != 0 { Source::X } else { Source::K };
    let size = match code & 0x18 {
        0x00 => Some(Size::Word),
        0x08 => Some(Size::Half),
        0x10 => Some(Size::Byte),
        _ => None,
    };
    Some(match (code & 0x07, code & 0xe0) {
        (0, 0x20) => Op::LdAbs(size?),
        (0, 0x40) => Op::LdInd(size?),
        (0, mode) if code & 0x18 == 0 => match mode {
            0x00 => Op::LdImm,
            0x60 => Op::LdMem,
            0x80 => Op::LdLen,
            _ => return None,
        },
        (1, 0xa0) if code & 0x18 == 0x10 => Op::LdxMsh,
        (1, mode) if code & 0x18 == 0 => match mode {
            0x00 => Op::LdxImm,
            0x60 => Op::LdxMem,
            0x80 => Op::LdxLen,
            _ => return None,
        },
        (2, 0) if code == 2 => Op::St,
        (3, 0) if code == 3 => Op::Stx,
        (4, _) => match code & 0xf0 {
            0x00 => Op::Alu(Alu::Add, source),
            0x10 => Op::Alu(Alu::Sub, source),
            0x20 => Op::Alu(Alu::Mul, source),
            0x30 => Op::Alu(Alu::Div, source),
            0x40 => Op::Alu(Alu::Or, source),
            0x50 => Op::Alu(Alu::And, source),
            0x60 => Op::Alu(Alu::Lsh, source),
            0x70 => Op::Alu(Alu::Rsh, source),
            0x80 if code == 0x84 => Op::Neg,
            0x90 => Op::Alu(Alu::Mod, source),
            0xa0 => Op::Alu(Alu::Xor, source),
            _ => return None,
        },
        (5, _) => match code & 0xf0 {
            0x00 if code == 0x05 => Op::Jump,
            0x10 => Op::JumpIf(Cond::Eq, source),
            0x20 => Op::JumpIf(Cond::Gt, source),
            0x30 => Op::JumpIf(Cond::Ge, source),
            0x40 => Op::JumpIf(Cond::Set, source),
            _ => return None,
        },
        (6, _) => match code {
            0x06 => Op::RetK,
            0x16 => Op::RetA,
            _ => return None,
        },
        (7, _) => match code {
            0x07 => Op::Tax,
            0x87 => Op::Txa,
            _ => return None,
        },
        _ => return None,
    })
}

impl BpfProgram {
    /// Checks a program (`bpf_check_classic`, `check_load_and_stores`).
    ///
    /// # Errors
    /// [`BpfError`] says which instruction is wrong.
    pub fn new(insns: &[SockFilter]) -> Result<Self, BpfError> {
        if insns.is_empty() || insns.len() > BPF_MAXINSNS {
            return Err(BpfError::Length);
        }
        // For each instruction the scratch words that are written on every way to it.
        let mut written = vec![u16::MAX; insns.len()];
        if let Some(first) = written.first_mut() {
            *first = 0;
        }
        let mut ops = Vec::with_capacity(insns.len());
        for (pc, insn) in insns.iter().enumerate() {
            let op = decode(insn.code).ok_or(BpfError::Unknown(pc))?;
            let mut valid = written.get(pc).copied().unwrap_or_default();
            let slot = || {
                let bit = 1u16.checked_shl(insn.k).filter(|_| insn.k < BPF_MEMWORDS as u32);
                bit.ok_or(BpfError::Memory(pc))
            };
            let (mut next, mut other) = (Some(pc + 1), None);
            match op {
                Op::St | Op::Stx => valid |= slot()?,
                Op::LdMem | Op::LdxMem if valid & slot()? == 0 => return Err(BpfError::Memory(pc)),
                Op::Alu(Alu::Div | Alu::Mod, Source::K) if insn.k == 0 => return Err(BpfError::Operand(pc)),
                Op::Alu(Alu::Lsh | Alu::Rsh, Source::K) if insn.k >= 32 => return Err(BpfError::Operand(pc)),
                Op::Jump => next = Some(pc.saturating_add(1).saturating_add(insn.k as usize)),
                Op::JumpIf(..) => {
                    next = Some(pc + 1 + usize::from(insn.jt));
                    other = Some(pc + 1 + usize::from(insn.jf));
                }
                Op::RetK | Op::RetA => next = None,
                _ => {}
            }
            for to in next.into_iter().chain(other) {
                match written.get_mut(to) {
                    Some(w) => *w &= valid,
                    None if matches!(op, Op::Jump | Op::JumpIf(..)) => return Err(BpfError::Jump(pc)),
                    None => return Err(BpfError::NoReturn),
                }
            }
            ops.push((op, *insn));
        }
        Ok(Self(ops))
    }

    /// Runs the program: how many bytes of the packet to keep, 0 for none (`___bpf_prog_run`). A load beyond
    /// the packet, or a division by zero, ends it with 0.
    pub fn run(&self, packet: &[u8], context: &BpfContext) -> u32 {
        self.interpret(packet, context).unwrap_or(0)
    }

    fn interpret(&self, packet: &[u8], context: &BpfContext) -> Option<u32> {
        let (mut a, mut x, mut mem) = (0u32, 0u32, [0u32; BPF_MEMWORDS]);
        let len = packet.len() as u32;
        let mut pc = 0;
        loop {
            let (op, insn) = self.0.get(pc)?;
            let k = insn.k;
            pc += 1;
            match op {
                Op::LdAbs(size) => a = load(packet, k, *size, context)?,
                Op::LdInd(size) => a = load(packet, k.wrapping_add(x), *size, context)?,
                Op::LdImm => a = k,
                Op::LdLen => a = len,
                Op::LdMem => a = *mem.get(k as usize)?,
                Op::LdxImm => x = k,
                Op::LdxLen => x = len,
                Op::LdxMem => x = *mem.get(k as usize)?,
                // Length of an IPv4 header.
                Op::LdxMsh => x = (load(packet, k, Size::Byte, context)? & 0xf) << 2,
                Op::St => *mem.get_mut(k as usize)? = a,
                Op::Stx => *mem.get_mut(k as usize)? = x,
                Op::Alu(alu, source) => {
                    let b = match source {
                        Source::K => k,
                        Source::X => x,
                    };
                    a = match alu {
                        Alu::Add => a.wrapping_add(b),
                        Alu::Sub => a.wrapping_sub(b),
                        Alu::Mul => a.wrapping_mul(b),
                        Alu::Div => a.checked_div(b)?,
                        Alu::Mod => a.checked_rem(b)?,
                        Alu::Or => a | b,
                        Alu::And => a & b,
                        Alu::Xor => a ^ b,
                        Alu::Lsh => a.checked_shl(b).unwrap_or(0),
                        Alu::Rsh => a.checked_shr(b).unwrap_or(0),
                    };
                }
                Op::Neg => a = a.wrapping_neg(),
                Op::Jump => pc = pc.saturating_add(k as usize),
                Op::JumpIf(cond, source) => {
                    let b = match source {
                        Source::K => k,
                        Source::X => x,
                    };
                    let holds = match cond {
                        Cond::Eq => a == b,
                        Cond::Gt => a > b,
                        Cond::Ge => a >= b,
                        Cond::Set => a & b != 0,
                    };
                    pc += usize::from(if holds { insn.jt } else { insn.jf });
                }
                Op::RetK => return Some(k),
                Op::RetA => return Some(a),
                Op::Tax => x = a,
                Op::Txa => a = x,
            }
        }
    }
}

fn load(packet: &[u8], at: u32, size: Size, context: &BpfContext) -> Option<u32> {
    if at >= SKF_AD_OFF {
        return match at - SKF_AD_OFF {
            SKF_AD_PROTOCOL => Some(context.protocol.into()),
            SKF_AD_PKTTYPE => Some(context.pkt_type.into()),
            SKF_AD_IFINDEX => Some(context.ifindex),
            _ => None,
        };
    }
    let bytes = packet.get(at as usize..)?;
    Some(match size {
        Size::Word => u32::from_be_bytes(*bytes.first_chunk()?),
        Size::Half => u16::from_be_bytes(*bytes.first_chunk()?).into(),
        Size::Byte => (*bytes.first()?).into(),
    })
}

/// A function that says how many bytes of a packet a socket keeps.
type FilterFn = Box<dyn FnMut(&[u8]) -> usize + Send>;

/// Decides which packets a socket gets (`struct sk_filter`).
pub enum SocketFilter {
    /// A function: how many bytes to keep, 0 to drop the packet.
    Closure(FilterFn),
    /// A classic BPF program (`SO_ATTACH_FILTER`).
    Bpf(BpfProgram),
}

impl SocketFilter {
    /// A filter by a closure.
    pub fn closure(f: impl FnMut(&[u8]) -> usize + Send + 'static) -> Self {
        Self::Closure(Box::new(f))
    }

    /// How many bytes of the packet to keep, 0 for none.
    pub fn run(&mut self, packet: &[u8], context: &BpfContext) -> usize {
        match self {
            Self::Closure(f) => f(packet),
            Self::Bpf(program) => program.run(packet, context) as usize,
        }
    }
}

impl From<BpfProgram> for SocketFilter {
    fn from(program: BpfProgram) -> Self {
        Self::Bpf(program)
    }
}

impl fmt::Debug for SocketFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closure(_) => f.write_str("Closure"),
            Self::Bpf(program) => write!(f, "Bpf({} instructions)", program.0.len()),
        }
    }
}

#[cfg(test)]
mod tests;
