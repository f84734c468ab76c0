//! Reads of the log on disk for the control thread.

use super::DiskRead;
use crate::mail::Place;
use chainring_storage::{AlignedBuf, Identity, LogReader, SharedDisk};
use std::cell::RefCell;
use std::path::Path;

/// Reads frames of the log in `dir`, verified.
pub fn disk_read(disk: SharedDisk, dir: &Path, identity: Identity, development: bool) -> DiskRead {
    let reader = LogReader::on(disk, dir, identity, development);
    let state = RefCell::new((reader, AlignedBuf::new(0)));
    Box::new(move |place: Place, out: &mut Vec<u8>| {
        let (reader, buffer) = &mut *state.borrow_mut();
        let place = chainring_storage::Place { at: place.at, bytes: place.bytes };
        let (_, frame) = reader.read(place, buffer).map_err(|error| error.to_string())?;
        out.clear();
        out.extend_from_slice(frame);
        Ok(())
    })
}
