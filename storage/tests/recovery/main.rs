//! Recovery of a log from real files.

mod common;
mod damage;
mod faults;
mod files;
mod samples;
mod scrub;
mod torn;
