//! Undo: what a document would be if some of its changes had never been made.

mod command;
mod model;
mod page;
mod races;
mod reference;
mod replays;
mod rules;
mod selection;
mod service;
mod tool;
mod update_tool;
