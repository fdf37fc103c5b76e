//! The setters of a struct of settings.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Field, Fields, Type, Visibility};

/// Makes the setters of a struct, and its `new`, which returns the defaults.
pub(crate) fn expand(input: TokenStream) -> syn::Result<TokenStream> {
    let input: DeriveInput = syn::parse2(input)?;
    let name = &input.ident;
    let Data::Struct(data) = &input.data else {
        return Err(Error::new(name.span(), "only a struct has setters"));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new(name.span(), "only fields with names have setters"));
    };
    let has_own_new = has_own_new(&input)?;
    let new = (!has_own_new).then(|| {
        quote! {
            /// The defaults.
            #[must_use]
            pub fn new() -> Self {
                Self::default()
            }
        }
    });
    let fields = fields.named.iter();
    let setters = fields.filter(|field| matches!(field.vis, Visibility::Public(_))).map(setter);
    Ok(quote! {
        impl #name {
            #new
            #(#setters)*
        }
    })
}

fn has_own_new(input: &DeriveInput) -> syn::Result<bool> {
    let mut has_own_new = false;
    for attribute in input.attrs.iter().filter(|it| it.path().is_ident("setters")) {
        attribute.parse_nested_meta(|meta| {
            has_own_new = meta.path.is_ident("own_new");
            if has_own_new { Ok(()) } else { Err(meta.error("the only option is `own_new`")) }
        })?;
    }
    Ok(has_own_new)
}

fn setter(field: &Field) -> TokenStream {
    let (name, kind) = (&field.ident, &field.ty);
    let docs = field.attrs.iter().filter(|attribute| attribute.path().is_ident("doc"));
    let is_text = matches!(kind, Type::Path(path) if path.path.is_ident("String"));
    let (taken, value) = match is_text {
        true => (quote!(impl ::core::convert::Into<#kind>), quote!(#name.into())),
        false => (quote!(#kind), quote!(#name)),
    };
    quote! {
        #(#docs)*
        #[must_use]
        pub fn #name(mut self, #name: #taken) -> Self {
            self.#name = #value;
            self
        }
    }
}
