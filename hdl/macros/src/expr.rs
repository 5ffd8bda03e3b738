//! Expressions: each becomes Rust code that evaluates to a `trace::Ex`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{
    BinOp, Error, Expr, ExprCall, ExprMatch, ExprMethodCall, GenericArgument, Lit, Member, Pat,
    PathArguments, Result, Token, UnOp, punctuated::Punctuated,
};

use crate::{path, stmt};

/// A value that may be a signal value, a constant of generation time or a traced expression.
fn lift(e: &impl quote::ToTokens) -> TokenStream {
    quote!((&&::hematite_lang::trace::Lift(&#e)).lift())
}

pub fn expr(e: &Expr) -> Result<TokenStream> {
    Ok(match e {
        Expr::Lit(l) => match &l.lit {
            Lit::Int(i) => {
                let v: u128 = i.base10_parse()?;
                quote!(::hematite_lang::trace::Ex::number(#v))
            }
            Lit::Bool(b) => quote!(::hematite_lang::trace::Ex::bit(#b)),
            _ => {
                return Err(Error::new_spanned(
                    e,
                    "only integer and bool literals are hardware values",
                ));
            }
        },
        Expr::Paren(p) => expr(&p.expr)?,
        Expr::Group(p) => expr(&p.expr)?,
        Expr::Reference(r) => expr(&r.expr)?,
        Expr::Path(p) => lift(p),
        Expr::Const(c) => lift(c),
        Expr::Cast(c) => expr(&c.expr)?,
        Expr::Unary(u) => {
            let a = expr(&u.expr)?;
            match u.op {
                UnOp::Not(_) => quote!(::hematite_lang::trace::not({ #a })),
                UnOp::Deref(_) => a,
                _ => return Err(Error::new_spanned(u, "write `0 - x` with the width you want")),
            }
        }
        Expr::Binary(b) => binary(binary_op(&b.op)?, &b.left, &b.right)?,
        Expr::If(i) => {
            let Some((_, otherwise)) = &i.else_branch else {
                return Err(Error::new_spanned(i, "an `if` that is a value needs an `else`"));
            };
            let (cond, then) = (expr(&i.cond)?, stmt::value_block(&i.then_branch)?);
            let otherwise = expr(otherwise)?;
            quote!({ let __s = #cond; __c.branch(__s, &mut |__c| Some(#then), &mut |__c| Some(#otherwise)).expect("a value") })
        }
        Expr::Block(b) => stmt::value_block(&b.block)?,
        Expr::Match(m) => {
            let code = match_arms(m, |e| {
                let v = expr(e)?;
                Ok(quote!(Some(#v)))
            })?;
            quote!({ #code.expect("a value") })
        }
        Expr::Field(f) if !path::is_self(e) => {
            let Member::Named(name) = &f.member else {
                return Err(Error::new_spanned(
                    f,
                    "tuple fields are not hardware: use a #[hw(value)] struct",
                ));
            };
            let (base, name) = (expr(&f.base)?, name.to_string());
            quote!({ let __b = #base; __c.field(__b, #name) })
        }
        Expr::Field(_) => return Err(Error::new_spanned(e, "read a signal with `.val()`")),
        Expr::Struct(s) => {
            let ty = &s.path;
            let mut names = vec![];
            let mut values = vec![];
            for f in &s.fields {
                let Member::Named(n) = &f.member else {
                    return Err(Error::new_spanned(f, "named fields only"));
                };
                names.push(n.to_string());
                values.push(expr(&f.expr)?);
            }
            if let Some(rest) = &s.rest {
                return Err(Error::new_spanned(rest, "give every field"));
            }
            quote!(::hematite_lang::trace::pack::<#ty>(vec![#((#names, { #values })),*]))
        }
        Expr::MethodCall(m) => method(m)?,
        Expr::Call(c) => call(c)?,
        Expr::Macro(m) if m.mac.path.is_ident("matches") => {
            let (value, pat) = m.mac.parse_body_with(|input: syn::parse::ParseStream| {
                let v: Expr = input.parse()?;
                input.parse::<Token![,]>()?;
                let p = Pat::parse_multi_with_leading_vert(input)?;
                input.parse::<Option<Token![,]>>()?;
                Ok((v, p))
            })?;
            let value = expr(&value)?;
            let test = pattern(&pat, 0)?;
            quote!({
                let __m = vec![#value];
                #[allow(clippy::redundant_closure_call)]
                ::hematite_lang::trace::any(&__m, #test)
            })
        }
        _ => {
            return Err(Error::new_spanned(
                e,
                "this expression has no hardware meaning (see hematite_lang for the language)",
            ));
        }
    })
}

fn binary_op(op: &BinOp) -> Result<&'static str> {
    Ok(match op {
        BinOp::Add(_) => "+",
        BinOp::Sub(_) => "-",
        BinOp::Mul(_) => "*",
        BinOp::Div(_) => "/",
        BinOp::Rem(_) => "%",
        BinOp::BitAnd(_) | BinOp::And(_) => "&",
        BinOp::BitOr(_) | BinOp::Or(_) => "|",
        BinOp::BitXor(_) => "^",
        BinOp::Shl(_) => "<<",
        BinOp::Shr(_) => ">>",
        BinOp::Eq(_) => "==",
        BinOp::Ne(_) => "!=",
        BinOp::Lt(_) => "<",
        BinOp::Le(_) => "<=",
        BinOp::Gt(_) => ">",
        BinOp::Ge(_) => ">=",
        _ => {
            return Err(Error::new_spanned(
                op,
                "this operator has no hardware meaning here",
            ));
        }
    })
}

pub fn binary(op: &str, left: &Expr, right: &Expr) -> Result<TokenStream> {
    let (l, r) = (expr(left)?, expr(right)?);
    Ok(quote!(::hematite_lang::trace::binary(#op, #l, #r)))
}

fn turbofish(m: &ExprMethodCall) -> Result<&GenericArgument> {
    m.turbofish
        .as_ref()
        .and_then(|t| t.args.first())
        .ok_or_else(|| Error::new_spanned(m, format!("write the width: `.{}::<8>(..)`", m.method)))
}

fn arg(m: &ExprMethodCall, n: usize) -> Result<TokenStream> {
    expr(
        m.args
            .get(n)
            .ok_or_else(|| Error::new_spanned(m, "an argument is missing"))?,
    )
}

fn method(m: &ExprMethodCall) -> Result<TokenStream> {
    let name = m.method.to_string();
    if name == "val" {
        let place = path::parse(&m.receiver)?.place();
        return Ok(quote!({ let __p = #place; __c.read(__p) }));
    }
    if name == "len" && path::is_self(&m.receiver) {
        let r = &m.receiver;
        return Ok(quote!(::hematite_lang::trace::Ex::number(#r.len() as u128)));
    }
    let r = expr(&m.receiver)?;
    Ok(match name.as_str() {
        "into" | "index" | "to_bits" | "clone" => r,
        "any" | "all" | "xor" => quote!(::hematite_lang::trace::reduce(#name, #r)),
        "get_bit" => {
            let i = arg(m, 0)?;
            quote!({ let __r = #r; let __i = #i; __c.select(__r, __i, 1) })
        }
        "get_bits" => {
            let (w, i) = (turbofish(m)?, arg(m, 0)?);
            quote!({ let __r = #r; let __i = #i; __c.select(__r, __i, #w) })
        }
        "replace_bit" => {
            let (i, v) = (arg(m, 0)?, arg(m, 1)?);
            quote!({ let __r = #r; let __i = #i; let __v = #v; __c.replace_bit(__r, __i, __v) })
        }
        "resize" => {
            let w = turbofish(m)?;
            quote!({ let __r = #r; __c.resize(__r, #w) })
        }
        "signed_lt" => {
            let o = arg(m, 0)?;
            quote!(::hematite_lang::trace::signed_lt(#r, #o))
        }
        _ => {
            return Err(Error::new_spanned(
                &m.method,
                "known methods: val, get_bit, get_bits, replace_bit, resize, any, all, xor, signed_lt, into, index; \
                 make anything else a #[hw] fn",
            ));
        }
    })
}

fn call(f: &ExprCall) -> Result<TokenStream> {
    let Expr::Path(p) = &*f.func else {
        return Err(Error::new_spanned(&f.func, "call a #[hw] fn by its name"));
    };
    let last = p.path.segments.last().expect("a path has a segment");
    let width = match &last.arguments {
        PathArguments::AngleBracketed(g) => g.args.first(),
        _ => None,
    };
    let args: Vec<TokenStream> = if last.ident == "cat" {
        match f.args.first() {
            Some(Expr::Tuple(t)) => t.elems.iter().map(expr).collect::<Result<_>>()?,
            Some(Expr::Array(a)) => a.elems.iter().map(expr).collect::<Result<_>>()?,
            _ => return Err(Error::new_spanned(f, "`cat((high, .., low))`")),
        }
    } else {
        f.args.iter().map(expr).collect::<Result<_>>()?
    };
    Ok(match (last.ident.to_string().as_str(), width) {
        ("cat", None) => quote!(::hematite_lang::trace::cat(vec![#({ #args }),*])),
        ("cat", Some(w)) => quote!(::hematite_lang::trace::cat(vec![#({ #args }),*]).sized(#w)),
        ("bits" | "bit_cast", Some(w)) => {
            let a = &args[0];
            quote!({ let __r = #a; __c.resize(__r, #w) })
        }
        ("bits" | "bit_cast", None) => {
            return Err(Error::new_spanned(f, "write the width: `bits::<8>(x)`"));
        }
        ("clog2", _) => {
            let a = &args[0];
            quote!(::hematite_lang::trace::clog2({ #a }))
        }
        _ => {
            let mut callee = p.clone();
            let segment = callee.path.segments.last_mut().expect("a path has a segment");
            let generics = std::mem::replace(&mut segment.arguments, PathArguments::None);
            let generics = match generics {
                PathArguments::AngleBracketed(mut g) => {
                    g.colon2_token = Some(Default::default());
                    quote!(#g)
                }
                _ => quote!(),
            };
            let names: Vec<_> = (0..args.len()).map(|k| format_ident!("__a{k}")).collect();
            quote!({ #(let #names = #args;)* #callee::trace #generics (__c, #(#names),*) })
        }
    })
}

/// One pattern against selector number `n`: code for a closure `|&[Ex]| -> Option<Ex>`, where None
/// means "always".
fn pattern(p: &Pat, n: usize) -> Result<TokenStream> {
    let equal = |value: TokenStream| quote!(|__m: &[::hematite_lang::trace::Ex]| Some(::hematite_lang::trace::binary("==", __m[#n].clone(), #value)));
    Ok(match p {
        Pat::Wild(_) => quote!(|_: &[::hematite_lang::trace::Ex]| None),
        Pat::Lit(l) => equal(expr(&Expr::Lit(l.clone()))?),
        Pat::Path(p) => equal(lift(p)),
        // As in Rust, a name in capitals is a constant and any other name binds.
        Pat::Ident(i) if i.ident.to_string().starts_with(|c: char| c.is_uppercase()) => equal(lift(&i.ident)),
        Pat::Ident(i) => {
            return Err(Error::new_spanned(
                i,
                "bind with `let` before the match; use `_` here",
            ));
        }
        Pat::Paren(p) => pattern(&p.pat, n)?,
        Pat::Or(o) => {
            let cases: Vec<_> = o.cases.iter().map(|c| pattern(c, n)).collect::<Result<_>>()?;
            quote!(
                |__m: &[::hematite_lang::trace::Ex]| ::hematite_lang::trace::either(vec![#((#cases)(__m)),*])
            )
        }
        Pat::Range(r) => {
            let (Some(from), Some(to), syn::RangeLimits::Closed(_)) = (&r.start, &r.end, &r.limits) else {
                return Err(Error::new_spanned(r, "a range pattern is `low..=high`"));
            };
            let (from, to) = (expr(from)?, expr(to)?);
            quote!(
                |__m: &[::hematite_lang::trace::Ex]| ::hematite_lang::trace::both(vec![
                    Some(::hematite_lang::trace::binary(">=", __m[#n].clone(), #from)),
                    Some(::hematite_lang::trace::binary("<=", __m[#n].clone(), #to)),
                ])
            )
        }
        Pat::Tuple(t) => {
            let parts: Vec<_> = t
                .elems
                .iter()
                .enumerate()
                .map(|(k, p)| pattern(p, k))
                .collect::<Result<_>>()?;
            quote!(|__m: &[::hematite_lang::trace::Ex]| ::hematite_lang::trace::both(
                vec![#((#parts)(__m)),*]
            ))
        }
        p => {
            return Err(Error::new_spanned(
                p,
                "patterns are literals, constants, variants, ranges, tuples, `|` and `_`",
            ));
        }
    })
}

/// A `match`; `arm` turns an arm's body into code that ends in an `Option<Ex>`.
pub fn match_arms(m: &ExprMatch, arm: impl Fn(&Expr) -> Result<TokenStream>) -> Result<TokenStream> {
    let selectors: Punctuated<Expr, Token![,]> = match &*m.expr {
        Expr::Tuple(t) => t.elems.clone(),
        e => Punctuated::from_iter([e.clone()]),
    };
    let selectors: Vec<_> = selectors.iter().map(expr).collect::<Result<_>>()?;
    let mut arms = vec![];
    for a in &m.arms {
        if let Some((_, guard)) = &a.guard {
            return Err(Error::new_spanned(
                guard,
                "put the guard's test inside the arm as an if/else",
            ));
        }
        let (test, body) = (pattern(&a.pat, 0)?, arm(&a.body)?);
        arms.push(quote!(((#test)(&__m), Box::new(|__c: &mut ::hematite_lang::trace::Tracer| { #body }))));
    }
    Ok(quote!({
        let __m: Vec<::hematite_lang::trace::Ex> = vec![#({ #selectors }),*];
        #[allow(clippy::type_complexity, clippy::redundant_closure_call)]
        let __arms: Vec<(
            Option<::hematite_lang::trace::Ex>,
            Box<dyn FnOnce(&mut ::hematite_lang::trace::Tracer) -> Option<::hematite_lang::trace::Ex> + '_>,
        )> = vec![#(#arms),*];
        __c.choose(__m, __arms)
    }))
}
