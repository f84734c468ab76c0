//! Whole clusters of processes under faults: killed nodes, forgotten votes, wrong stores, full
//! disks, hostile peers and clients.

mod amnesia;
mod cluster;
mod disk;
mod full_disk;
mod hostile;
mod kill;
mod members;
mod producers;
mod repair;
mod store;
mod writers;
