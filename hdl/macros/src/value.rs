//! Values carried by signals: enums (numbered from 0) and packed structs (first field lowest).

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, Fields, ItemEnum, ItemStruct, Result};

pub fn expand_enum(item: ItemEnum) -> Result<TokenStream> {
    for v in &item.variants {
        if !matches!(v.fields, Fields::Unit) || v.discriminant.is_some() {
            return Err(Error::new_spanned(
                v,
                "a #[hw] enum has plain variants, numbered from 0 in order",
            ));
        }
    }
    let name = &item.ident;
    let Some(first) = item.variants.first().map(|v| &v.ident) else {
        return Err(Error::new_spanned(
            &item,
            "a #[hw] enum needs at least one variant",
        ));
    };
    let text = name.to_string();
    let variants: Vec<_> = item.variants.iter().map(|v| &v.ident).collect();
    let labels: Vec<_> = variants.iter().map(|v| v.to_string()).collect();
    let numbers: Vec<_> = (0..variants.len() as u64).collect();
    let count = variants.len();
    // A single variant still needs one bit of signal.
    let bits = quote!(if #count < 2 { 1 } else { ::hematite_lang::core::bits::clog2(#count) });
    Ok(quote! {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #item
        impl ::core::default::Default for #name {
            fn default() -> Self { #name::#first }
        }
        impl ::core::convert::From<#name> for ::hematite_lang::core::bits::Bits<{ #bits }> {
            fn from(v: #name) -> Self {
                match v { #(#name::#variants => (#numbers as ::hematite_lang::core::bits::LiteralType).into(),)* }
            }
        }
        impl ::hematite_lang::core::synth::Synth for #name {
            const BITS: usize = #bits;
            fn descriptor() -> ::hematite_lang::core::type_descriptor::TypeDescriptor {
                ::hematite_lang::core::type_descriptor::TypeDescriptor {
                    name: #text.to_string(),
                    kind: ::hematite_lang::core::type_descriptor::TypeKind::Enum(vec![#(#labels.to_string()),*]),
                }
            }
            fn vcd(self) -> ::hematite_lang::core::synth::VCDValue {
                match self { #(#name::#variants => ::hematite_lang::core::synth::VCDValue::String(#labels.into()),)* }
            }
            fn verilog(self) -> ::hematite_lang::core::ast::VerilogLiteral {
                ::hematite_lang::core::bits::Bits::<{ #bits }>::from(self).into()
            }
        }
    })
}

pub fn expand_struct(item: ItemStruct) -> Result<TokenStream> {
    if !item.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &item.generics,
            "a #[hw(value)] struct cannot be generic: name the widths",
        ));
    }
    let name = &item.ident;
    let text = name.to_string();
    let mut fields = vec![];
    let mut types = vec![];
    for f in &item.fields {
        let Some(ident) = &f.ident else {
            return Err(Error::new_spanned(f, "#[hw(value)] needs named fields"));
        };
        fields.push(ident);
        types.push(&f.ty);
    }
    let labels: Vec<_> = fields.iter().map(|f| f.to_string()).collect();
    let offsets: Vec<_> = (0..fields.len())
        .map(|n| {
            let before = &types[..n];
            quote!((0usize #(+ <#before as ::hematite_lang::core::synth::Synth>::BITS)*))
        })
        .collect();
    Ok(quote! {
        #[derive(Clone, Copy, Debug, Default, PartialEq)]
        #item
        impl ::core::convert::From<#name> for ::hematite_lang::core::bits::Bits<{ <#name as ::hematite_lang::core::synth::Synth>::BITS }> {
            fn from(v: #name) -> Self {
                const WHOLE: usize = <#name as ::hematite_lang::core::synth::Synth>::BITS;
                let mut all = ::hematite_lang::core::bits::Bits::<WHOLE>::default();
                #({
                    const FIELD: usize = <#types as ::hematite_lang::core::synth::Synth>::BITS;
                    let part: ::hematite_lang::core::bits::Bits<FIELD> = v.#fields.into();
                    all = all | (::hematite_lang::core::bits::bit_cast::<WHOLE, FIELD>(part)
                        << (#offsets as ::hematite_lang::core::bits::LiteralType));
                })*
                all
            }
        }
        impl ::hematite_lang::core::synth::Synth for #name {
            const BITS: usize = 0usize #(+ <#types as ::hematite_lang::core::synth::Synth>::BITS)*;
            fn descriptor() -> ::hematite_lang::core::type_descriptor::TypeDescriptor {
                ::hematite_lang::core::type_descriptor::TypeDescriptor {
                    name: #text.to_string(),
                    kind: ::hematite_lang::core::type_descriptor::TypeKind::Composite(vec![
                        #(Box::new(::hematite_lang::core::type_descriptor::TypeField {
                            fieldname: #labels.to_string(),
                            kind: <#types as ::hematite_lang::core::synth::Synth>::descriptor(),
                        }),)*
                    ]),
                }
            }
            fn vcd(self) -> ::hematite_lang::core::synth::VCDValue {
                ::hematite_lang::core::synth::VCDValue::Composite(vec![
                    #(Box::new(::hematite_lang::core::synth::Synth::vcd(self.#fields)),)*
                ])
            }
            fn verilog(self) -> ::hematite_lang::core::ast::VerilogLiteral {
                ::hematite_lang::core::bits::Bits::<{ <#name as ::hematite_lang::core::synth::Synth>::BITS }>::from(self).into()
            }
        }
    })
}
