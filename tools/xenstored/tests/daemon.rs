//! The program itself, on a machine without Xen: programs on its socket, a kill, many clients and one that does not read.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libxc::xenstore::wire::{self, Reader};
use libxc::xenstore::{Client, Permission, Tx};
use public_abi::io::xs_wire::XsMessage;

/// A daemon in a folder of its own.
struct Daemon {
    folder: PathBuf,
    child: Child,
}

impl Daemon {
    fn start(name: &str) -> Daemon {
        let folder = std::env::temp_dir().join(format!("xenstored-test-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&folder));
        let child = spawn(&folder);
        Daemon { folder, child }
    }

    /// Connects; waits until the daemon listens.
    fn socket(&self) -> UnixStream {
        let limit = Instant::now() + Duration::from_secs(60);
        loop {
            match UnixStream::connect(self.folder.join("socket")) {
                Ok(socket) => return socket,
                Err(error) => assert!(Instant::now() < limit, "the daemon does not listen: {error}"),
            }
            std::thread::yield_now();
        }
    }

    fn client(&self) -> Client {
        Client::from_socket(self.socket())
    }

    /// Kills it as `kill -9` does, and starts another.
    fn restart(&mut self) {
        self.child.kill().expect("is ours");
        self.child.wait().expect("is ours");
        self.child = spawn(&self.folder);
    }

    /// Memory in KiB.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

fn spawn(folder: &std::path::Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_xenstored"))
        .args(["-D", "-N", "--run-dir"])
        .arg(folder)
        .stderr(Stdio::null())
        .spawn()
        .expect("the program is there")
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

#[test]
fn a_killed_daemon_has_a_successor_that_knows_the_same() {
    let mut daemon = Daemon::start("kill");
    let client = daemon.client();
    for round in 0..30 {
        client.write(Tx::NONE, &format!("/a/{round}"), "value").expect("is written");
    }
    client.remove(Tx::NONE, "/a/3").expect("is removed");
    client.set_permissions(Tx::NONE, "/a", &[Permission { domain: 0, letter: 'r' }]).expect("are set");
    client.transaction(|tx| client.write(tx, "/in/a/transaction", "done")).expect("is committed");
    for round in 0..20 {
        let client = daemon.client();
        client.write(Tx::NONE, &format!("/round/{round}"), &format!("{round}")).expect("is written");
        // What was answered is there after the kill, which comes at once.
        daemon.restart();
        let client = daemon.client();
        assert_eq!(client.read(Tx::NONE, &format!("/round/{round}")).expect("answers"), Some(round.to_string()));
    }
    let client = daemon.client();
    assert_eq!(client.children(Tx::NONE, "/a").expect("answers").map(|names| names.len()), Some(29));
    assert_eq!(client.read(Tx::NONE, "/in/a/transaction").expect("answers").as_deref(), Some("done"));
    assert_eq!(client.read(Tx::NONE, "/a/3").expect("answers"), None);
}

#[test]
fn many_clients_and_nodes_and_one_that_does_not_read() {
    let daemon = Daemon::start("many");
    // This one watches everything and asks for much, and reads nothing.
    let mut deaf = daemon.socket();
    deaf.set_nonblocking(true).expect("can be set");
    let watch = wire::encode(XsMessage::Watch, 1, 0, &[b"/\0", &[b't'; 2000], b"\0"]).expect("is short");
    deaf.write_all(&watch).expect("there is room");
    let clients: Vec<Client> = (0..200).map(|_| daemon.client()).collect();
    for client in clients.iter().step_by(10) {
        client.watch("/n", "t").expect("is registered");
    }
    for number in 0..10_000 {
        let client = &clients[number % clients.len()];
        client.write(Tx::NONE, &format!("/n/{}/{number}", number % 100), "value").expect("is written");
    }
    // Whoever reads hears everything.
    let mut events = 0;
    while clients[10].next_event(Some(Duration::from_millis(0))).expect("is open").is_some() {
        events += 1;
    }
    assert_eq!(events, 10_001, "the first event and all changes");
    assert_eq!(clients[0].children(Tx::NONE, "/n/7").expect("answers").map(|names| names.len()), Some(100));
    let memory = daemon.memory();
    assert!(memory < 64 << 10, "{memory} KiB");
}

#[test]
fn bad_messages_end_their_connection_only() {
    let daemon = Daemon::start("bad");
    let client = daemon.client();
    client.write(Tx::NONE, "/a", "1").expect("is written");
    let mut bad = daemon.socket();
    bad.write_all(&[2, 1, 0, 4097].map(u32::to_le_bytes).concat()).expect("is open");
    let mut rest = Vec::new();
    assert_eq!(bad.read_to_end(&mut rest).expect("is closed by the daemon"), 0);
    assert_eq!(client.read(Tx::NONE, "/a").expect("answers").as_deref(), Some("1"));
    // Half a message, then the end.
    let mut half = daemon.socket();
    half.write_all(&[2, 0, 0]).expect("is open");
    drop(half);
    // Two requests in one write are two answers, in order.
    let mut two = daemon.socket();
    let request = |number| wire::encode(XsMessage::Read, number, 0, &[b"/a\0"]).expect("is short");
    two.write_all(&[request(1), request(2)].concat()).expect("is open");
    let mut reader = Reader::default();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let mut bytes = [0; 64];
        let count = two.read(&mut bytes).expect("answers");
        assert!(count > 0, "the daemon closed the connection");
        reader.push(&bytes[..count]);
        while let Some(message) = reader.take().expect("is short") {
            seen.push(message.header.req_id);
        }
    }
    assert_eq!(seen, [1, 2]);
}

#[test]
fn into_the_background_and_only_once() {
    let folder = std::env::temp_dir().join(format!("xenstored-test-back-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir_all(&folder).expect("has room");
    let pid_file = folder.join("pid");
    let start = || {
        Command::new(env!("CARGO_BIN_EXE_xenstored"))
            .args(["-D", "--run-dir"])
            .arg(&folder)
            .arg("--pid-file")
            .arg(&pid_file)
            .arg("--trace-file")
            .arg(folder.join("trace"))
            .output()
            .expect("the program is there")
    };
    let first = start();
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let pid: i32 = std::fs::read_to_string(&pid_file).expect("is there").trim().parse().expect("a number");
    let client = Client::from_socket(UnixStream::connect(folder.join("socket")).expect("listens when start is over"));
    client.write(Tx::NONE, "/a", "1").expect("is written");
    let second = start();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && said.contains("another xenstored"), "{said}");
    assert_eq!(client.read(Tx::NONE, "/a").expect("answers").as_deref(), Some("1"), "the first one goes on");
    let trace = std::fs::read_to_string(folder.join("trace")).expect("is there");
    assert!(trace.contains("WRITE tx 0 /a 1"), "{trace}");
    let pid = rustix::process::Pid::from_raw(pid).expect("is one");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("is ours");
    drop(std::fs::remove_dir_all(&folder));
}
