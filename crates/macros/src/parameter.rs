//! What a parameter of the author's function is for.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::spanned::Spanned as _;
use syn::{Attribute, Error, Ident, Pat, PatIdent, PatType, Type};

/// Types that are not arguments, by the last segment of their path.
const EXTRACTORS: [&str; 3] = ["Context", "State", "Principal"];

/// Attributes that the compiler knows on parameters; all others belong to the argument.
const ON_PARAMETERS: [&str; 5] = ["allow", "warn", "deny", "forbid", "expect"];

/// What a parameter of the author's function is for.
pub(crate) enum Parameter {
    /// One argument, which becomes a field.
    Argument(Argument),
    /// All arguments, in a type of the author's.
    AllArguments(Type),
    /// Something of the call.
    Extractor(Type),
}

/// One argument.
pub(crate) struct Argument {
    pub(crate) name: Ident,
    pub(crate) kind: Type,
    pub(crate) attributes: Vec<Attribute>,
}

impl Argument {
    /// Whether the clients' name of it may not be the name of the parameter.
    pub(crate) fn may_be_renamed(&self) -> bool {
        self.attributes
            .iter()
            .any(|it| it.path().is_ident("serde") || it.path().is_ident("schemars"))
    }
}

impl ToTokens for Argument {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        let Self { name, kind, attributes } = self;
        tokens.extend(quote!(#(#attributes)* #name: #kind));
    }
}

impl Parameter {
    pub(crate) fn argument(&self) -> Option<&Argument> {
        match self {
            Self::Argument(argument) => Some(argument),
            Self::AllArguments(_) | Self::Extractor(_) => None,
        }
    }

    /// Where it is, if it has all arguments.
    pub(crate) fn all_arguments(&self) -> Option<Span> {
        match self {
            Self::AllArguments(kind) => Some(kind.span()),
            Self::Argument(_) | Self::Extractor(_) => None,
        }
    }

    /// Takes the attributes that are not for the compiler from a parameter.
    pub(crate) fn take(input: &mut PatType) -> syn::Result<Self> {
        let belongs = |attribute: &mut Attribute| {
            !ON_PARAMETERS.iter().any(|it| attribute.path().is_ident(it))
        };
        let mut attributes: Vec<_> = input.attrs.extract_if(.., belongs).collect();
        let is_args = take_mark(&mut attributes, "args")?;
        let is_extractor = take_mark(&mut attributes, "extract")?;
        let kind = (*input.ty).clone();
        let is_argument = !is_args && !is_extractor && !is_extractor_type(&kind);
        if is_argument {
            return Ok(Self::Argument(Argument {
                name: name_of(&input.pat)?,
                kind: owned(kind)?,
                attributes,
            }));
        }
        // Nobody reads them; a doc comment may describe a parameter for the author, though.
        attributes.retain(|attribute| !attribute.path().is_ident("doc"));
        match (attributes.first(), is_args, is_extractor) {
            (Some(attribute), ..) => {
                Err(Error::new(attribute.span(), "only an argument can have this attribute"))
            }
            (None, true, true) => {
                Err(Error::new(input.span(), "use `#[args]` or `#[extract]`, not both"))
            }
            (None, true, false) => owned(kind).map(Self::AllArguments),
            (None, false, _) => Ok(Self::Extractor(kind)),
        }
    }
}

/// Takes the attribute of this name, if it is there.
fn take_mark(attributes: &mut Vec<Attribute>, name: &str) -> syn::Result<bool> {
    let Some(at) = attributes.iter().position(|it| it.path().is_ident(name)) else {
        return Ok(false);
    };
    attributes.remove(at).meta.require_path_only()?;
    Ok(true)
}

fn is_extractor_type(kind: &Type) -> bool {
    let Type::Path(path) = kind else { return false };
    let last = path.path.segments.last();
    last.is_some_and(|segment| EXTRACTORS.iter().any(|it| segment.ident == it))
}

/// The name of a parameter that is an argument.
fn name_of(pattern: &Pat) -> syn::Result<Ident> {
    match pattern {
        Pat::Ident(PatIdent { by_ref: None, subpat: None, ident, .. }) => Ok(ident.clone()),
        _ => Err(Error::new(
            pattern.span(),
            "an argument needs a name, by which clients send it, and not a pattern; mark a \
             parameter that is not an argument with `#[extract]`",
        )),
    }
}

/// Refuses types that borrow: arguments are read into values of their own.
fn owned(kind: Type) -> syn::Result<Type> {
    fn borrow(tokens: TokenStream) -> Option<TokenTree> {
        tokens.into_iter().find_map(|token| match token {
            TokenTree::Group(group) => borrow(group.stream()),
            TokenTree::Punct(ref sign) if ['&', '\''].contains(&sign.as_char()) => Some(token),
            _ => None,
        })
    }
    match borrow(kind.to_token_stream()) {
        Some(_) => Err(Error::new(
            kind.span(),
            "an argument cannot be borrowed: take an owned type, as `String` for `&str`",
        )),
        None => Ok(kind),
    }
}
