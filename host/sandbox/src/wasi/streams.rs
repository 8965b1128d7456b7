//! Standard output and standard error go to the flow's log. wasmtime-wasi serves the streams; after each write the log
//! takes what was written, so that its limits hold to the byte and its lines stand in the order in which they were made.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::cli::{stderr, stdout};
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, DynPollable, OutputStream, Pollable, StreamError, StreamResult,
};
use wasmtime_wasi_io::bindings::wasi::io::streams::{self, HostInputStream, HostOutputStream};

use crate::output::Stream;
use crate::state::{EndOfRun, RunState};

/// What a stream takes in one call, and how many zeroes it makes for a guest. Bytes.
const WRITE_ROOM: usize = 64 << 10;

/// What was written in the call that is being served: at most as much as the guest holds.
pub(super) type Written = Arc<Mutex<Vec<(Stream, Bytes)>>>;

/// A handle to one of the two streams.
struct Print {
    stream: Stream,
    written: Written,
}

#[async_trait]
impl Pollable for Print {
    async fn ready(&mut self) {}
}

impl OutputStream for Print {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.written.lock().push((self.stream, bytes));
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_ROOM)
    }
}

impl RunState {
    fn print_to(&mut self, stream: Stream) -> wasmtime::Result<Resource<DynOutputStream>> {
        let print: DynOutputStream = Box::new(Print { stream, written: self.wasi.written.clone() });
        Ok(self.wasi.table.push(print)?)
    }

    /// Hands what a call has written to the log, then answers the call.
    fn logged<T>(&mut self, answer: StreamResult<T>) -> StreamResult<T> {
        let written = std::mem::take(&mut *self.wasi.written.lock());
        for (stream, bytes) in written {
            self.write(stream, &bytes).map_err(StreamError::Trap)?;
        }
        answer
    }
}

impl stdout::Host for RunState {
    fn get_stdout(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.print_to(Stream::Out)
    }
}

impl stderr::Host for RunState {
    fn get_stderr(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.print_to(Stream::Err)
    }
}

impl streams::Host for RunState {
    fn convert_stream_error(&mut self, error: StreamError) -> wasmtime::Result<streams::StreamError> {
        streams::Host::convert_stream_error(&mut self.wasi.table, error)
    }
}

type Output = Resource<DynOutputStream>;

/// Refuses more bytes in one call than the stream has said that it takes. Interrupts and the budget of computing count calls,
/// so what one call does has a bound.
///
/// # Errors
/// A trap, as WASI says of a write without a permit (`wasi:io/streams`, `output-stream.write`).
fn permitted(bytes: usize) -> StreamResult<()> {
    if bytes <= WRITE_ROOM {
        return Ok(());
    }
    let reason = format!("writes {bytes} bytes at once to a stream that takes {WRITE_ROOM}");
    Err(StreamError::Trap(EndOfRun::Refused(reason).into()))
}

impl HostOutputStream for RunState {
    async fn drop(&mut self, stream: Output) -> wasmtime::Result<()> {
        HostOutputStream::drop(&mut self.wasi.table, stream).await
    }

    fn check_write(&mut self, stream: Output) -> StreamResult<u64> {
        self.wasi.table.check_write(stream)
    }

    fn write(&mut self, stream: Output, bytes: Vec<u8>) -> StreamResult<()> {
        permitted(bytes.len())?;
        let answer = HostOutputStream::write(&mut self.wasi.table, stream, bytes);
        self.logged(answer)
    }

    fn subscribe(&mut self, stream: Output) -> wasmtime::Result<Resource<DynPollable>> {
        HostOutputStream::subscribe(&mut self.wasi.table, stream)
    }

    async fn blocking_write_and_flush(&mut self, stream: Output, bytes: Vec<u8>) -> StreamResult<()> {
        permitted(bytes.len())?;
        let answer = self.wasi.table.blocking_write_and_flush(stream, bytes).await;
        self.logged(answer)
    }

    async fn blocking_write_zeroes_and_flush(&mut self, stream: Output, length: u64) -> StreamResult<()> {
        let answer = self.wasi.table.blocking_write_zeroes_and_flush(stream, length).await;
        self.logged(answer)
    }

    fn write_zeroes(&mut self, stream: Output, length: u64) -> StreamResult<()> {
        let answer = HostOutputStream::write_zeroes(&mut self.wasi.table, stream, length);
        self.logged(answer)
    }

    fn flush(&mut self, stream: Output) -> StreamResult<()> {
        HostOutputStream::flush(&mut self.wasi.table, stream)
    }

    async fn blocking_flush(&mut self, stream: Output) -> StreamResult<()> {
        self.wasi.table.blocking_flush(stream).await
    }

    fn splice(&mut self, to: Output, from: Resource<DynInputStream>, length: u64) -> StreamResult<u64> {
        let answer = self.wasi.table.splice(to, from, length);
        self.logged(answer)
    }

    async fn blocking_splice(&mut self, to: Output, from: Resource<DynInputStream>, length: u64) -> StreamResult<u64> {
        let answer = self.wasi.table.blocking_splice(to, from, length).await;
        self.logged(answer)
    }
}

type Input = Resource<DynInputStream>;

/// Standard input, which is at its end. There is no other.
impl HostInputStream for RunState {
    async fn drop(&mut self, stream: Input) -> wasmtime::Result<()> {
        HostInputStream::drop(&mut self.wasi.table, stream).await
    }

    fn read(&mut self, stream: Input, length: u64) -> StreamResult<Vec<u8>> {
        self.wasi.table.read(stream, length)
    }

    async fn blocking_read(&mut self, stream: Input, length: u64) -> StreamResult<Vec<u8>> {
        self.wasi.table.blocking_read(stream, length).await
    }

    fn skip(&mut self, stream: Input, length: u64) -> StreamResult<u64> {
        self.wasi.table.skip(stream, length)
    }

    async fn blocking_skip(&mut self, stream: Input, length: u64) -> StreamResult<u64> {
        self.wasi.table.blocking_skip(stream, length).await
    }

    fn subscribe(&mut self, stream: Input) -> wasmtime::Result<Resource<DynPollable>> {
        HostInputStream::subscribe(&mut self.wasi.table, stream)
    }
}
