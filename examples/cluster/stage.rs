//! What all who appear have in common: a clock, a voice, and who is where.

use std::collections::HashMap;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::table::Ledger;

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug)]
pub(crate) struct Stage {
    began: Instant,
    places: Mutex<HashMap<String, usize>>,
    views: Mutex<HashMap<(usize, usize), View>>,
    ledger: Mutex<Ledger>,
}

/// How a node sees another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    Linked,
    Unlinked,
    Dead,
    Left,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            places: Mutex::default(),
            views: Mutex::default(),
            ledger: Mutex::default(),
        }
    }

    /// A line of the story. Not `println!`, which panics when the reader of a pipe has gone away.
    pub(crate) fn say(&self, who: impl Display, what: impl Display) {
        let at = self.began.elapsed().as_secs_f64();
        let _ = writeln!(io::stdout(), "{at:>7.3}  {who:<9} {what}");
    }

    /// What changed, and who has heard of it.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    pub(crate) fn node_is_at(&self, number: usize, address: SocketAddr) {
        lock(&self.places).insert(address.to_string(), number);
    }

    /// The node at this address, in words.
    pub(crate) fn name_of(&self, address: &str) -> String {
        let number = lock(&self.places).get(address).copied();
        number.map_or_else(|| "some node".to_owned(), |n| format!("node {n}"))
    }

    pub(crate) fn view(&self, by: usize, of: usize) -> Option<View> {
        lock(&self.views).get(&(by, of)).copied()
    }

    /// Notes how a node sees another now; returns how it did before.
    pub(crate) fn sees(&self, by: usize, of: usize, view: View) -> Option<View> {
        lock(&self.views).insert((by, of), view)
    }

    /// A node that begins anew has seen nobody, and nobody has seen it.
    pub(crate) fn forget_views(&self, node: usize) {
        lock(&self.views).retain(|(by, of), _| *by != node && *of != node);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
