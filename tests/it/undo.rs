//! Undo: what a document would be if some of its changes had never been made.

mod model;
mod page;
mod reference;
mod rules;
mod selection;
mod service;
mod update_tool;
