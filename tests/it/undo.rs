//! Undo: what a document would be if some of its changes had never been made.

mod command;
mod model;
mod page;
mod reference;
mod rules;
mod service;
mod tools;
