//! Random requests of several clients against a model that is simple enough to be right: a map from paths to values and permissions,
//! and transactions that are done again from their list of requests.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use XsMessage as M;

/// A node of the model: value and permissions.
type Node = (String, Vec<(char, u16)>);
/// A request: what, and its payload.
type Request = (XsMessage, String);

/// The model of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Model(BTreeMap<String, Node>);

fn above(path: &str) -> String {
    match path.rfind('/') {
        Some(0) | None => "/".into(),
        Some(at) => path[..at].into(),
    }
}

impl Model {
    fn may(&self, who: u16, path: &str, letter: char) -> bool {
        let (_, permissions) = &self.0[path];
        let named = permissions[1..].iter().find(|(_, domain)| *domain == who).unwrap_or(&permissions[0]);
        who == 0 || permissions[0].1 == who || named.0 == 'b' || named.0 == letter
    }

    /// What the specification says to a request.
    fn ask(&mut self, who: u16, (kind, payload): &Request) -> Reply {
        let (path, rest) = payload.split_once('\0').expect("a path");
        let wanted = if matches!(kind, M::Read | M::Directory | M::GetPerms) { 'r' } else { 'w' };
        let mut nearest = path.to_owned();
        while !self.0.contains_key(&nearest) {
            nearest = above(&nearest);
        }
        if !self.may(who, &nearest, wanted) {
            return Err("EACCES".into());
        }
        let exists = nearest == path;
        let below = format!("{}/", path.trim_end_matches('/'));
        match kind {
            M::Rm if path == "/" => unreachable!("not among the requests"),
            M::Rm => {
                if !exists && nearest != above(path) {
                    return Err("ENOENT".into());
                }
                self.0.retain(|node, _| node != path && !node.starts_with(&below));
            }
            M::Write | M::Mkdir => {
                let mut missing = path.to_owned();
                let mut permissions = self.0[&nearest].1.clone();
                if who != 0 {
                    permissions[0].1 = who;
                }
                while missing != nearest {
                    self.0.insert(missing.clone(), (String::new(), permissions.clone()));
                    missing = above(&missing);
                }
                if *kind == M::Write {
                    self.0.get_mut(path).expect("is there").0 = rest.into();
                }
            }
            _ if !exists => return Err("ENOENT".into()),
            M::Read => return Ok(self.0[path].0.clone()),
            M::GetPerms => {
                return Ok(self.0[path].1.iter().map(|(letter, domain)| format!("{letter}{domain}\0")).collect());
            }
            M::Directory => {
                let children = self.0.keys().filter_map(|node| node.strip_prefix(&below));
                return Ok(children
                    .filter(|rest| !rest.is_empty() && !rest.contains('/'))
                    .map(|rest| format!("{rest}\0"))
                    .collect());
            }
            M::SetPerms => {
                let entries: Vec<(char, u16)> = rest
                    .split_terminator('\0')
                    .map(|entry| (entry.chars().next().expect("a letter"), entry[1..].parse().expect("a number")))
                    .collect();
                let owner = self.0[path].1[0].1;
                if who != 0 && owner != who {
                    return Err("EACCES".into());
                }
                if who != 0 && entries[0].1 != who {
                    return Err("EPERM".into());
                }
                self.0.get_mut(path).expect("is there").1 = entries;
            }
            _ => unreachable!("not among the requests"),
        }
        Ok("OK\0".into())
    }
}

/// An open transaction of the model.
struct Open {
    start: Model,
    now: Model,
    log: Vec<(Request, Reply)>,
    /// How many changes the store had seen at the start.
    changes: usize,
}

/// What a client does next.
#[derive(Clone, Debug)]
enum Step {
    Ask(Request),
    AskInTransaction(Request),
    Begin,
    End(bool),
}

fn request() -> impl Strategy<Value = Request> {
    let path = prop::sample::select(vec!["/a", "/a/b", "/a/b/c", "/a/d", "/e", "/e/f", "/e-f"]);
    let kind = prop::sample::select(vec![
        M::Read,
        M::Read,
        M::Directory,
        M::GetPerms,
        M::Write,
        M::Write,
        M::Mkdir,
        M::Rm,
        M::SetPerms,
    ]);
    let extra = prop::sample::select(vec!["n0\0", "b3\0", "r3\0w4\0", "n4\0b3\0"]);
    (path, kind, 0..5, extra).prop_map(|(path, kind, value, permissions)| match kind {
        M::Write => (kind, format!("{path}\0{value}")),
        M::SetPerms => (kind, format!("{path}\0{permissions}")),
        M::Directory => (kind, format!("{}\0", above(path))),
        _ => (kind, format!("{path}\0")),
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => request().prop_map(Step::Ask),
        6 => request().prop_map(Step::AskInTransaction),
        2 => Just(Step::Begin),
        1 => any::<bool>().prop_map(Step::End),
    ]
}

/// The whole store as the control domain sees it.
fn dump(bench: &mut Bench) -> Model {
    let id = bench.socket();
    let (mut left, mut nodes) = (vec!["/".to_owned()], BTreeMap::new());
    while let Some(path) = left.pop() {
        let children = bench.ok(id, M::Directory, 0, &format!("{path}\0"));
        left.extend(children.split_terminator('\0').map(|name| format!("{}/{name}", path.trim_end_matches('/'))));
        let permissions = bench.ok(id, M::GetPerms, 0, &format!("{path}\0"));
        let entry = |entry: &str| (entry.chars().next().expect("a letter"), entry[1..].parse().expect("a number"));
        let value = bench.ok(id, M::Read, 0, &format!("{path}\0"));
        nodes.insert(path, (value, permissions.split_terminator('\0').map(entry).collect()));
    }
    bench.engine.disconnect(id);
    Model(nodes)
}

proptest! {
    /// Every answer is the model's. A transaction sees its start and its own doings; if it ends well, its requests, done now,
    /// would be answered the same; if nobody has changed anything meanwhile, it ends well.
    #[test]
    fn clients_and_their_transactions(steps in prop::collection::vec((0_usize..3, step()), 1..150)) {
        let mut bench = Bench::new();
        let clients = [(0, bench.socket()), (3, bench.domain(3)), (4, bench.domain(4))];
        let mut model = dump(&mut bench);
        let mut open: [Option<(String, Open)>; 3] = [None, None, None];
        let mut changes = 0;
        for (index, step) in steps {
            let (who, id) = clients[index];
            match step {
                Step::Ask(request) => {
                    let before = model.clone();
                    let expected = model.ask(who, &request);
                    prop_assert_eq!(bench.ask(id, request.0, 0, &request.1), expected, "{:?}", request);
                    let is_change = model != before || matches!(request.0, M::Write | M::SetPerms);
                    changes += usize::from(is_change);
                }
                Step::AskInTransaction(request) => {
                    if let Some((number, open)) = &mut open[index] {
                        let expected = open.now.ask(who, &request);
                        let tx = number.parse().expect("a number");
                        prop_assert_eq!(&bench.ask(id, request.0, tx, &request.1), &expected, "{:?}", request);
                        open.log.push((request, expected));
                    }
                }
                Step::Begin if open[index].is_none() => {
                    let number = bench.ok(id, M::TransactionStart, 0, "\0").trim_end_matches('\0').to_owned();
                    let (start, now) = (model.clone(), model.clone());
                    open[index] = Some((number, Open { start, now, log: Vec::new(), changes }));
                }
                Step::Begin => {}
                Step::End(commit) => {
                    let Some((number, open)) = open[index].take() else { continue };
                    let tx = number.parse().expect("a number");
                    let verdict = bench.ask(id, M::TransactionEnd, tx, if commit { "T\0" } else { "F\0" });
                    if !commit {
                        prop_assert_eq!(verdict, Ok("OK\0".into()));
                    } else if verdict.is_ok() {
                        for (request, answer) in &open.log {
                            prop_assert_eq!(&model.ask(who, request), answer, "not as if done now: {:?}", request);
                        }
                        changes += 1;
                    } else {
                        prop_assert_eq!(verdict, Err("EAGAIN".into()));
                        prop_assert!(changes != open.changes, "nobody was in the way since {:?}", open.start);
                    }
                }
            }
        }
        prop_assert_eq!(dump(&mut bench), model);
        prop_assert!(bench.engine.store.is_consistent());
        let before = bench.engine.clone();
        let mut after = Engine::restore(bench.records.clone());
        for (_, id) in after.introduced().into_iter().map(|(domain, known)| (domain, known.connection.expect("is there"))) {
            // The clients have taken all of it.
            let waiting = after.output(id).expect("is there").len();
            after.skip_output(id, waiting);
        }
        prop_assert!(after.knows_the_same(&before));
    }
}
