//! Statements: `let`, assignments, `if`, `match`, `for`, and the `registers!` and `clocked!` macros.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{
    BinOp, Block, Error, Expr, ExprAssign, ExprForLoop, Local, Macro, Member, Pat, Result, Stmt, Token,
};

use crate::{expr, path};

/// A block of statements without a value.
pub fn body(b: &Block) -> Result<TokenStream> {
    let stmts = statements(&b.stmts)?;
    Ok(quote!(#(#stmts)*))
}

/// Each statement, or the errors of all of them.
fn statements(stmts: &[Stmt]) -> Result<Vec<TokenStream>> {
    let mut traced = vec![];
    let mut errors: Option<Error> = None;
    for s in stmts {
        match (stmt(s), &mut errors) {
            (Ok(code), _) => traced.push(code),
            (Err(e), Some(all)) => all.combine(e),
            (Err(e), none) => *none = Some(e),
        }
    }
    errors.map_or(Ok(traced), Err)
}

/// A block whose last expression is its value: an expression of type `Ex`.
pub fn value_block(b: &Block) -> Result<TokenStream> {
    let Some((Stmt::Expr(value, None), before)) = b.stmts.split_last() else {
        return Err(Error::new_spanned(
            b,
            "this block must end in a value (an expression without `;`)",
        ));
    };
    let before = statements(before)?;
    let value = expr::expr(value)?;
    Ok(quote!({ #(#before)* #value }))
}

fn stmt(s: &Stmt) -> Result<TokenStream> {
    let at = quote_spanned!(s.span()=> __c.at(file!(), line!()););
    let code = match s {
        Stmt::Local(l) => local(l)?,
        Stmt::Expr(e, _) => expr_stmt(e)?,
        Stmt::Macro(m) => macro_stmt(&m.mac)?,
        Stmt::Item(i) => quote!(#i),
    };
    Ok(quote!(#at #code))
}

fn local(l: &Local) -> Result<TokenStream> {
    let (pat, ty) = match &l.pat {
        Pat::Type(t) => (&*t.pat, Some(&t.ty)),
        p => (p, None),
    };
    let Pat::Ident(name) = pat else {
        return Err(Error::new_spanned(
            pat,
            "`let` takes one plain name here: bind the parts one by one",
        ));
    };
    let Some(init) = &l.init else {
        return Err(Error::new_spanned(
            l,
            "`let` needs a value: an unset wire would be a latch",
        ));
    };
    if let Some((_, diverge)) = &init.diverge {
        return Err(Error::new_spanned(
            diverge,
            "`let ... else` has no hardware meaning",
        ));
    }
    let value = expr::expr(&init.expr)?;
    let value = match ty {
        Some(ty) => quote!(({ #value }).sized(<#ty as ::hematite_lang::core::synth::Synth>::BITS)),
        None => value,
    };
    let (id, text) = (&name.ident, name.ident.to_string());
    let make = if name.mutability.is_some() {
        quote!(variable)
    } else {
        quote!(constant)
    };
    Ok(quote!(let #id = { let __v = #value; __c.#make(#text, __v) };))
}

fn expr_stmt(e: &Expr) -> Result<TokenStream> {
    match e {
        Expr::Assign(a) => assign(a),
        Expr::Binary(b) => match compound(&b.op) {
            Some(op) => {
                let value = expr::binary(op, &b.left, &b.right)?;
                assign_to(&b.left, value)
            }
            None => Err(Error::new_spanned(e, "this value is not used")),
        },
        Expr::If(i) => {
            let cond = expr::expr(&i.cond)?;
            let then = body(&i.then_branch)?;
            let otherwise = match &i.else_branch {
                Some((_, e)) => expr_stmt(e)?,
                None => quote!(),
            };
            Ok(
                quote!({ let __s = #cond; __c.branch(__s, &mut |__c| { #then None }, &mut |__c| { #otherwise None }); }),
            )
        }
        Expr::Match(m) => {
            let code = expr::match_arms(m, |e| {
                let b = expr_stmt(e)?;
                Ok(quote!(#b None))
            })?;
            Ok(quote!({ #code; }))
        }
        Expr::ForLoop(l) => for_loop(l),
        Expr::Block(b) => {
            let b = body(&b.block)?;
            Ok(quote!({ #b }))
        }
        Expr::Tuple(t) if t.elems.is_empty() => Ok(quote!()),
        Expr::Macro(m) => macro_stmt(&m.mac),
        Expr::MethodCall(m) if m.method == "set_bits" => {
            let Some(width) = m.turbofish.as_ref().and_then(|t| t.args.first()) else {
                return Err(Error::new_spanned(
                    m,
                    "write the width: `set_bits::<8>(offset, value)`",
                ));
            };
            let (Some(at), Some(value)) = (m.args.first(), m.args.get(1)) else {
                return Err(Error::new_spanned(m, "`set_bits::<W>(offset, value)`"));
            };
            let (target, at, value) = (&m.receiver, expr::expr(at)?, expr::expr(value)?);
            Ok(quote!({ let __i = #at; let __v = #value; __c.set_bits(&#target, __i, #width, __v); }))
        }
        Expr::MethodCall(m) if m.method == "join" || m.method == "link" => {
            let Some(Expr::Reference(other)) = m.args.first() else {
                return Err(Error::new_spanned(m, "`self.a.join(&mut self.b)`"));
            };
            let (a, b) = (
                path::parse(&m.receiver)?.bundle(),
                path::parse(&other.expr)?.bundle(),
            );
            let method = &m.method;
            Ok(quote!({ let __a = #a; let __b = #b; __c.#method(__a, __b); }))
        }
        Expr::While(_) | Expr::Loop(_) => Err(Error::new_spanned(
            e,
            "hardware has no run-time loops: use `for i in 0..N`, unrolled at generation",
        )),
        Expr::Return(_) | Expr::Break(_) | Expr::Continue(_) => {
            Err(Error::new_spanned(e, "no early exit in hardware: use if/else"))
        }
        _ => Err(Error::new_spanned(
            e,
            "this statement has no hardware meaning here",
        )),
    }
}

fn compound(op: &BinOp) -> Option<&'static str> {
    Some(match op {
        BinOp::AddAssign(_) => "+",
        BinOp::SubAssign(_) => "-",
        BinOp::BitAndAssign(_) => "&",
        BinOp::BitOrAssign(_) => "|",
        BinOp::BitXorAssign(_) => "^",
        BinOp::ShlAssign(_) => "<<",
        BinOp::ShrAssign(_) => ">>",
        _ => return None,
    })
}

fn assign(a: &ExprAssign) -> Result<TokenStream> {
    let value = expr::expr(&a.right)?;
    assign_to(&a.left, value)
}

/// `self.x.next`, `self.x.next.field`, `variable` or `variable.field`.
fn assign_to(target: &Expr, value: TokenStream) -> Result<TokenStream> {
    let mut fields = vec![];
    let mut at = target;
    loop {
        match at {
            Expr::Field(f) => {
                let Member::Named(name) = &f.member else {
                    return Err(Error::new_spanned(f, "tuple fields are not hardware"));
                };
                if name == "next" && path::is_self(&f.base) {
                    let place = path::parse(&f.base)?.place();
                    fields.reverse();
                    return Ok(quote!({
                        let __v = #value;
                        let __p = #place;
                        __c.assign(__p, &[#(#fields),*], __v);
                    }));
                }
                fields.push(name.to_string());
                at = &f.base;
            }
            Expr::Path(p) if p.path.get_ident().is_some_and(|i| i != "self") => {
                fields.reverse();
                return Ok(quote!({ let __v = #value; __c.set(&#p, &[#(#fields),*], __v); }));
            }
            _ => {
                return Err(Error::new_spanned(
                    target,
                    "assign to `self.signal.next` or to a `let mut` variable",
                ));
            }
        }
    }
}

fn for_loop(l: &ExprForLoop) -> Result<TokenStream> {
    let Expr::Range(r) = &*l.expr else {
        return Err(Error::new_spanned(
            &l.expr,
            "a hardware loop runs over a constant range: `for i in 0..N`",
        ));
    };
    let (Some(from), Some(to)) = (&r.start, &r.end) else {
        return Err(Error::new_spanned(r, "give both ends of the range"));
    };
    let (from, to, var, limits) = (expr::expr(from)?, expr::expr(to)?, &l.pat, &r.limits);
    let b = body(&l.body)?;
    Ok(quote! {
        {
            let __from = ::hematite_lang::trace::const_usize(&{ #from });
            let __to = ::hematite_lang::trace::const_usize(&{ #to });
            for #var in __from #limits __to { #b }
        }
    })
}

struct Clocking {
    clock: Expr,
    reset: Option<Expr>,
    targets: Vec<Expr>,
}

impl syn::parse::Parse for Clocking {
    fn parse(input: syn::parse::ParseStream) -> Result<Self> {
        let clock = input.parse()?;
        let reset = if input.peek(Token![,]) {
            input.parse::<Token![,]>()?;
            Some(input.parse()?)
        } else {
            None
        };
        input.parse::<Token![=>]>()?;
        let targets = input
            .parse_terminated(Expr::parse, Token![,])?
            .into_iter()
            .collect();
        Ok(Clocking {
            clock,
            reset,
            targets,
        })
    }
}

fn macro_stmt(m: &Macro) -> Result<TokenStream> {
    let name = m
        .path
        .segments
        .last()
        .map(|s| s.ident.to_string())
        .unwrap_or_default();
    let registers = match name.as_str() {
        "registers" => true,
        "clocked" => false,
        "assert" | "debug_assert" | "assert_eq" => return Ok(quote!(#m;)),
        _ => {
            return Err(Error::new_spanned(
                &m.path,
                "only registers!, clocked! and assert! are known here",
            ));
        }
    };
    let c: Clocking = m.parse_body()?;
    let mut out = vec![];
    for t in &c.targets {
        let (clock, reset) = (&c.clock, &c.reset);
        let mut statements: Vec<Stmt> = vec![syn::parse_quote!(#t.clock.next = #clock.val();)];
        match reset {
            Some(r) => statements.push(syn::parse_quote!(#t.reset.next = #r.val();)),
            None if registers => statements.push(syn::parse_quote!(#t.reset.next = false;)),
            None => {}
        }
        if registers {
            statements.push(syn::parse_quote!(#t.d.next = #t.q.val();));
        }
        for s in &statements {
            out.push(stmt(s)?);
        }
    }
    Ok(quote!(#(#out)*))
}
