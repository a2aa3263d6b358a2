//! Undo: what a document would be if some of its changes had never been made.

mod command;
pub(crate) mod model;
mod page;
mod races;
mod reference;
mod replays;
mod rules;
mod selection;
pub(crate) mod service;
mod tool;
mod update_tool;
