//! Plans: what a dry run keeps, and how it is applied.

mod command;
mod rest;
mod service;
mod tool;
