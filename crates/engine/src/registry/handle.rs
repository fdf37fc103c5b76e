//! The handle of the catalog for applications and tools.

use std::sync::Arc;

use super::Registry;
use crate::catalog::{Catalog, CatalogError, Change, Item, Mutation, Toolbox};
use crate::items::ItemKind;

/// The catalog of an engine, to read and to change. Every change is announced automatically.
#[derive(Clone, Debug)]
pub struct CatalogHandle(Arc<Registry>);

impl CatalogHandle {
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Self(registry)
    }

    /// The lists as they are now. A snapshot does not change.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Catalog> {
        self.0.catalog()
    }

    /// Adds a tool, a resource, a resource template or a prompt.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Exists`] if its name is taken, or the reason why the item is invalid.
    pub async fn add(&self, item: impl Into<Item>) -> Result<Change, CatalogError> {
        self.apply([Mutation::Add(item.into())]).await
    }

    /// Adds all items of a toolbox, or on an error none.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add).
    pub async fn add_all(&self, toolbox: Toolbox) -> Result<Change, CatalogError> {
        self.apply(toolbox.into_items().map(Mutation::Add)).await
    }

    /// Removes the items that have the names and URIs of those of a toolbox, together.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Stopped`], [`CatalogError::Interrupted`].
    pub async fn remove_all(&self, toolbox: &Toolbox) -> Result<Change, CatalogError> {
        let items = toolbox.items().iter();
        let removals: Vec<_> =
            items.map(|item| Mutation::remove(item.kind(), item.key())).collect();
        self.apply(removals).await
    }

    /// Adds an item, or replaces the item that has its name.
    ///
    /// # Errors
    ///
    /// The reason why the item is invalid.
    pub async fn put(&self, item: impl Into<Item>) -> Result<Change, CatalogError> {
        self.apply([Mutation::Put(item.into())]).await
    }

    /// Removes a tool. `false` if there was none.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Stopped`], [`CatalogError::Interrupted`].
    pub async fn remove_tool(&self, name: &str) -> Result<bool, CatalogError> {
        self.remove(ItemKind::Tools, name).await
    }

    /// Removes a resource. `false` if there was none.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Stopped`], [`CatalogError::Interrupted`].
    pub async fn remove_resource(&self, uri: &str) -> Result<bool, CatalogError> {
        self.remove(ItemKind::Resources, uri).await
    }

    /// Removes a resource template. `false` if there was none.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Stopped`], [`CatalogError::Interrupted`].
    pub async fn remove_resource_template(&self, uri_template: &str) -> Result<bool, CatalogError> {
        self.remove(ItemKind::Templates, uri_template).await
    }

    /// Removes a prompt. `false` if there was none.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Stopped`], [`CatalogError::Interrupted`].
    pub async fn remove_prompt(&self, name: &str) -> Result<bool, CatalogError> {
        self.remove(ItemKind::Prompts, name).await
    }

    async fn remove(&self, kind: ItemKind, key: &str) -> Result<bool, CatalogError> {
        let change = self.apply([Mutation::remove(kind, key.to_owned())]).await?;
        Ok(!change.lists.is_empty())
    }

    /// Applies several changes together: all of them or, on an error, none. Clients get one notice
    /// for each list that differs, and none for a list that does not.
    ///
    /// Returns when readers see the new lists. When dropped early, the change may still happen.
    ///
    /// # Errors
    ///
    /// The first error of a mutation, [`CatalogError::Stopped`] or [`CatalogError::Interrupted`].
    pub async fn apply(
        &self,
        mutations: impl IntoIterator<Item = Mutation>,
    ) -> Result<Change, CatalogError> {
        self.0.apply(mutations).await
    }
}
