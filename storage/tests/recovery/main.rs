//! Recovery of a log from real files.

mod common;
mod damage;
mod files;
mod torn;
