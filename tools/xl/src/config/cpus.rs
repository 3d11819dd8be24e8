//! Lists of host CPUs: `"all"`, `"0-3,5,^1"`, `"nodes:0-1,^node:1"` (xl.cfg(5), `cpus`; also `xl vcpu-pin`).
//!
//! Which CPUs a node has, and which exist at all, only the host knows, so a list is kept as its steps and resolved when
//! the domain is built.

use std::fmt;

/// A list of CPUs as it was written: steps that add or remove, from left to right, starting with nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuSet {
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    add: bool,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    All,
    Cpus(u32, u32),
    Nodes(u32, u32),
}

/// CPU and node numbers must be below this; Xen's own limit (NR_CPUS) is at most 16383.
const LIMIT: u32 = 16384;

impl CpuSet {
    /// Reads a list.
    pub fn parse(text: &str) -> Result<CpuSet, String> {
        let steps: Result<Vec<_>, _> = text.split(',').filter(|part| !part.is_empty()).map(parse_step).collect();
        let steps = steps?;
        if steps.is_empty() {
            return Err("the list of CPUs is empty; \"all\" means every CPU".into());
        }
        Ok(CpuSet { steps })
    }

    /// The CPUs of the list, in order, on a host whose CPU `n` belongs to node `node_of[n]` (`None`: no such CPU).
    ///
    /// Numbers beyond `node_of` are left out. As in Xen, whose CPU maps have whole bytes, "all" and plain numbers may name
    /// CPUs that do not exist; a node has only those that do.
    pub fn resolve(&self, node_of: &[Option<u32>]) -> Vec<u32> {
        let mut set = vec![false; node_of.len()];
        for step in &self.steps {
            for ((cpu, member), node) in (0u32..).zip(&mut set).zip(node_of) {
                let hit = match step.what {
                    What::All => true,
                    What::Cpus(first, last) => (first..=last).contains(&cpu),
                    What::Nodes(first, last) => node.is_some_and(|node| (first..=last).contains(&node)),
                };
                if hit {
                    *member = step.add;
                }
            }
        }
        (0u32..).zip(set).filter(|&(_, member)| member).map(|(cpu, _)| cpu).collect()
    }
}

fn parse_step(part: &str) -> Result<Step, String> {
    let (add, rest) = match part.strip_prefix('^') {
        Some(rest) => (false, rest),
        None => (true, part),
    };
    let (nodes, rest) = match rest.strip_prefix("nodes:").or_else(|| rest.strip_prefix("node:")) {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    if rest == "all" {
        return if add { Ok(Step { add, what: What::All }) } else { Err("`^' and \"all\" cannot be combined".into()) };
    }
    let (first, last) = rest.split_once('-').unwrap_or((rest, rest));
    let (Some(first), Some(last)) = (index(first), index(last)) else {
        return Err(format!(
            "`{part}' is no CPU, range of CPUs, or node; write \"2\", \"0-3\", \"^1\", \"node:0\" or \"all\""
        ));
    };
    if first > last {
        return Err(format!("`{part}': the range is empty, its end lies before its start"));
    }
    let what = if nodes { What::Nodes(first, last) } else { What::Cpus(first, last) };
    Ok(Step { add, what })
}

fn index(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&number| digits && number < LIMIT)
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.steps.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            let not = if step.add { "" } else { "^" };
            write!(f, "{comma}{not}")?;
            match step.what {
                What::All => f.write_str("all")?,
                What::Cpus(first, last) if first == last => write!(f, "{first}")?,
                What::Cpus(first, last) => write!(f, "{first}-{last}")?,
                What::Nodes(first, last) if first == last => write!(f, "node:{first}")?,
                What::Nodes(first, last) => write!(f, "nodes:{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eight CPUs, four on each of two nodes; CPU 6 is missing.
    const HOST: [Option<u32>; 8] = [Some(0), Some(0), Some(0), Some(0), Some(1), Some(1), None, Some(1)];

    #[test]
    fn the_manuals_examples() {
        let resolve = |text: &str| CpuSet::parse(text).map(|set| set.resolve(&HOST));
        assert_eq!(resolve("0-3,5,^1"), Ok(vec![0, 2, 3, 5]));
        assert_eq!(resolve("all,^7"), Ok(vec![0, 1, 2, 3, 4, 5, 6]));
        assert_eq!(resolve("1,node:1,^5"), Ok(vec![1, 4, 7]));
        assert_eq!(resolve("nodes:0-1,^node:1"), Ok(vec![0, 1, 2, 3]));
        assert_eq!(resolve("6,100"), Ok(vec![6]));
    }

    #[test]
    fn mistakes_are_named() {
        for bad in ["", "^all", "3-1", "a", "1-", "-1", "+1", "node:", "99999", " 1"] {
            assert!(CpuSet::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn prints_what_was_read() {
        for text in ["all,^7", "0-3,5,^1", "nodes:0-1,^node:1"] {
            assert_eq!(CpuSet::parse(text).map(|set| set.to_string()), Ok(text.to_string()));
        }
    }
}
