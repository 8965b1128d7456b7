//! Requests that are compressed with gzip are inflated here, a slice at a time.
//!
//! Some kilobytes may hold megabytes, and the transport layer would inflate them in one go, on a thread that serves other
//! connections meanwhile. Here each slice is followed by a turn of whoever else has something to do. What comes out is counted
//! for its caller while it comes out, and the transport layer gets a message that is not compressed.

use std::collections::VecDeque;
use std::io::{self, BufRead, ErrorKind, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use flate2::bufread::GzDecoder;
use http_body::{Body as HttpBody, Frame, SizeHint};
use maxhost_model::{Code, Problem};
use tonic::Status;

use crate::budget::Share;
use crate::status::to_status;

/// What lies before a message: whether it is compressed, and how long it is (gRPC over HTTP/2, "Length-Prefixed-Message").
pub(crate) const PREFIX: usize = 5;
/// The header that says how a compressed message is compressed, and the one way that is known here.
pub(crate) const ENCODING: &str = "grpc-encoding";
pub(crate) const GZIP: &[u8] = b"gzip";
/// What is read, and what is made of it, in one turn: bytes.
const SLICE: usize = 64 << 10;

/// The body of a request of one message: if that is compressed, what is in it.
pub(crate) struct Inflated<B> {
    body: B,
    share: Arc<Share>,
    /// Bytes that the message may have.
    limit: usize,
    state: State,
}

enum State {
    /// What has come of the message.
    Coming(BytesMut),
    Inflating(Box<Inflating>),
    /// What is to be given: the message, piece by piece.
    Giving(VecDeque<Bytes>),
    /// Nothing is to be done with what comes.
    Passing,
}

struct Inflating {
    decoder: GzDecoder<Fed>,
    pieces: VecDeque<Bytes>,
    bytes: usize,
}

/// Compressed bytes, of which no more can be read in one turn than so many.
struct Fed {
    bytes: Bytes,
    allowed: usize,
}

impl BufRead for Fed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self.bytes.get(..self.allowed.min(self.bytes.len())) {
            Some(&[]) if !self.bytes.is_empty() => Err(ErrorKind::WouldBlock.into()),
            readable => Ok(readable.unwrap_or_default()),
        }
    }

    fn consume(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes.len());
        drop(self.bytes.split_to(bytes));
        self.allowed = self.allowed.saturating_sub(bytes);
    }
}

impl Read for Fed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?.read(into)?;
        self.consume(bytes);
        Ok(bytes)
    }
}

impl Inflating {
    fn new(bytes: Bytes) -> Inflating {
        // The decoder would read the head of the format at once: not before it is its turn.
        let decoder = GzDecoder::new(Fed { bytes, allowed: 0 });
        Inflating { decoder, pieces: VecDeque::new(), bytes: 0 }
    }

    /// Inflates a slice. True if there is no more.
    ///
    /// # Errors
    /// It is no gzip.
    fn turn(&mut self) -> io::Result<bool> {
        self.decoder.get_mut().allowed = SLICE;
        let mut piece = BytesMut::zeroed(SLICE);
        let mut filled = 0;
        let mut is_over = false;
        while filled < SLICE && !is_over {
            match self.decoder.read(&mut piece[filled..]) {
                Ok(0) => is_over = true,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.bytes += filled;
        match filled {
            0 => {}
            SLICE => self.pieces.push_back(piece.freeze()),
            // A small message holds no large piece of memory.
            _ => self.pieces.push_back(Bytes::copy_from_slice(&piece[..filled])),
        }
        Ok(is_over)
    }
}

impl<B> Inflated<B> {
    /// What comes of this body, which has one message of at most so many bytes and is counted for this share.
    pub(crate) fn new(body: B, share: Arc<Share>, limit: usize) -> Inflated<B> {
        Inflated { body, share, limit, state: State::Coming(BytesMut::new()) }
    }

    /// What has come, if it is to be inflated now or needs not be inflated.
    fn look(came: &mut BytesMut, limit: usize) -> Option<State> {
        let &[flag, a, b, c, d, ..] = &came[..] else { return None };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if flag != 1 || length > limit {
            // The transport layer knows what to do with it, or to say of it.
            return Some(State::Giving(VecDeque::from([came.split().freeze()])));
        }
        let end = PREFIX + length;
        (came.len() >= end).then(|| {
            let message = came.split_to(end).freeze().slice(PREFIX..);
            State::Inflating(Box::new(Inflating::new(message)))
        })
    }

    /// Inflates a slice, and counts it. What is to be given if there is no more.
    fn inflate(&self, inflating: &mut Inflating) -> Result<Option<VecDeque<Bytes>>, Status> {
        let before = inflating.bytes;
        // In the words of the transport layer: so it is explained as what that finds.
        let is_over = inflating
            .turn()
            .map_err(|error| Status::internal(format!("Error decompressing: {error}, while sending request")))?;
        if inflating.bytes > self.limit {
            let text = format!("the request is too large: behind gzip it has more than {} bytes", self.limit);
            return Err(to_status(Problem::new(Code::MessageTooLarge, text)));
        }
        self.share.take(inflating.bytes - before).map_err(to_status)?;
        if !is_over {
            return Ok(None);
        }
        let mut prefix = BytesMut::with_capacity(PREFIX);
        prefix.put_u8(0);
        prefix.put_u32(u32::try_from(inflating.bytes).unwrap_or(u32::MAX));
        inflating.pieces.push_front(prefix.freeze());
        Ok(Some(std::mem::take(&mut inflating.pieces)))
    }
}

impl<B> HttpBody for Inflated<B>
where
    B: HttpBody<Data = Bytes, Error = Status> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let limit = self.limit;
        loop {
            match std::mem::replace(&mut self.state, State::Passing) {
                State::Passing => return Pin::new(&mut self.body).poll_frame(context),
                State::Giving(mut pieces) => {
                    if let Some(piece) = pieces.pop_front() {
                        self.state = State::Giving(pieces);
                        return Poll::Ready(Some(Ok(Frame::data(piece))));
                    }
                }
                State::Coming(mut came) => {
                    if let Some(next) = Inflated::<B>::look(&mut came, limit) {
                        self.state = next;
                        continue;
                    }
                    match Pin::new(&mut self.body).poll_frame(context) {
                        Poll::Pending => {
                            self.state = State::Coming(came);
                            return Poll::Pending;
                        }
                        Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                            Ok(data) => {
                                came.put(data);
                                self.state = State::Coming(came);
                            }
                            // Behind trailers comes nothing.
                            Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                        },
                        Poll::Ready(None) if !came.is_empty() => {
                            self.state = State::Giving(VecDeque::from([came.freeze()]));
                        }
                        ended => return ended,
                    }
                }
                State::Inflating(mut inflating) => match self.inflate(&mut inflating) {
                    Ok(Some(pieces)) => self.state = State::Giving(pieces),
                    Ok(None) => {
                        self.state = State::Inflating(inflating);
                        // Whoever else waits for the thread has his turn first.
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Err(status) => return Poll::Ready(Some(Err(status))),
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Passing) && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::budget::{Budget, Limits};

    const MIB: usize = 1 << 20;

    /// A body that comes in these parts.
    struct Parts(VecDeque<Bytes>);

    impl HttpBody for Parts {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.pop_front().map(|part| Ok(Frame::data(part))))
        }
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn message(flag: u8, bytes: &[u8]) -> Vec<u8> {
        [&[flag][..], &(bytes.len() as u32).to_be_bytes(), bytes].concat()
    }

    fn body(bytes: &[u8], part: usize, limit: usize) -> Inflated<Parts> {
        let limits = Limits { requests: 1, bytes: 64 * MIB, largest: limit };
        let share = Budget::new(limits).admit("/maxhost.v1.FlowService/StartFlow").unwrap();
        let parts = bytes.chunks(part).map(Bytes::copy_from_slice).collect();
        Inflated::new(Parts(parts), Arc::new(share), limit)
    }

    /// What one poll after the other has inflated.
    fn inflated_so_far(body: &Inflated<Parts>) -> Option<usize> {
        match &body.state {
            State::Inflating(inflating) => Some(inflating.bytes),
            State::Coming(_) => Some(0),
            State::Giving(_) | State::Passing => None,
        }
    }

    /// All that comes out, and how many times the thread was given away.
    fn read(body: &mut Inflated<Parts>) -> (Result<Vec<u8>, Status>, usize) {
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(Arc::clone(&woken));
        let (mut all, mut pending) = (Vec::new(), 0);
        loop {
            let before = inflated_so_far(body).unwrap_or_default();
            let polled = Pin::new(&mut *body).poll_frame(&mut Context::from_waker(&waker));
            if let Some(now) = inflated_so_far(body) {
                assert!(now - before <= SLICE, "{} bytes in one poll", now - before);
            }
            match polled {
                Poll::Ready(None) => return (Ok(all), pending),
                Poll::Ready(Some(Ok(frame))) => all.extend_from_slice(frame.data_ref().unwrap()),
                Poll::Ready(Some(Err(status))) => return (Err(status), pending),
                Poll::Pending => {
                    pending += 1;
                    assert_eq!(woken.0.load(Ordering::Relaxed), pending, "it is polled again");
                }
            }
        }
    }

    #[test]
    fn ten_mebibytes_of_zeros_take_a_bounded_slice_of_each_turn() {
        let zeros = vec![0; 10 * MIB];
        let packed = message(1, &gzip(&zeros));
        assert!(packed.len() < SLICE, "all of it has come at once: {} bytes", packed.len());
        let (read, turns) = read(&mut body(&packed, packed.len(), 11 * MIB));
        assert!(read.unwrap() == message(0, &zeros));
        assert!(turns >= 10 * MIB / SLICE, "the thread was given away {turns} times");
    }

    #[test]
    fn what_is_read_in_one_turn_is_bounded_too() {
        // Ten million bytes of empty blocks, out of which nothing comes (RFC 1951, 3.2.4).
        let empty = gzip(b"");
        let blocks = [0, 0, 0, 255, 255].repeat(2_000_000);
        let tail = [1, 0, 0, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0];
        let packed = message(1, &[&empty[..10], &blocks[..], &tail[..]].concat());
        let (read, turns) = read(&mut body(&packed, packed.len(), 11 * MIB));
        assert_eq!(read.unwrap(), message(0, b""));
        assert!(turns >= blocks.len() / SLICE, "the thread was given away {turns} times");
    }

    #[test]
    fn a_message_is_inflated_however_it_is_cut() {
        let text = b"abc".repeat(50_000);
        let packed = message(1, &gzip(&text));
        for part in [1, 4, 5, 6, 100, packed.len()] {
            let (read, _) = read(&mut body(&packed, part, MIB));
            assert!(read.unwrap() == message(0, &text), "in parts of {part}");
        }
        assert_eq!(read(&mut body(&message(1, &gzip(b"")), 3, MIB)).0.unwrap(), message(0, b""));
    }

    #[test]
    fn what_is_not_compressed_or_not_whole_is_passed_on_as_it_is() {
        let whole = gzip(b"abc");
        let cut = &message(1, &whole)[..whole.len()];
        let too_long = [&[1, 255, 255, 255, 255][..], b"abc"].concat();
        for bytes in [&message(0, b"abc")[..], &message(7, b"abc"), &[], &[1, 0], cut, &too_long] {
            for part in [1, 3, 100] {
                let (read, turns) = read(&mut body(bytes, part, MIB));
                assert_eq!((&*read.unwrap(), turns), (bytes, 0));
            }
        }
    }

    #[test]
    fn what_is_too_large_or_broken_is_refused() {
        let at_limit = message(1, &gzip(&vec![7; MIB]));
        assert!(read(&mut body(&at_limit, 100, MIB)).0.is_ok());
        let refused = read(&mut body(&at_limit, 100, MIB - 1)).0.unwrap_err();
        assert_eq!(crate::status::to_problem(&refused).code, Code::MessageTooLarge);
        let mut broken = gzip(&vec![7; MIB]);
        let last = broken.len() - 5;
        broken[last] ^= 1;
        for packed in [&b"no gzip"[..], &broken, &gzip(b"abc")[..15], b""] {
            let refused = read(&mut body(&message(1, packed), 100, MIB)).0.unwrap_err();
            assert_eq!(refused.code(), tonic::Code::Internal, "{refused:?}");
        }
    }

    #[test]
    fn what_comes_out_is_counted_for_its_caller() {
        let packed = message(1, &gzip(&vec![0; 10 * MIB]));
        let limits = Limits { requests: 1, bytes: MIB, largest: MIB };
        let budget = Budget::new(limits);
        let share = budget.admit("/maxhost.v1.FlowService/StartFlow").unwrap();
        let parts = VecDeque::from([Bytes::from(packed)]);
        let mut body = Inflated::new(Parts(parts), Arc::new(share), 11 * MIB);
        let refused = read(&mut body).0.unwrap_err();
        assert_eq!(crate::status::to_problem(&refused).code, Code::Overloaded);
    }
}
