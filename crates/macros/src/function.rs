//! The author's function, as it is written.

use proc_macro2::TokenStream;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned as _;
use syn::{Attribute, Expr, ExprLit, FnArg, Lit, Meta, Signature, Visibility};

use crate::parameter::Parameter;

/// A function. Its body is not parsed, so that an editor has something to work with while the body
/// is being written.
pub(crate) struct Function {
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) visibility: Visibility,
    pub(crate) signature: Signature,
    pub(crate) body: TokenStream,
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        Ok(Self {
            attributes: input.call(Attribute::parse_outer)?,
            visibility: input.parse()?,
            signature: input.parse()?,
            body: input.parse()?,
        })
    }
}

impl Function {
    /// Takes the attributes that belong to the function that makes the item: what it is for, and
    /// whether it exists.
    pub(crate) fn take_outer_attributes(&mut self) -> Vec<Attribute> {
        let is_outer = |attribute: &mut Attribute| {
            ["doc", "cfg", "deprecated"].iter().any(|it| attribute.path().is_ident(it))
        };
        self.attributes.extract_if(.., is_outer).collect()
    }

    /// Takes the attributes of the parameters apart, and says what each parameter is for.
    pub(crate) fn take_parameters(&mut self) -> syn::Result<Vec<Parameter>> {
        let mut errors = Errors::default();
        if self.signature.asyncness.is_none() {
            errors.add(self.signature.fn_token.span, "the function has to be async: `async fn`");
        }
        let generics = &self.signature.generics;
        if let Some(first) = generics.params.first() {
            errors.add(first.span(), "clients call one function, so it cannot be generic");
        }
        let mut parameters = Vec::new();
        for input in &mut self.signature.inputs {
            match input {
                FnArg::Receiver(receiver) => errors.add(
                    receiver.self_token.span,
                    "there is no `self` here: take what the function needs as `State`",
                ),
                FnArg::Typed(input) => match Parameter::take(input) {
                    Ok(parameter) => parameters.push(parameter),
                    Err(error) => errors.push(error),
                },
            }
        }
        errors.or(parameters)
    }
}

/// All that is wrong, reported together.
#[derive(Default)]
pub(crate) struct Errors(Option<syn::Error>);

impl Errors {
    pub(crate) fn push(&mut self, error: syn::Error) {
        match &mut self.0 {
            Some(first) => first.combine(error),
            None => self.0 = Some(error),
        }
    }

    pub(crate) fn add(&mut self, span: proc_macro2::Span, message: &str) {
        self.push(syn::Error::new(span, message));
    }

    pub(crate) fn or<T>(self, value: T) -> syn::Result<T> {
        self.0.map_or(Ok(value), Err)
    }
}

/// The text of a doc comment, without the space that begins each line.
pub(crate) fn doc(attributes: &[Attribute]) -> Option<String> {
    let docs = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(it) if it.path.is_ident("doc") => Some(&it.value),
        _ => None,
    });
    let text = |value: &Expr| match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
        _ => None,
    };
    let lines: Vec<_> = docs.filter_map(text).collect();
    let lines = lines.iter().flat_map(|text| text.lines().chain(text.is_empty().then_some("")));
    let lines: Vec<_> = lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    let text = lines.join("\n").trim().to_owned();
    (!text.is_empty()).then_some(text)
}
