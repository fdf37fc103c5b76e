//! What an extension reports: a type that the engine does not know.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

trait Reported: Any + fmt::Debug + Send + Sync {}

impl<T: Any + fmt::Debug + Send + Sync> Reported for T {}

/// What an extension has [reported](crate::Engine::report): a value of a type of its own.
#[derive(Clone)]
pub struct ExtensionEvent(Arc<dyn Reported>);

impl ExtensionEvent {
    pub(crate) fn new(event: impl Any + fmt::Debug + Send + Sync) -> Self {
        Self(Arc::new(event))
    }

    /// The value, if it is of this type.
    #[must_use]
    pub fn get<T: Any>(&self) -> Option<&T> {
        let event: &dyn Any = &*self.0;
        event.downcast_ref()
    }
}

impl fmt::Debug for ExtensionEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
