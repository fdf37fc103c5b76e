//! Values by their type: what an author keeps for all handlers, or for one session.

use std::any::{Any, TypeId, type_name};
use std::fmt;
use std::sync::Arc;

use foldhash::HashMap;

/// A type of which there is one value.
#[derive(Clone, Copy, Debug)]
pub struct StateType {
    id: TypeId,
    pub(crate) name: &'static str,
}

impl StateType {
    pub(crate) fn of<T: 'static>() -> Self {
        Self { id: TypeId::of::<T>(), name: type_name::<T>() }
    }
}

/// The states of an engine. They do not change.
#[derive(Default)]
pub(crate) struct States(HashMap<TypeId, Box<dyn Any + Send + Sync>>);

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("States").field("types", &self.0.len()).finish()
    }
}

impl States {
    /// Sets the value of this type; the one before goes.
    pub(crate) fn set<T: Send + Sync + 'static>(&mut self, value: T) {
        self.0.insert(TypeId::of::<T>(), Box::new(value));
    }

    pub(crate) fn get<T: 'static>(&self) -> Option<&T> {
        self.0.get(&TypeId::of::<T>())?.downcast_ref()
    }

    /// The first of these types that has no value.
    pub(crate) fn missing<'a>(
        &self,
        types: impl IntoIterator<Item = &'a StateType>,
    ) -> Option<&'a StateType> {
        types.into_iter().find(|wanted| !self.0.contains_key(&wanted.id))
    }
}

/// The states of one session, each made when it is first asked for. Most sessions have none.
#[derive(Default)]
pub(crate) struct Slots(Option<Box<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>>);

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Slots").field(&self.0.as_ref().map_or(0, |slots| slots.len())).finish()
    }
}

impl Slots {
    pub(crate) fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.0.as_ref()?.get(&TypeId::of::<T>())?.clone().downcast().ok()
    }

    /// Sets the value of this type, if there is none yet.
    pub(crate) fn set<T: Send + Sync + 'static>(&mut self, value: Arc<T>) {
        self.0.get_or_insert_default().entry(TypeId::of::<T>()).or_insert(value);
    }
}
