//! A way between a host and its server that is cut on demand, at the moment that hurts.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// What happens to the next bytes that go to the server.
const PASS: u8 = 0;
/// They arrive, and the answer does not.
const SWALLOW_ANSWER: u8 = 1;
/// They do not arrive.
const SWALLOW_QUESTION: u8 = 2;

#[derive(Debug, Default)]
struct State {
    next: AtomicU8,
    cuts: AtomicU32,
}

/// A proxy on loopback.
#[derive(Debug)]
pub struct Proxy {
    pub port: u16,
    state: Arc<State>,
}

impl Proxy {
    pub fn new(server: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                let state = shared.clone();
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || forth(from, to, &state));
                std::thread::spawn(move || pump(server, client));
            }
        });
        Proxy { port, state }
    }

    /// The answer to whatever is asked next gets lost, and the connection with it.
    pub fn lose_next_answer(&self) {
        self.state.next.store(SWALLOW_ANSWER, Ordering::SeqCst);
    }

    /// Whatever is asked next gets lost.
    pub fn lose_next_question(&self) {
        self.state.next.store(SWALLOW_QUESTION, Ordering::SeqCst);
    }

    /// Connections that were cut.
    pub fn cuts(&self) -> u32 {
        self.state.cuts.load(Ordering::SeqCst)
    }
}

fn forth(mut client: TcpStream, mut server: TcpStream, state: &State) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length) = client.read(&mut buffer) {
        if length == 0 {
            break;
        }
        match state.next.swap(PASS, Ordering::SeqCst) {
            PASS => {}
            SWALLOW_QUESTION => {
                state.cuts.fetch_add(1, Ordering::SeqCst);
                break;
            }
            _ => {
                // Nothing goes back any more, and the server gets the whole of it before the connection ends.
                let _ = client.shutdown(Shutdown::Write);
                let _ = server.write_all(&buffer[..length]);
                std::thread::sleep(std::time::Duration::from_millis(30));
                state.cuts.fetch_add(1, Ordering::SeqCst);
                break;
            }
        }
        if server.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
