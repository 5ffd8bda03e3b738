//! Expressions and statements as Verilog text.

use std::fmt::Write;

use super::expr::{Ex, Kind};
use super::tracer::Stmt;

/// An expression in which every operand is already at its exact width.
pub(crate) fn expression(e: &Ex) -> String {
    let text = operand(e);
    // The outermost parentheses say nothing.
    match &*e.kind {
        Kind::Binary(..) | Kind::Mux(..) | Kind::SignedLt(..) => text[1..text.len() - 1].to_string(),
        _ => text,
    }
}

fn operand(e: &Ex) -> String {
    match &*e.kind {
        Kind::Const { label: Some(l), .. } => l.clone(),
        Kind::Const { value, .. } if e.width == 0 => value.to_string(),
        Kind::Const { value, .. } => format!("{}'h{value:x}", e.width),
        Kind::Signal(n) => n.clone(),
        Kind::Not(a) => format!("~{}", operand(a)),
        Kind::Binary(op, a, b) => match (*op, b.as_const()) {
            ("<<" | ">>", Some(n)) => format!("({} {op} {n})", operand(a)),
            _ => format!("({} {op} {})", operand(a), operand(b)),
        },
        Kind::SignedLt(a, b) => format!("($signed({}) < $signed({}))", expression(a), expression(b)),
        Kind::Reduce(op, a) => format!("({op}{})", operand(a)),
        Kind::Mux(s, a, b) => format!("({} ? {} : {})", operand(s), operand(a), operand(b)),
        Kind::Cat(parts) => format!(
            "{{{}}}",
            parts.iter().map(expression).collect::<Vec<_>>().join(", ")
        ),
        Kind::Slice(n, lo) if e.width == 1 => format!("{n}[{lo}]"),
        Kind::Slice(n, lo) => format!("{n}[{}:{lo}]", lo + e.width - 1),
        Kind::DynSlice(n, i) if e.width == 1 => format!("{n}[{}]", expression(i)),
        Kind::DynSlice(n, i) => format!("{n}[{} +: {}]", expression(i), e.width),
    }
}

/// Statements inside an always block, indented by `depth` steps of four spaces.
pub(crate) fn statements(list: &[Stmt], depth: usize) -> String {
    let mut out = String::new();
    for s in list {
        statement(s, depth, &mut out);
    }
    out
}

fn statement(s: &Stmt, depth: usize, out: &mut String) {
    let pad = " ".repeat(4 * depth);
    // Writing to a String cannot fail.
    let _ = match s {
        Stmt::Assign {
            name,
            whole: true,
            value,
            ..
        } => writeln!(out, "{pad}{name} = {};", expression(value)),
        Stmt::Assign {
            name,
            lo,
            width: 1,
            value,
            ..
        } => writeln!(out, "{pad}{name}[{lo}] = {};", expression(value)),
        Stmt::Assign {
            name,
            lo,
            width,
            value,
            ..
        } => {
            writeln!(
                out,
                "{pad}{name}[{}:{lo}] = {};",
                lo + width - 1,
                expression(value)
            )
        }
        Stmt::If {
            cond,
            then,
            otherwise,
        } => {
            let _ = write!(
                out,
                "{pad}if ({}) begin\n{}",
                expression(cond),
                statements(then, depth + 1)
            );
            match &otherwise[..] {
                [] => writeln!(out, "{pad}end"),
                [elif @ Stmt::If { .. }] => {
                    let mut rest = String::new();
                    statement(elif, depth, &mut rest);
                    write!(out, "{pad}end else {}", rest.trim_start())
                }
                _ => writeln!(
                    out,
                    "{pad}end else begin\n{}{pad}end",
                    statements(otherwise, depth + 1)
                ),
            }
        }
        Stmt::Case {
            selector,
            arms,
            default,
        } => {
            let _ = writeln!(out, "{pad}case ({})", expression(selector));
            for (values, list) in arms {
                let values = values.iter().map(expression).collect::<Vec<_>>().join(", ");
                let _ = writeln!(
                    out,
                    "{pad}    {values}: begin\n{}{pad}    end",
                    statements(list, depth + 2)
                );
            }
            let _ = writeln!(
                out,
                "{pad}    default: begin\n{}{pad}    end",
                statements(default, depth + 2)
            );
            writeln!(out, "{pad}endcase")
        }
    };
}
