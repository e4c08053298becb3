//! The read API of a network's index over HTTP, and the pages that show it: `poq explorer`.
//!
//! | module | what |
//! |---|---|
//! | [`api`] | the questions, as JSON; [`api::document`] is their OpenAPI document |
//! | [`server`] | the server: what every answer carries, limits, live updates |
//! | [`pages`] | the pages, embedded |
//!
//! Nothing here can write: the database's connections refuse it, and there is no key. The pages ask nobody but this server.

pub mod api;
mod csv;
mod limits;
mod live;
pub mod pages;
pub mod server;

pub use server::{serve, Config};
