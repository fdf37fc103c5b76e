//! The function that makes the item.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens as _, format_ident, quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::{Attribute, Ident, Path, parse_quote};

use crate::function::{Errors, Function, doc};
use crate::options::Options;
use crate::parameter::{Argument, Parameter};
use crate::uri;

/// What an attribute makes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ItemKind {
    Tool,
    Prompt,
    /// A resource, or a template if its URI has variables.
    Resource,
}

/// Replaces a function by one that makes the item. What is wrong stands in the new function, so
/// that the code that calls it finds it.
pub(crate) fn expand(kind: ItemKind, options: TokenStream, function: TokenStream) -> TokenStream {
    let mut function: Function = match syn::parse2(function) {
        Ok(function) => function,
        Err(error) => return error.into_compile_error(),
    };
    let attributes = function.take_outer_attributes();
    let options = syn::parse2::<Options>(options);
    let given = options.as_ref().ok();
    let krate = given.and_then(|it| it.krate.clone()).unwrap_or_else(|| parse_quote!(::stentor));
    let variables = given.and_then(|it| it.uri.as_ref()).map(|uri| uri::variables(&uri.value()));
    let variables = variables.unwrap_or_default();
    let (maker, made) = match kind {
        ItemKind::Tool => ("tool", "Tool"),
        ItemKind::Prompt => ("prompt", "Prompt"),
        ItemKind::Resource if variables.is_empty() => ("resource", "Resource"),
        ItemKind::Resource => ("resource_template", "ResourceTemplate"),
    };
    let (maker, made) = (format_ident!("{maker}"), format_ident!("{made}"));
    let body = options.and_then(|options| {
        check(kind, &options, function.signature.ident.span())?;
        let parameters = function.take_parameters()?;
        let known = (kind == ItemKind::Resource).then_some(&variables[..]);
        let code = code(&krate, &function.signature.ident, &parameters, known)?;
        Ok(item(&quote!(#krate::#maker), &options, &attributes, &function, &code))
    });
    let body = body.unwrap_or_else(syn::Error::into_compile_error);
    let (visibility, name) = (&function.visibility, &function.signature.ident);
    quote! {
        #(#attributes)*
        #[must_use]
        #visibility fn #name() -> #krate::#made {
            #body
        }
    }
}

/// A URI is for resources, and resources have one.
fn check(kind: ItemKind, options: &Options, span: Span) -> syn::Result<()> {
    match (kind, &options.uri) {
        (ItemKind::Resource, None) => {
            Err(syn::Error::new(span, "a resource needs its URI: `#[resource(\"docs://readme\")]`"))
        }
        (ItemKind::Tool | ItemKind::Prompt, Some(uri)) => {
            Err(syn::Error::new(uri.span(), "only a resource has a URI; write `name = \"...\"`"))
        }
        _ => Ok(()),
    }
}

/// The code that an item runs, and the struct of its arguments if it needs one.
struct Code {
    arguments: Option<TokenStream>,
    function: TokenStream,
}

/// `known` are the only arguments that clients can send, if that is known.
fn code(
    krate: &Path,
    name: &Ident,
    parameters: &[Parameter],
    known: Option<&[String]>,
) -> syn::Result<Code> {
    let mut errors = Errors::default();
    let fields: Vec<_> = parameters.iter().filter_map(Parameter::argument).collect();
    let mut whole = parameters.iter().filter_map(Parameter::all_arguments);
    let first = whole.next();
    if let Some(second) = whole.next() {
        errors.add(second, "only one parameter can have all arguments");
    }
    if let (Some(whole), false) = (first, fields.is_empty()) {
        errors.add(
            whole,
            "this parameter has all arguments, so the others have to be marked with `#[extract]`",
        );
    }
    for field in &fields {
        let is_known = |known: &[String]| known.contains(&field.name.unraw().to_string());
        if !field.may_be_renamed() && known.is_some_and(|known| !is_known(known)) {
            let message = format!("the URI has no variable `{}`", field.name.unraw());
            errors.add(field.name.span(), &message);
        }
    }
    errors.or(())?;
    if fields.is_empty() {
        // The parameters are those that the engine gives.
        return Ok(Code { arguments: None, function: name.to_token_stream() });
    }
    let kind = format_ident!("__Arguments");
    let all = Ident::new("arguments", Span::mixed_site());
    let (mut given, mut passed) = (vec![quote!(#all: #kind)], Vec::new());
    for (index, parameter) in parameters.iter().enumerate() {
        match parameter {
            Parameter::Argument(Argument { name, .. }) => passed.push(quote!(#all.#name)),
            Parameter::AllArguments(kind) | Parameter::Extractor(kind) => {
                let name = Ident::new(&format!("extracted_{index}"), Span::mixed_site());
                given.push(quote!(#name: #kind));
                passed.push(name.into_token_stream());
            }
        }
    }
    let path = |name: &str| format!("{}::{name}", krate.to_token_stream()).replace(' ', "");
    let (serde, schemars) = (path("serde"), path("schemars"));
    let arguments = quote! {
        #[derive(#krate::serde::Deserialize, #krate::schemars::JsonSchema)]
        #[serde(crate = #serde)]
        #[schemars(crate = #schemars)]
        struct #kind {
            #(#fields,)*
        }
    };
    Ok(Code { arguments: Some(arguments), function: quote!(|#(#given),*| #name(#(#passed),*)) })
}

/// The body of the function that makes the item.
fn item(
    maker: &TokenStream,
    options: &Options,
    outer: &[Attribute],
    function: &Function,
    code: &Code,
) -> TokenStream {
    let Function { attributes, signature, body, .. } = function;
    let Code { arguments, function: code } = code;
    let ident = &signature.ident;
    let name = match &options.name {
        Some(name) => name.to_token_stream(),
        None => ident.unraw().to_string().into_token_stream(),
    };
    let uri = options.uri.iter();
    let description = doc(outer).filter(|_| !options.describe()).into_iter();
    let setters = &options.setters;
    // What the engine says of the function's types is shown at its name.
    let span = Span::mixed_site().located_at(ident.span());
    let made = quote_spanned!(span=> #maker(#(#uri,)* #name, #code));
    quote! {
        #(#attributes)*
        #signature #body
        #arguments
        #made #(.description(#description))* #(#setters)*
    }
}
