//! Signal paths: `self.a[i].b` as a Verilog name, with at most one run-time index.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, Expr, Member, Result};

use crate::expr;

/// A signal of `self`, possibly one of an array.
pub struct SignalPath {
    /// `"a_{}_b"`, a format string over the indices.
    format: String,
    /// The Rust place with its indices replaced by `__at[0]`, `__at[1]`, ...
    place: TokenStream,
    /// Traced index expressions, outermost first.
    indices: Vec<TokenStream>,
    /// The length of each indexed array.
    lengths: Vec<TokenStream>,
}

pub fn parse(e: &Expr) -> Result<SignalPath> {
    let mut p = SignalPath {
        format: String::new(),
        place: quote!(),
        indices: vec![],
        lengths: vec![],
    };
    walk(e, &mut p)?;
    if p.format.is_empty() {
        return Err(Error::new_spanned(e, "a field of `self` is expected here"));
    }
    Ok(p)
}

/// True when the expression starts at `self`.
pub fn is_self(e: &Expr) -> bool {
    match e {
        Expr::Path(p) => p.path.is_ident("self"),
        Expr::Field(f) => is_self(&f.base),
        Expr::Index(i) => is_self(&i.expr),
        _ => false,
    }
}

fn walk(e: &Expr, p: &mut SignalPath) -> Result<()> {
    match e {
        Expr::Path(s) if s.path.is_ident("self") => {
            p.place = quote!(self);
            Ok(())
        }
        Expr::Field(f) => {
            walk(&f.base, p)?;
            let Member::Named(name) = &f.member else {
                return Err(Error::new_spanned(
                    f,
                    "tuple fields have no Verilog name: use a named field",
                ));
            };
            if !p.format.is_empty() {
                p.format.push('_');
            }
            p.format.push_str(&name.to_string());
            let base = &p.place;
            p.place = quote!(#base.#name);
            Ok(())
        }
        Expr::Index(i) => {
            walk(&i.expr, p)?;
            let n = p.indices.len();
            p.format.push_str("_{}");
            p.indices.push(expr::expr(&i.index)?);
            let base = &p.place;
            p.lengths.push(quote!(#base.len()));
            p.place = quote!(#base[__at[#n]]);
            Ok(())
        }
        _ => Err(Error::new_spanned(
            e,
            "a signal is written `self.name`, `self.sub.port` or `self.array[i]`",
        )),
    }
}

impl SignalPath {
    /// Code that evaluates to a `trace::Place` naming every candidate signal.
    pub fn place(&self) -> TokenStream {
        let SignalPath {
            format,
            place,
            indices,
            lengths,
        } = self;
        let n = indices.len();
        if n == 0 {
            return quote!(::hematite_lang::trace::Place::one(#format, &#place));
        }
        // Lengths of inner arrays are taken at index 0 of the outer ones.
        quote!({
            let __indices: [::hematite_lang::trace::Ex; #n] = [#(#indices),*];
            let __at = [0usize; #n];
            let __lengths: [usize; #n] = [#(#lengths),*];
            ::hematite_lang::trace::Place::new(#format, &__indices, &__lengths, &|__at| {
                ::hematite_lang::trace::shape(&#place)
            })
        })
    }

    /// Code for `(name, &dyn Block)` of a bundle with constant indices.
    pub fn bundle(&self) -> TokenStream {
        let SignalPath {
            format,
            place,
            indices,
            ..
        } = self;
        let n = indices.len();
        quote!({
            #[allow(unused_variables)]
            let __at: [usize; #n] = [#(::hematite_lang::trace::const_usize(&#indices)),*];
            ::hematite_lang::trace::ports(&::hematite_lang::trace::indexed(#format, &__at), &#place)
        })
    }
}
