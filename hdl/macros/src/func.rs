//! `impl Logic` blocks and helper functions.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Error, FnArg, ImplItem, ItemFn, ItemImpl, Pat, Result, ReturnType};

use crate::stmt;

pub fn expand_impl(mut item: ItemImpl) -> Result<TokenStream> {
    let is_logic = item
        .trait_
        .as_ref()
        .is_some_and(|(_, path, _)| path.segments.last().is_some_and(|s| s.ident == "Logic"));
    if !is_logic {
        return Err(Error::new_spanned(
            &item.self_ty,
            "#[hw] on an impl expects `impl Logic for ...`",
        ));
    }
    let [ImplItem::Fn(update)] = &item.items[..] else {
        return Err(Error::new_spanned(
            &item.self_ty,
            "#[hw] impl Logic has exactly one function, `update`",
        ));
    };
    if update.sig.ident != "update" {
        return Err(Error::new_spanned(
            &update.sig,
            "the function here is `fn update(&mut self)`",
        ));
    }
    let body = match stmt::body(&update.block) {
        Ok(body) => body,
        Err(e) => return Ok(refused(&e, &item)),
    };
    item.items.push(ImplItem::Verbatim(quote! {
        fn hdl(&self) -> ::hematite_lang::core::ast::Verilog {
            #[allow(unused_imports)]
            use ::hematite_lang::trace::{ViaConst as _, ViaSynth as _};
            let __c = &mut ::hematite_lang::trace::Tracer::new();
            #body
            __c.finish::<Self>()
        }
    }));
    Ok(quote! {
        #[allow(unused_mut, unused_variables, unused_assignments, clippy::all)]
        #item
    })
}

/// The errors alone: with an empty behaviour beside them the compiler does not go on to say, many times over,
/// that the block has none.
fn refused(errors: &Error, item: &ItemImpl) -> TokenStream {
    let errors = errors.to_compile_error();
    let (generics, _, bounds) = item.generics.split_for_impl();
    let name = &item.self_ty;
    quote! {
        #errors
        impl #generics ::hematite_lang::core::logic::Logic for #name #bounds {
            fn update(&mut self) {}
        }
    }
}

/// A helper keeps its Rust meaning and gains a tracing twin in the type namespace, so that one
/// `use` imports both.
pub fn expand_fn(f: ItemFn) -> Result<TokenStream> {
    if let Some(r) = f.sig.receiver() {
        return Err(Error::new_spanned(
            r,
            "a #[hw] helper is a free function: pass the values it reads",
        ));
    }
    if matches!(f.sig.output, ReturnType::Default) {
        return Err(Error::new_spanned(
            &f.sig,
            "a #[hw] helper returns a value; signals are driven only in `update`",
        ));
    }
    let (vis, name, generics) = (&f.vis, &f.sig.ident, &f.sig.generics);
    let (mut params, mut prelude) = (vec![], vec![]);
    for arg in &f.sig.inputs {
        let FnArg::Typed(arg) = arg else {
            unreachable!("receivers were refused above")
        };
        let Pat::Ident(p) = &*arg.pat else {
            return Err(Error::new_spanned(
                &arg.pat,
                "an argument of a #[hw] helper is a plain name",
            ));
        };
        let id = &p.ident;
        params.push(quote!(#id: ::hematite_lang::trace::Ex));
        let ty = &arg.ty;
        if matches!(ty.to_token_stream().to_string().as_str(), "usize" | "u64" | "u32") {
            prelude.push(quote!(let #id = ::hematite_lang::trace::const_usize(&#id) as #ty;));
        } else {
            prelude.push(quote!(let #id = #id.sized(<#ty as ::hematite_lang::core::synth::Synth>::BITS);));
            if p.mutability.is_some() {
                let text = id.to_string();
                prelude.push(quote!(let #id = __c.variable(#text, #id);));
            }
        }
    }
    let body = stmt::value_block(&f.block)?;
    let ret = match &f.sig.output {
        ReturnType::Type(_, ty) => quote!(.sized(<#ty as ::hematite_lang::core::synth::Synth>::BITS)),
        ReturnType::Default => quote!(),
    };
    let doc = format!("The tracing twin of [`fn@{name}`].");
    Ok(quote! {
        #[allow(clippy::all)]
        #f
        #[allow(non_camel_case_types)]
        #[doc = #doc]
        #vis enum #name {}
        impl #name {
            #[doc(hidden)]
            #[allow(unused_imports, unused_mut, unused_variables, clippy::all)]
            pub fn trace #generics (__c: &mut ::hematite_lang::trace::Tracer, #(#params),*) -> ::hematite_lang::trace::Ex {
                use ::hematite_lang::trace::{ViaConst as _, ViaSynth as _};
                #(#prelude)*
                let __value = #body;
                __value #ret
            }
        }
    })
}
