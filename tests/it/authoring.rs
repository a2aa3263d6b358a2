//! Creating and deleting documents, and what an undo of either leads to.

mod create;
mod delete;
mod races;
