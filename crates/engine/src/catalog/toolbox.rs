//! Items that belong together.

use std::sync::Arc;

use super::Item;
use crate::access::ItemAccess;
use crate::handler::{Middleware, Prompt, Resource, ResourceTemplate, Tool};

/// Items that belong together: they are added and removed at once, put under a prefix, and share
/// [middleware](Middleware).
///
/// ```
/// use std::time::Duration;
/// use stentor::{Engine, Toolbox, tool, middleware::Timeout};
///
/// fn clocks() -> Toolbox {
///     Toolbox::new()
///         .tool(tool("noon", || async { "12:00" }))
///         .tool(tool("midnight", || async { "0:00" }))
///         .layer(Timeout(Duration::from_secs(1)))
/// }
///
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// // The tools `berlin_noon` and `berlin_midnight`.
/// let engine = Engine::builder("s", "1").toolbox(clocks().nested("berlin")).start().await?;
/// // Two more, with one notice to each client; then none of these.
/// engine.catalog().add_all(clocks()).await?;
/// engine.catalog().remove_all(&clocks()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Toolbox {
    items: Vec<Item>,
}

impl Toolbox {
    /// A toolbox without items.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an item: a tool, a resource, a resource template or a prompt.
    #[must_use]
    pub fn item(mut self, item: impl Into<Item>) -> Self {
        self.items.push(item.into());
        self
    }

    /// Adds a tool.
    #[must_use]
    pub fn tool(self, tool: Tool) -> Self {
        self.item(tool)
    }

    /// Adds a resource.
    #[must_use]
    pub fn resource(self, resource: Resource) -> Self {
        self.item(resource)
    }

    /// Adds a resource template.
    #[must_use]
    pub fn resource_template(self, template: ResourceTemplate) -> Self {
        self.item(template)
    }

    /// Adds a prompt.
    #[must_use]
    pub fn prompt(self, prompt: Prompt) -> Self {
        self.item(prompt)
    }

    /// Adds the items of another toolbox.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.items.extend(other.items);
        self
    }

    /// Puts all items that are here now under a prefix: the tool or prompt `noon` becomes
    /// `prefix_noon`, the URI `clock://noon` becomes `clock://prefix/noon`.
    #[must_use]
    pub fn nested(mut self, prefix: &str) -> Self {
        for item in &mut self.items {
            match item {
                Item::Tool(Tool { descriptor, .. }) => {
                    descriptor.name = format!("{prefix}_{}", descriptor.name).into();
                }
                Item::Prompt(Prompt { descriptor, .. }) => {
                    descriptor.name = format!("{prefix}_{}", descriptor.name);
                }
                Item::Resource(Resource { descriptor, .. }) => {
                    descriptor.uri = nested(&descriptor.uri, prefix);
                }
                Item::Template(ResourceTemplate { descriptor, .. }) => {
                    descriptor.uri_template = nested(&descriptor.uri_template, prefix);
                }
            }
        }
        self
    }

    /// Adds a middleware around all items that are here now, outside of those that they have.
    #[must_use]
    pub fn layer(mut self, layer: impl Middleware) -> Self {
        let layer: Arc<dyn Middleware> = Arc::new(layer);
        for item in &mut self.items {
            let layers = match item {
                Item::Tool(tool) => &mut tool.layers,
                Item::Resource(resource) => &mut resource.layers,
                Item::Template(template) => &mut template.layers,
                Item::Prompt(prompt) => &mut prompt.layers,
            };
            *layers = layers.within(layer.clone());
        }
        self
    }

    /// Shows all items that are here now only to senders who have one of these labels. An item that
    /// is for some senders already is for those of them. See [`Tool::only_for`].
    #[must_use]
    pub fn only_for<I>(mut self, labels: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<Arc<str>>,
    {
        let labels: Vec<Arc<str>> = labels.into_iter().map(Into::into).collect();
        self.items.iter_mut().for_each(|it| access(it).within(labels.iter().cloned()));
        self
    }

    /// Lets only senders use the items that are here now whose credential has this scope. See
    /// [`Tool::require_scope`].
    #[must_use]
    pub fn require_scope(mut self, scope: impl Into<Arc<str>>) -> Self {
        let scope = scope.into();
        self.items.iter_mut().for_each(|it| access(it).require_scope(scope.clone()));
        self
    }

    /// The items.
    #[must_use]
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    pub(crate) fn into_items(self) -> impl Iterator<Item = Item> {
        self.items.into_iter()
    }
}

fn access(item: &mut Item) -> &mut ItemAccess {
    match item {
        Item::Tool(tool) => &mut tool.access,
        Item::Resource(resource) => &mut resource.access,
        Item::Template(template) => &mut template.access,
        Item::Prompt(prompt) => &mut prompt.access,
    }
}

/// A URI with one more segment behind its scheme.
fn nested(uri: &str, prefix: &str) -> String {
    let separator = ["://", ":"].into_iter().find(|separator| uri.contains(separator));
    match separator.and_then(|separator| Some((separator, uri.split_once(separator)?))) {
        Some((separator, (scheme, rest))) => match rest.strip_prefix('/') {
            Some(path) => format!("{scheme}{separator}/{prefix}/{path}"),
            None => format!("{scheme}{separator}{prefix}/{rest}"),
        },
        None => format!("{prefix}/{uri}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_goes_behind_the_scheme() {
        for (uri, is) in [
            ("clock://noon", "clock://a/noon"),
            ("file:///x/{y}", "file:///a/x/{y}"),
            ("urn:isbn:1", "urn:a/isbn:1"),
            ("plain", "a/plain"),
        ] {
            assert_eq!(nested(uri, "a"), is);
        }
    }
}
