//! Bodies: by length, or in chunks; put together in one buffer that the budget paid for.
//!
//! Invariants: nothing is reserved on the word of a header alone beyond the body's limit; chunk
//! sizes and extensions are bounded; a body slower than [`BYTES_PER_S_MIN`] is given up.

use super::head::Framing;
use super::server::{Connection, Fault};
use super::{Permit, Response};
use futures_lite::{AsyncRead, AsyncWrite};
use std::time::{Duration, Instant};

/// A body that comes slower than this, beyond the grace of one pause, is given up.
pub const BYTES_PER_S_MIN: u64 = 64 << 10;
/// A body with more to come than this is read where it is to lie.
const DIRECT_BYTES: usize = 256 << 10;
/// Longest line of a chunk's size, and all trailers, bytes.
const CHUNK_LINE_MAX: usize = 256;
const TRAILERS_MAX: usize = 4 << 10;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Reads the body of a request.
    pub(super) async fn read_body(
        &mut self,
        framing: Framing,
        permit: &mut Permit,
    ) -> Result<Vec<u8>, Fault> {
        self.body_began = Some(Instant::now());
        self.body_bytes = 0;
        let mut body = Vec::new();
        match framing {
            Framing::Length(length) => {
                self.cover(permit, length)?;
                body.reserve_exact(length as usize);
                self.read_into(&mut body, length).await?;
            }
            Framing::Chunked => self.read_chunks(&mut body, permit).await?,
        }
        self.body_began = None;
        Ok(body)
    }

    /// Pays for a body of `bytes`.
    pub(super) fn cover(&self, permit: &mut Permit, bytes: u64) -> Result<(), Fault> {
        let limit = u64::from(self.limits.http_body_bytes);
        if bytes > limit {
            let message = format!("a body has at most {limit} bytes; send it in parts");
            return Err(Fault::answer(Response::error(413, "body_too_large", &message)));
        }
        if !permit.cover(bytes) {
            let message = "no memory for the body now; nothing was appended";
            let response = Response::error(503, "busy", message).with("Retry-After", 1);
            return Err(Fault::Answer(Box::new(response.closing()), false));
        }
        Ok(())
    }

    async fn read_chunks(&mut self, body: &mut Vec<u8>, permit: &mut Permit) -> Result<(), Fault> {
        loop {
            let line = self.read_line(CHUNK_LINE_MAX).await?;
            let size = chunk_size(&line).ok_or_else(|| bad("not a chunk size"))?;
            if size == 0 {
                break;
            }
            let whole = (body.len() as u64).saturating_add(size);
            self.cover(permit, whole)?;
            if whole > body.capacity() as u64 {
                // Doubling, so that many small chunks are not copied again and again; the
                // doubled buffer is paid for, too.
                let limit = u64::from(self.limits.http_body_bytes);
                let room = (whole * 2).max(64 << 10).min(limit);
                let room = if permit.cover(room.max(whole)) { room.max(whole) } else { whole };
                body.reserve_exact(room as usize - body.len());
            }
            self.read_into(body, size).await?;
            if !self.read_line(CHUNK_LINE_MAX).await?.is_empty() {
                return Err(bad("a chunk is longer than its size"));
            }
        }
        let mut trailers = 0;
        loop {
            let line = self.read_line(CHUNK_LINE_MAX).await?;
            trailers += line.len();
            if line.is_empty() {
                return Ok(());
            }
            if trailers > TRAILERS_MAX {
                return Err(bad("too many trailers"));
            }
        }
    }

    /// Appends exactly `bytes` of the connection to `body`.
    async fn read_into(&mut self, body: &mut Vec<u8>, bytes: u64) -> Result<(), Fault> {
        let mut missing = bytes as usize;
        while missing > 0 {
            if self.buffered().is_empty() && missing >= DIRECT_BYTES {
                let start = body.len();
                body.resize(start + missing.min(DIRECT_BYTES), 0);
                let read = self.read_direct(&mut body[start..]).await;
                body.truncate(start + read.as_ref().unwrap_or(&0));
                missing -= read?;
                continue;
            }
            if self.buffered().is_empty() {
                self.fill().await?;
            }
            let take = missing.min(self.buffered().len());
            body.extend_from_slice(&self.buffered()[..take]);
            self.consume(take);
            missing -= take;
        }
        Ok(())
    }

    /// A line without its CRLF.
    async fn read_line(&mut self, limit: usize) -> Result<Vec<u8>, Fault> {
        loop {
            let end = memchr::memchr(b'\n', self.buffered());
            if end.unwrap_or(self.buffered().len()) > limit {
                return Err(bad("a line of a chunk is too long"));
            }
            if let Some(end) = end {
                let line = self.buffered()[..end].strip_suffix(b"\r").map(<[u8]>::to_vec);
                self.consume(end + 1);
                return line.ok_or_else(|| bad("a line of a chunk does not end in CRLF"));
            }
            self.fill().await?;
        }
    }

    /// How long the next byte of the body may take.
    pub(super) fn body_patience(&self, pause: Duration) -> Duration {
        let Some(began) = self.body_began else { return pause };
        let earned = Duration::from_secs(self.body_bytes / BYTES_PER_S_MIN);
        (pause + earned).saturating_sub(began.elapsed()).min(pause)
    }
}

/// Hexadecimal, then perhaps extensions.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii();
    let hex = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| hex)?;
    u64::from_str_radix(digits, 16).ok()
}

fn bad(message: &str) -> Fault {
    Fault::answer(Response::error(400, "bad_request", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_sizes() {
        for (line, size) in
            [("0", Some(0)), ("fF", Some(255)), ("10;a=b", Some(16)), ("7 ", Some(7))]
        {
            assert_eq!(chunk_size(line.as_bytes()), size);
        }
        for line in ["", ";", "-1", "+1", "0x1", "g", "11111111111111111"] {
            assert_eq!(chunk_size(line.as_bytes()), None, "{line}");
        }
    }
}
