//! Tables for programs.
//!
//! `revision` is Oxen's; `tables` an array of tables, each with `emulator`, `scene` and `rows`; a row has `key`, `title`,
//! `unit`, `oxen` and `xen` (`{"minimum": …, "median": …}`, `"failed"`, or null for what was not measured; costs are without
//! those of the row `nothing`), `ratio` of the medians, and `goal` (`{"limit": …, "met": …}` or null).

use serde_json::{Value, json};

use super::parse::Reading;
use super::plan::Scene;
use super::rows::Unit;
use super::table::{Line, Table};
use crate::harness::request::Emulator;

/// All tables, measured on this revision of Oxen.
pub(crate) fn value(revision: &str, tables: &[Table]) -> Value {
    let tables: Vec<Value> = tables.iter().map(one).collect();
    json!({ "revision": revision, "tables": tables })
}

fn one(table: &Table) -> Value {
    let emulator = match table.emulator {
        Emulator::Qemu => "qemu",
        Emulator::Bochs => "bochs",
    };
    let scene = match table.scene {
        Scene::Control => "control",
        Scene::Guest => "guest",
        Scene::Memory => "memory",
        Scene::Toolstack => "toolstack",
    };
    let rows: Vec<Value> = table.lines.iter().map(row).collect();
    json!({ "emulator": emulator, "scene": scene, "rows": rows })
}

fn row(line: &Line) -> Value {
    let reading = |reading: Option<Reading>| match reading {
        Some(Reading::Value { minimum, median }) => json!({ "minimum": minimum, "median": median }),
        Some(Reading::Failed) => json!("failed"),
        None => Value::Null,
    };
    let unit = match line.row.unit {
        Unit::Instructions => "instructions",
        Unit::Pages => "pages",
        Unit::Bytes => "bytes",
        Unit::Count => "count",
    };
    json!({
        "key": line.row.key,
        "title": line.row.title,
        "unit": unit,
        "oxen": reading(line.oxen),
        "xen": reading(line.xen),
        "ratio": line.ratio,
        "goal": line.goal.map(|goal| json!({ "limit": goal.limit, "met": goal.met })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::parse::readings;
    use crate::bench::plan::Machine;
    use crate::bench::table::tables;
    use crate::harness::request::Hypervisor;

    #[test]
    fn rows_keep_their_numbers() {
        let machine = Machine { emulator: Emulator::Bochs, scene: Scene::Guest, hypervisor: Hypervisor::Oxen };
        let found = readings("BENCH cpuid 100 200\nBENCH rdmsr failed\n");
        let json = value("git:1", &tables(&[(machine, found)]));
        assert_eq!(
            json,
            json!({ "revision": "git:1", "tables": [{ "emulator": "bochs", "scene": "guest", "rows": [
                { "key": "cpuid", "title": "CPUID exit", "unit": "instructions",
                  "oxen": { "minimum": 100, "median": 200 }, "xen": null, "ratio": null,
                  "goal": { "limit": 250, "met": true } },
                { "key": "rdmsr", "title": "RDMSR exit", "unit": "instructions",
                  "oxen": "failed", "xen": null, "ratio": null, "goal": null },
            ]}]})
        );
    }
}
