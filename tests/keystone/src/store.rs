//! A xenstored for tests: as much of the protocol as building a domain and its devices needs, with a switch that makes the
//! n-th request fail.
//!
//! It runs on a thread of its own behind a socket pair; the toolstack's real client talks to it. A watch fires once, when it
//! is set: whatever happens afterwards happens in answer to a request of the same client, before that request's answer.

use crate::backends::{self, Backends};
use libxc::xenstore::Client;
use public_abi::io::xs_wire::{XsMessage, XsdSockmsg};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use zerocopy::{FromBytes, IntoBytes};

/// The nodes, and the domains that were introduced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// Values by path.
    pub nodes: BTreeMap<String, Vec<u8>>,
    /// Numbers of domains.
    pub introduced: BTreeSet<String>,
}

impl Tree {
    /// A node's value as text.
    pub fn text(&self, path: &str) -> Option<String> {
        self.nodes.get(path).map(|value| String::from_utf8_lossy(value).into_owned())
    }
}

/// What the daemon's thread and the test share.
#[derive(Default)]
struct State {
    tree: Tree,
    requests: u64,
    fail_at: Option<u64>,
    backends: Backends,
    consoles: bool,
}

/// A xenstored.
#[derive(Clone, Default)]
pub struct Store(Arc<Mutex<State>>);

impl Store {
    /// One that knows the control domain's name.
    pub fn new() -> Self {
        let store = Self::default();
        store.state().tree.nodes.insert("/local/domain/0/name".into(), b"Domain-0".to_vec());
        store
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of what there is.
    pub fn tree(&self) -> Tree {
        self.state().tree.clone()
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.state().requests
    }

    /// Refuses request number `n` from now, counted from 0, with ENOSPC.
    pub fn fail_request(&self, n: Option<u64>) {
        let mut state = self.state();
        state.fail_at = n.map(|n| state.requests + n);
    }

    /// Whether the request that is to be refused is still to come.
    pub fn failure_is_due(&self) -> bool {
        self.state().fail_at.is_some()
    }

    /// Chooses how the backends of devices behave.
    pub fn set_backends(&self, backends: Backends) {
        self.state().backends = backends;
    }

    /// Whether there is a xenconsoled, which gives each domain that is introduced a terminal.
    pub fn set_consoles(&self, consoles: bool) {
        self.state().consoles = consoles;
    }

    /// Listens at a place, so that clients whose connection is cut can connect again; until what this gives is dropped.
    pub fn listen(&self, place: PathBuf) -> Listener {
        let listener = UnixListener::bind(&place).expect("a socket can be made");
        let (store, is_over) = (self.clone(), Arc::new(AtomicBool::new(false)));
        let is_over_there = is_over.clone();
        let accept = move || {
            for socket in listener.incoming() {
                if is_over_there.load(Ordering::Relaxed) {
                    return;
                }
                let (store, socket) = (store.clone(), socket.expect("a connection"));
                thread::spawn(move || store.serve(socket));
            }
        };
        Listener { place, is_over, thread: Some(thread::spawn(accept)) }
    }

    /// A connection.
    pub fn client(&self) -> Client {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        let store = self.clone();
        thread::spawn(move || store.serve(theirs));
        Client::from_socket(ours)
    }

    /// Serves a client. Transactions are the real thing: a copy of the tree that replaces it at the end.
    fn serve(&self, mut socket: UnixStream) {
        let mut open: BTreeMap<u32, Tree> = BTreeMap::new();
        loop {
            let mut header = [0; 16];
            if socket.read_exact(&mut header).is_err() {
                return;
            }
            let header = XsdSockmsg::read_from_bytes(&header).expect("sixteen bytes");
            let mut payload = vec![0; header.len as usize];
            socket.read_exact(&mut payload).expect("its payload");
            let kind = XsMessage::try_from(header.kind).expect("a known request");
            let mut state = self.state();
            let number = state.requests;
            state.requests += 1;
            let State { tree, backends, fail_at, consoles, .. } = &mut *state;
            let answer = if fail_at.take_if(|at| *at == number).is_some() {
                Err("ENOSPC")
            } else {
                let answer = answer(tree, &mut open, kind, header.tx_id, &payload);
                backends::react(&mut tree.nodes, *backends);
                if *consoles && matches!(kind, XsMessage::Introduce | XsMessage::TransactionEnd) {
                    make_terminals(tree);
                }
                answer
            };
            drop(state);
            let fired = (kind == XsMessage::Watch && answer.is_ok()).then_some(payload);
            let (kind, payload) = match answer {
                Ok(payload) => (kind, payload),
                Err(name) => (XsMessage::Error, format!("{name}\0").into_bytes()),
            };
            let mut bytes = message(kind, &header, &payload);
            if let Some(path_and_token) = fired {
                let of_nobody = XsdSockmsg { req_id: 0, tx_id: 0, ..header };
                bytes.extend(message(XsMessage::WatchEvent, &of_nobody, &path_and_token));
            }
            if socket.write_all(&bytes).is_err() {
                return;
            }
        }
    }
}

/// A place where a xenstored listens.
pub struct Listener {
    place: PathBuf,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// A client that connects again when its connection is cut.
    pub fn client(&self) -> Client {
        Client::connect(&self.place).expect("somebody listens")
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // One last connection, for it to look.
        if UnixStream::connect(&self.place).is_ok()
            && let Some(thread) = self.thread.take()
        {
            // Whether it ended well is no matter at the end.
            drop(thread.join());
        }
    }
}

/// What xenconsoled does for the domains that were introduced.
fn make_terminals(tree: &mut Tree) {
    for domain in &tree.introduced {
        let tty = tree.nodes.get_mut(&format!("/local/domain/{domain}/console/tty"));
        if let Some(tty) = tty.filter(|tty| tty.is_empty()) {
            *tty = format!("/dev/pts/{domain}").into_bytes();
        }
    }
}

fn message(kind: XsMessage, header: &XsdSockmsg, payload: &[u8]) -> Vec<u8> {
    let header = XsdSockmsg { kind: kind.number(), len: payload.len() as u32, ..*header };
    [header.as_bytes(), payload].concat()
}

type Reply = Result<Vec<u8>, &'static str>;

fn answer(tree: &mut Tree, open: &mut BTreeMap<u32, Tree>, kind: XsMessage, tx: u32, payload: &[u8]) -> Reply {
    let end = payload.iter().position(|&byte| byte == 0).unwrap_or(payload.len());
    let path = String::from_utf8_lossy(&payload[..end]).into_owned();
    let done = Ok(b"OK\0".to_vec());
    match kind {
        XsMessage::TransactionStart => {
            let number = open.keys().next_back().map_or(1, |last| last + 1);
            open.insert(number, tree.clone());
            return Ok(format!("{number}\0").into_bytes());
        }
        XsMessage::TransactionEnd => {
            let changed = open.remove(&tx).ok_or("ENOENT")?;
            if payload == b"T\0" {
                *tree = changed;
            }
            return done;
        }
        XsMessage::Introduce => {
            tree.introduced.insert(path);
            return done;
        }
        XsMessage::Release => {
            tree.introduced.remove(&path);
            return done;
        }
        XsMessage::Watch | XsMessage::Unwatch => return done,
        _ => {}
    }
    let tree = if tx == 0 { tree } else { open.get_mut(&tx).ok_or("ENOENT")? };
    let below = format!("{path}/");
    let exists = tree.nodes.keys().any(|node| *node == path || node.starts_with(&below));
    match kind {
        XsMessage::Read => return tree.nodes.get(&path).cloned().ok_or("ENOENT"),
        XsMessage::Write => drop(tree.nodes.insert(path, payload[end + 1..].to_vec())),
        XsMessage::Mkdir => drop(tree.nodes.entry(path).or_default()),
        XsMessage::Rm => tree.nodes.retain(|node, _| *node != path && !node.starts_with(&below)),
        XsMessage::Directory if !exists => return Err("ENOENT"),
        XsMessage::Directory => {
            let child = |node: &String| {
                node.strip_prefix(&below).map(|rest| rest.split('/').next().unwrap_or_default().to_string())
            };
            let children: BTreeSet<String> = tree.nodes.keys().filter_map(child).collect();
            return Ok(children.iter().flat_map(|child| format!("{child}\0").into_bytes()).collect());
        }
        XsMessage::SetPerms if exists => {}
        XsMessage::SetPerms => return Err("ENOENT"),
        _ => return Err("ENOSYS"),
    }
    done
}
