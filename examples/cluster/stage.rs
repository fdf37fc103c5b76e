//! Shared by all parts of the show: the clock, the output, and the addresses and views of nodes.

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

    /// Prints a line of the story. `println!` would panic when the reader of a pipe has
    /// disconnected.
    pub(crate) fn say(&self, who: impl Display, what: impl Display) {
        let at = self.began.elapsed().as_secs_f64();
        let _ = writeln!(io::stdout(), "{at:>7.3}  {who:<9} {what}");
    }

    /// The record of all changes, and of the clients that know of each.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    pub(crate) fn node_is_at(&self, number: usize, address: SocketAddr) {
        lock(&self.places).insert(address.to_string(), number);
    }

    /// The name of the node at this address.
    pub(crate) fn name_of(&self, address: &str) -> String {
        let number = lock(&self.places).get(address).copied();
        number.map_or_else(|| "some node".to_owned(), |n| format!("node {n}"))
    }

    pub(crate) fn view(&self, by: usize, of: usize) -> Option<View> {
        lock(&self.views).get(&(by, of)).copied()
    }

    /// Records how a node sees another now, and returns how it saw that node before.
    pub(crate) fn sees(&self, by: usize, of: usize, view: View) -> Option<View> {
        lock(&self.views).insert((by, of), view)
    }

    /// Forgets all views of and about a node that starts again.
    pub(crate) fn forget_views(&self, node: usize) {
        lock(&self.views).retain(|(by, of), _| *by != node && *of != node);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
