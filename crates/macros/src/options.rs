//! What stands in the parentheses of an attribute.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote_spanned};
use syn::ext::IdentExt as _;
use syn::parse::{Parse, ParseStream};
use syn::{Expr, Ident, LitStr, Path, Token, parenthesized, token};

/// The options of an attribute.
#[derive(Default)]
pub(crate) struct Options {
    /// The URI of a resource, or its template.
    pub(crate) uri: Option<LitStr>,
    pub(crate) name: Option<Expr>,
    /// Where the crate `stentor` is, if it is not `::stentor`.
    pub(crate) krate: Option<Path>,
    /// Setters of the item, in their order.
    pub(crate) setters: Vec<Setter>,
}

/// A setter of the item with its values: `name`, `name = value` or `name(value, ...)`.
pub(crate) struct Setter {
    name: Ident,
    values: TokenStream,
}

impl Options {
    /// Whether the item gets its description here, and not from the doc comment.
    pub(crate) fn describe(&self) -> bool {
        self.setters.iter().any(|setter| setter.name == "description")
    }
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut options = Self::default();
        if input.peek(LitStr) {
            options.uri = Some(input.parse()?);
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        while !input.is_empty() {
            options.read(input)?;
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(options)
    }
}

impl Options {
    fn read(&mut self, input: ParseStream<'_>) -> syn::Result<()> {
        let name = input.call(Ident::parse_any)?;
        let is_given = match name.to_string().as_str() {
            "name" => {
                input.parse::<Token![=]>()?;
                self.name.replace(input.parse()?).is_some()
            }
            "crate" => {
                input.parse::<Token![=]>()?;
                self.krate.replace(input.call(Path::parse_mod_style)?).is_some()
            }
            _ => {
                let is_given = self.setters.iter().any(|setter| setter.name == name);
                let values = if input.peek(token::Paren) {
                    let values;
                    parenthesized!(values in input);
                    values.parse()?
                } else if input.peek(Token![=]) {
                    input.parse::<Token![=]>()?;
                    input.parse::<Expr>()?.into_token_stream()
                } else {
                    TokenStream::new()
                };
                self.setters.push(Setter { name: name.clone(), values });
                // A setter may add to what is there, as the one of an argument.
                is_given && name != "argument"
            }
        };
        match is_given {
            true => Err(syn::Error::new(name.span(), format!("`{name}` is given twice"))),
            false => Ok(()),
        }
    }
}

impl ToTokens for Setter {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        let Self { name, values } = self;
        tokens.extend(quote_spanned!(name.span()=> .#name(#values)));
    }
}
