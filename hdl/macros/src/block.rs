//! Blocks and port bundles: the structural half, an implementation of rust-hdl-core's `Block`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, Expr, Field, Ident, ItemStruct, Result, Type};

/// A named field that is part of the hardware (a leading underscore marks one that is not).
struct Part {
    ident: Ident,
    ty: Type,
    /// `#[reset(expr)]`: the value a register starts with and resets to.
    reset: Option<Expr>,
}

fn parts(item: &mut ItemStruct) -> Result<Vec<Part>> {
    let mut parts = vec![];
    for field in &mut item.fields {
        let reset = take_reset(field)?;
        let Some(ident) = field.ident.clone() else {
            return Err(Error::new_spanned(
                field,
                "#[hw] needs named fields: each name becomes a Verilog name",
            ));
        };
        if !ident.to_string().starts_with('_') {
            parts.push(Part {
                ident,
                ty: field.ty.clone(),
                reset,
            });
        }
    }
    Ok(parts)
}

fn take_reset(field: &mut Field) -> Result<Option<Expr>> {
    let Some(at) = field.attrs.iter().position(|a| a.path().is_ident("reset")) else {
        return Ok(None);
    };
    field.attrs.remove(at).parse_args().map(Some)
}

/// Array fields of any length, and registers with a reset value, need their own initialiser.
fn default_of(part: &Part) -> TokenStream {
    let base = match &part.reset {
        Some(value) => quote!(::hematite_lang::Reg::new((#value).into())),
        None => quote!(::core::default::Default::default()),
    };
    fn nest(ty: &Type, base: TokenStream) -> TokenStream {
        match ty {
            Type::Array(a) => {
                let inner = nest(&a.elem, base);
                quote!(::hematite_lang::array_init(|_| #inner))
            }
            _ => base,
        }
    }
    let init = nest(&part.ty, base);
    let ident = &part.ident;
    quote!(#ident: #init)
}

fn default_impl(item: &ItemStruct, parts: &[Part]) -> TokenStream {
    let (name, (ig, tg, wc)) = (&item.ident, item.generics.split_for_impl());
    let inits = parts.iter().map(default_of);
    let hidden = item
        .fields
        .iter()
        .filter_map(|f| f.ident.clone())
        .filter(|i| i.to_string().starts_with('_'));
    quote! {
        impl #ig ::core::default::Default for #name #tg #wc {
            fn default() -> Self {
                Self { #(#inits,)* #(#hidden: ::core::default::Default::default(),)* }
            }
        }
    }
}

fn block_impl(item: &ItemStruct, parts: &[Part], enter: TokenStream, leave: TokenStream) -> TokenStream {
    let (name, (ig, tg, wc)) = (&item.ident, item.generics.split_for_impl());
    let idents: Vec<_> = parts.iter().map(|p| &p.ident).collect();
    let names: Vec<_> = idents.iter().map(|i| i.to_string()).collect();
    quote! {
        impl #ig ::hematite_lang::core::block::Block for #name #tg #wc {
            fn connect_all(&mut self) {
                ::hematite_lang::core::logic::Logic::connect(self);
                #(::hematite_lang::core::block::Block::connect_all(&mut self.#idents);)*
            }
            fn update_all(&mut self) {
                ::hematite_lang::core::logic::Logic::update(self);
                #(::hematite_lang::core::block::Block::update_all(&mut self.#idents);)*
            }
            fn has_changed(&self) -> bool {
                false #(|| ::hematite_lang::core::block::Block::has_changed(&self.#idents))*
            }
            fn accept(&self, name: &str, probe: &mut dyn ::hematite_lang::core::probe::Probe) {
                probe.#enter(name, self);
                #(::hematite_lang::core::block::Block::accept(&self.#idents, #names, probe);)*
                probe.#leave(name, self);
            }
        }
    }
}

fn doc_of(item: &ItemStruct) -> String {
    let mut doc = String::new();
    for attr in item.attrs.iter().filter(|a| a.path().is_ident("doc")) {
        if let syn::Meta::NameValue(nv) = &attr.meta
            && let Expr::Lit(syn::ExprLit {
                lit: syn::Lit::Str(s),
                ..
            }) = &nv.value
        {
            doc.push_str(s.value().strip_prefix(' ').unwrap_or(&s.value()));
            doc.push('\n');
        }
    }
    doc
}

pub fn expand(mut item: ItemStruct) -> Result<TokenStream> {
    let parts = parts(&mut item)?;
    let (name, (ig, tg, wc)) = (&item.ident, item.generics.split_for_impl());
    let doc = doc_of(&item);
    let default = default_impl(&item, &parts);
    let block = block_impl(&item, &parts, quote!(visit_start_scope), quote!(visit_end_scope));
    Ok(quote! {
        #item
        #default
        #block
        impl #ig ::hematite_lang::Documented for #name #tg #wc {
            const DOC: &'static str = #doc;
        }
    })
}

/// Code for each signal of a field of two bundles, through arrays of any depth.
fn each_pair(
    field: &Ident,
    ty: &Type,
    other: &TokenStream,
    code: impl Fn(TokenStream, TokenStream) -> TokenStream,
) -> TokenStream {
    let mut depth = 0;
    let mut inner = ty;
    while let Type::Array(a) = inner {
        inner = &a.elem;
        depth += 1;
    }
    if depth == 0 {
        return code(quote!((&mut self.#field)), quote!((&mut #other.#field)));
    }
    let flatten = vec![quote!(.flatten()); depth - 1];
    let body = code(quote!(__a), quote!(__b));
    quote! {
        for (__a, __b) in self.#field.iter_mut()#(#flatten)*.zip(#other.#field.iter_mut()#(#flatten)*) {
            #body
        }
    }
}

/// `#[hw(interface)]`: also `join` (to the mirrored bundle named by `#[join(Other)]`) and `link`
/// (an outer bundle to the same bundle of a sub-block).
pub fn expand_interface(mut item: ItemStruct) -> Result<TokenStream> {
    let mirror: Option<Type> = match item.attrs.iter().position(|a| a.path().is_ident("join")) {
        Some(at) => Some(item.attrs.remove(at).parse_args()?),
        None => None,
    };
    let parts = parts(&mut item)?;
    let (name, (ig, tg, wc)) = (&item.ident, item.generics.split_for_impl());
    let default = default_impl(&item, &parts);
    let block = block_impl(
        &item,
        &parts,
        quote!(visit_start_namespace),
        quote!(visit_end_namespace),
    );
    let links = parts.iter().map(|p| {
        let link = quote!(::hematite_lang::core::logic::LogicLink::link);
        each_pair(&p.ident, &p.ty, &quote!(inner), |a, b| quote!(#link(#a, #b);))
    });
    let join = mirror.map(|mirror| {
        let joins = parts
            .iter()
            .map(|p| each_pair(&p.ident, &p.ty, &quote!(other), |a, b| quote!(#a.join(#b);)));
        quote! {
            /// Connects this bundle of one sub-block to the mirrored bundle of another.
            pub fn join(&mut self, other: &mut #mirror) {
                #(#joins)*
            }
        }
    });
    Ok(quote! {
        #item
        #default
        #block
        impl #ig ::hematite_lang::core::logic::Logic for #name #tg #wc {
            fn update(&mut self) {}
        }
        impl #ig #name #tg #wc {
            #join
            /// Passes this outer bundle through to the same bundle of a sub-block.
            pub fn link(&mut self, inner: &mut Self) {
                #(#links)*
            }
        }
    })
}
