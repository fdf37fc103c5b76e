//! The attributes `#[tool]`, `#[prompt]` and `#[resource]` of Stentor, which re-exports them and
//! documents them with examples.
//!
//! Beside them is `Setters`, with which the other crates of Stentor make the setters of their
//! settings.
//!
//! An attribute makes a function that returns the item, and adds nothing to what `tool`, `prompt`,
//! `resource` and `resource_template` can do: it writes down the struct of the arguments, and
//! calls one of them.

mod expand;
mod function;
mod options;
mod parameter;
mod setters;
mod uri;

use proc_macro::TokenStream;

use expand::ItemKind;

/// Makes a tool from an async function. `#[tool] async fn add(..)` becomes `fn add() -> Tool`.
///
/// The doc comment of the function is the description of the tool. Each parameter is an argument
/// with its doc comment as the description; its `serde` and `schemars` attributes are kept. Two
/// kinds of parameters are not arguments: those of type `Context`, `State` or `Principal`, and
/// others that are marked with `#[extract]`. One parameter that is marked with `#[args]` instead
/// receives all arguments, as a type of one's own.
///
/// The options are `name = "..."`, if it is not that of the function, and any setter of `Tool`:
/// `title = "Add"`, `as_task = AsTask::WhenPossible`, `resumable`. `crate = path` names the crate
/// `stentor`, if it is not `::stentor`.
#[proc_macro_attribute]
pub fn tool(options: TokenStream, function: TokenStream) -> TokenStream {
    expand::expand(ItemKind::Tool, options.into(), function.into()).into()
}

/// Makes a prompt from an async function. `#[prompt] async fn review(..)` becomes
/// `fn review() -> Prompt`.
///
/// Parameters, descriptions and options are those of `#[tool]`; the setters are those of `Prompt`.
#[proc_macro_attribute]
pub fn prompt(options: TokenStream, function: TokenStream) -> TokenStream {
    expand::expand(ItemKind::Prompt, options.into(), function.into()).into()
}

/// Makes a resource from an async function, or a family of resources if the URI has variables.
/// `#[resource("docs://readme")] async fn readme(..)` becomes `fn readme() -> Resource`, and
/// `#[resource("db://users/{id}")] async fn user(id: String)` becomes
/// `fn user() -> ResourceTemplate`.
///
/// The parameters are the variables of the URI, and otherwise, as descriptions and options, those
/// of `#[tool]`. The setters are those of `Resource` and `ResourceTemplate`:
/// `mime_type = "text/plain"`, `cache(60_000, CacheScope::Public)`.
#[proc_macro_attribute]
pub fn resource(options: TokenStream, function: TokenStream) -> TokenStream {
    expand::expand(ItemKind::Resource, options.into(), function.into()).into()
}

/// Makes a setter for each public field of a struct: it has the field's name and doc comment. Makes
/// `new`, too, which returns the defaults, but not with `#[setters(own_new)]`.
#[proc_macro_derive(Setters, attributes(setters))]
pub fn setters(input: TokenStream) -> TokenStream {
    setters::expand(input.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
