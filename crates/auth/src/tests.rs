//! The authenticator as its callers see it, with issuers of its own.

mod building;
mod introspection;
mod key_sets;
mod outages;
mod rotation;
mod tokens;
mod web;
