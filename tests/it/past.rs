//! The content of the past: what the log explains, and nothing else.

mod command;
mod model;
mod rest;
mod rules;
mod tool;
