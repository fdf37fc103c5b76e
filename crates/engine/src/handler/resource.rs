use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use stentor_wire::ErrorObject;
use stentor_wire::encode::CacheHint;
use stentor_wire::model::{
    self, Annotations, CacheScope, Icon, MetaObject, ReadResourceResult, ResourceContents,
};

use super::watch::{Hook, HookParameters, Hooks, hook_methods};
use super::{
    Completer, Completion, Context, Function, Handler, Input, IntoReply, Layers, Middleware,
    Parameters, ResourceError, Running, Signature,
};
use crate::access::{Access, ItemAccess, access_methods};
use crate::items::ItemKind;

/// The variables of a resource template, by name, percent-decoded. A variable that the URI leaves
/// out is not included; most expressions allow that, but not `{var}` and `{+var}`.
pub type TemplateVars = BTreeMap<String, String>;

macro_rules! descriptor_methods {
    () => {
        /// Sets what it is, for the model.
        #[must_use]
        pub fn description(mut self, description: impl Into<String>) -> Self {
            self.descriptor.description = Some(description.into());
            self
        }

        /// Sets a name for people.
        #[must_use]
        pub fn title(mut self, title: impl Into<String>) -> Self {
            self.descriptor.title = Some(title.into());
            self
        }

        /// Sets the MIME type of the contents.
        #[must_use]
        pub fn mime_type(mut self, mime_type: impl Into<String>) -> Self {
            self.descriptor.mime_type = Some(mime_type.into());
            self
        }

        /// Adds a middleware around it alone, outside of those that it has.
        #[must_use]
        pub fn layer(mut self, layer: impl Middleware) -> Self {
            self.layers = self.layers.within(Arc::new(layer));
            self
        }

        access_methods!();

        /// Sets icons for people.
        #[must_use]
        pub fn icons(mut self, icons: impl IntoIterator<Item = Icon>) -> Self {
            self.descriptor.icons = Some(icons.into_iter().collect());
            self
        }

        /// Sets who it is for, how important it is, and when it changed.
        #[must_use]
        pub fn annotations(mut self, annotations: Annotations) -> Self {
            self.descriptor.annotations = Some(annotations);
            self
        }

        /// Sets the `_meta` of the descriptor.
        #[must_use]
        pub fn meta(mut self, meta: MetaObject) -> Self {
            self.descriptor.meta = Some(meta);
            self
        }

        /// Sets for how long a client may cache the contents, in milliseconds, and whether the copy
        /// of one user may serve another. Without it the client may not cache them.
        #[must_use]
        pub fn cache(mut self, ttl_ms: u64, scope: CacheScope) -> Self {
            self.cache = CacheHint { ttl_ms, scope };
            self
        }
    };
}

/// A resource with a fixed URI: the descriptor that clients see, and the code that reads it.
#[derive(Clone)]
pub struct Resource {
    pub(crate) descriptor: model::Resource,
    read: Function<ReadResourceResult>,
    pub(crate) layers: Layers,
    pub(crate) access: ItemAccess,
    pub(crate) cache: CacheHint,
    hooks: Hooks,
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resource").field("descriptor", &self.descriptor).finish_non_exhaustive()
    }
}

/// Makes a resource that an async function reads.
///
/// The function takes any of the [parameters](crate::FromCall) of a handler, except arguments, and
/// returns anything that is [`IntoReply`].
///
/// ```
/// let clock = stentor::resource("clock://now", "clock", || async { "noon" })
///     .mime_type("text/plain");
/// # let _ = clock;
/// ```
pub fn resource<M, F>(uri: impl Into<String>, name: impl Into<String>, read: F) -> Resource
where
    M: Parameters,
    F: Handler<M>,
    F::Future: Future<Output: IntoReply<ReadResourceResult>> + Send + 'static,
{
    const {
        assert!(
            !M::HAS_ARGUMENTS,
            "a resource has no arguments: those of a URI are the variables of a `resource_template`"
        );
    }
    let descriptor = model::Resource::new(uri, name);
    let (read, layers, access) = (Function::new(read), Layers::default(), ItemAccess::default());
    let (cache, hooks) = (CacheHint::default(), Hooks::default());
    Resource { descriptor, read, layers, access, cache, hooks }
}

impl Resource {
    /// Makes a text resource that never changes by itself.
    ///
    /// ```
    /// let readme = stentor::Resource::text("docs://readme", "readme", "Read me.");
    /// # let _ = readme;
    /// ```
    #[must_use]
    pub fn text(uri: impl Into<String>, name: impl Into<String>, text: impl Into<String>) -> Self {
        let text: Arc<str> = text.into().into();
        resource(uri, name, move || std::future::ready(text.clone())).mime_type("text/plain")
    }

    /// Makes a binary resource that never changes by itself.
    #[must_use]
    pub fn bytes(
        uri: impl Into<String>,
        name: impl Into<String>,
        bytes: impl Into<Vec<u8>>,
    ) -> Self {
        let bytes: Arc<[u8]> = bytes.into().into();
        resource(uri, name, move || std::future::ready(bytes.clone()))
    }

    /// The URI that clients read.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.descriptor.uri
    }

    /// Sets the size in bytes, for clients that want to know it before they read.
    #[must_use]
    pub fn size(mut self, bytes: u64) -> Self {
        self.descriptor.size = Some(bytes);
        self
    }

    descriptor_methods!();
    hook_methods!();
}

/// A family of resources whose URIs follow a template.
#[derive(Clone)]
pub struct ResourceTemplate {
    pub(crate) descriptor: model::ResourceTemplate,
    read: Function<ReadResourceResult>,
    pub(crate) layers: Layers,
    pub(crate) access: ItemAccess,
    pub(crate) cache: CacheHint,
    hooks: Hooks,
    completer: Option<Completer>,
}

impl fmt::Debug for ResourceTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourceTemplate")
            .field("descriptor", &self.descriptor)
            .finish_non_exhaustive()
    }
}

/// Makes a family of resources: one async function reads every URI that fits the template.
///
/// Templates follow RFC 6570 up to level 3, and also allow lists:
///
/// | expression | matches |
/// |---|---|
/// | `{var}`, `{a,b}` | what is left of a segment: letters, digits, `-._~` and what is escaped |
/// | `{+path}` | anything, also `/` |
/// | `{#fragment}`, `{.ext}`, `{/segment}`, `{/a,b}` | the same behind its sign, or nothing |
/// | `{?q,limit}`, `{&more}`, `{;x,y}` | pairs of these names and values, any of them, in any order |
/// | `{/parts*}` and other lists | one or more, joined as they were (`a/b/c`) |
///
/// Other expressions are refused when the template is added. URIs are compared in their [normal
/// form](stentor_wire::uri::normal), so that `my file` and `my%20file` are the same. Values are
/// decoded, and may then contain anything, also `/` and `..`: check them before they become part of
/// a path.
///
/// The function takes any of the [parameters](crate::FromCall) of a handler, and returns anything
/// that is [`IntoReply`]. The fields of its type for arguments are variables of the template: numbers,
/// booleans and choices are parsed. Without such a type, [`TemplateVars`] has them as texts.
///
/// ```
/// use schemars::JsonSchema;
/// use serde::Deserialize;
/// use stentor::resource_template;
///
/// #[derive(Deserialize, JsonSchema)]
/// struct User {
///     id: u64,
/// }
///
/// let users = resource_template("db://users/{id}", "users", |user: User| async move {
///     format!("user {}", user.id)
/// });
/// # let _ = users;
/// ```
pub fn resource_template<M, F>(
    uri_template: impl Into<String>,
    name: impl Into<String>,
    read: F,
) -> ResourceTemplate
where
    M: Parameters,
    F: Handler<M>,
    F::Future: Future<Output: IntoReply<ReadResourceResult>> + Send + 'static,
{
    let descriptor = model::ResourceTemplate::new(uri_template, name);
    let (read, layers) = (Function::new(read), Layers::default());
    ResourceTemplate {
        descriptor,
        read,
        layers,
        access: ItemAccess::default(),
        cache: CacheHint::default(),
        hooks: Hooks::default(),
        completer: None,
    }
}

impl ResourceTemplate {
    /// The template.
    #[must_use]
    pub fn uri_template(&self) -> &str {
        &self.descriptor.uri_template
    }

    /// Sets the function that completes variables while they are typed. It returns all values that
    /// fit, best first.
    #[must_use]
    pub fn complete<F, Fut>(mut self, function: F) -> Self
    where
        F: Fn(Completion) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Vec<String>> + Send + 'static,
    {
        self.completer = Some(Completer::new(function));
        self
    }

    descriptor_methods!();
    hook_methods!();
}

#[derive(Debug)]
pub(crate) struct ResourceEntry {
    resource: Resource,
    pub(crate) json: Bytes,
    access: Access,
}

impl ResourceEntry {
    pub(crate) fn check(resource: Resource) -> Result<Self, super::SchemaError> {
        let json = serde_json::to_vec(&resource.descriptor)
            .map_err(|error| super::SchemaError::Invalid(error.to_string()))?
            .into();
        let access = resource.access.access();
        Ok(Self { resource, json, access })
    }

    pub(crate) fn uri(&self) -> &str {
        self.resource.uri()
    }

    pub(crate) fn signature(&self) -> &Signature {
        &self.resource.read.signature
    }

    pub(crate) fn hooks(&self) -> &Hooks {
        &self.resource.hooks
    }

    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    pub(crate) fn reader(&self) -> Reader {
        Reader {
            read: self.resource.read.clone(),
            input: Input::Nothing,
            layers: self.resource.layers.clone(),
            access: self.resource.access.clone(),
            kind: ItemKind::Resources,
            key: self.uri().into(),
            cache: self.resource.cache,
            mime_type: self.resource.descriptor.mime_type.clone(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct TemplateEntry {
    template: ResourceTemplate,
    pattern: super::UriTemplate,
    pub(crate) json: Bytes,
    access: Access,
}

impl TemplateEntry {
    pub(crate) fn check(template: ResourceTemplate) -> Result<Self, super::SchemaError> {
        let invalid = |error: &dyn fmt::Display| super::SchemaError::Invalid(error.to_string());
        let pattern = super::UriTemplate::new(template.uri_template())?;
        if let Some(wanted) = template.read.signature.required().find(|name| !pattern.has(name)) {
            return Err(super::SchemaError::Variable(wanted.to_owned()));
        }
        let json =
            serde_json::to_vec(&template.descriptor).map_err(|error| invalid(&error))?.into();
        let access = template.access.access();
        Ok(Self { template, pattern, json, access })
    }

    pub(crate) fn uri_template(&self) -> &str {
        self.template.uri_template()
    }

    pub(crate) fn signature(&self) -> &Signature {
        &self.template.read.signature
    }

    pub(crate) fn hooks(&self) -> &Hooks {
        &self.template.hooks
    }

    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// The variables of a URI in its normal form, if the URI fits the template.
    pub(crate) fn variables(&self, normal: &str) -> Option<TemplateVars> {
        self.pattern.variables(normal)
    }

    pub(crate) fn layers(&self) -> &Layers {
        &self.template.layers
    }

    pub(crate) fn completer(&self) -> Option<&Completer> {
        self.template.completer.as_ref()
    }

    /// The reader of a URI in its normal form, if the URI fits the template.
    pub(crate) fn reader(&self, normal: &str) -> Option<Reader> {
        let vars = self.variables(normal)?;
        Some(Reader {
            read: self.template.read.clone(),
            input: Input::Texts(vars),
            layers: self.template.layers.clone(),
            access: self.template.access.clone(),
            kind: ItemKind::Templates,
            key: self.uri_template().into(),
            cache: self.template.cache,
            mime_type: self.template.descriptor.mime_type.clone(),
        })
    }
}

pub(crate) struct Reader {
    read: Function<ReadResourceResult>,
    input: Input,
    pub(crate) layers: Layers,
    access: ItemAccess,
    /// The item that is read.
    pub(crate) kind: ItemKind,
    pub(crate) key: Arc<str>,
    pub(crate) cache: CacheHint,
    mime_type: Option<String>,
}

impl Reader {
    /// Who sees the item that is read, and the scopes that this needs, as its author says.
    pub(crate) fn access(&self) -> Access {
        self.access.access()
    }

    /// The scopes that depend on the variables of the URI.
    pub(crate) fn scopes_of(&self, uri: &str) -> Result<BTreeSet<Arc<str>>, ErrorObject> {
        match &self.input {
            Input::Texts(vars) => self.access.scopes_of_texts(uri, vars),
            _ => self.access.scopes_of_texts(uri, &TemplateVars::new()),
        }
    }

    pub(crate) fn read(self, ctx: Context) -> Running<Result<ReadResourceResult, ResourceError>> {
        let running = self.read.run(self.input, ctx);
        let declared = self.mime_type;
        async move {
            let mut result = running.await?;
            if let Some(declared) = declared {
                for contents in &mut result.contents {
                    set_missing_type(contents, &declared);
                }
            }
            Ok(result)
        }
        .boxed()
    }
}

fn set_missing_type(contents: &mut ResourceContents, declared: &str) {
    if let ResourceContents::TextResourceContents { mime_type, .. }
    | ResourceContents::BlobResourceContents { mime_type, .. } = contents
        && mime_type.is_none()
    {
        *mime_type = Some(declared.to_owned());
    }
}
