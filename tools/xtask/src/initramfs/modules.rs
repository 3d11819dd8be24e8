//! Kernel modules for the images: which files, and in which order to load them.
//!
//! Debian makes modules.dep when a kernel is installed; we only unpack the package, so the order comes from each module's
//! own `.modinfo` section ("depends="). Modules of the 6.1 kernel are plain ELF, those of later ones are `.ko.xz`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSection};

use super::tree::Tree;

/// Bytes of the largest module that is unpacked.
const LARGEST_MODULE: usize = 64 << 20;

/// A module ready to be put into an image.
#[derive(Debug)]
pub(crate) struct Module {
    /// Name with underscores, as the kernel shows it.
    pub(crate) name: String,
    /// The uncompressed ELF file.
    pub(crate) contents: Vec<u8>,
}

/// The modules of one kernel.
#[derive(Debug)]
pub(crate) struct ModuleDir {
    dir: PathBuf,
    files: BTreeMap<String, PathBuf>,
    builtin: Vec<String>,
}

/// The kernel shows dashes in file names as underscores.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// The module's name if the file name is that of a module.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let stem = file.strip_suffix(".ko").or_else(|| file.strip_suffix(".ko.xz"))?;
    Some(canonical(stem))
}

impl ModuleDir {
    /// Reads the names of all modules below `lib/modules/VERSION`.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        let mut pending = vec![dir.join("kernel")];
        while let Some(current) = pending.pop() {
            let entries = std::fs::read_dir(&current)
                .with_context(|| format!("cannot read the modules in {}", current.display()))?;
            for entry in entries {
                let path = entry?.path();
                if path.is_dir() {
                    pending.push(path);
                } else if let Some(name) = module_name(&path) {
                    files.insert(name, path);
                }
            }
        }
        let builtin = std::fs::read_to_string(dir.join("modules.builtin"))
            .unwrap_or_default()
            .lines()
            .filter_map(|line| module_name(Path::new(line)))
            .collect();
        Ok(Self { dir: dir.to_path_buf(), files, builtin })
    }

    /// The named modules and what they depend on, dependencies first, each once. Names that are built into the kernel
    /// are left out.
    ///
    /// # Errors
    /// A module exists neither as a file nor in the kernel; the message names it.
    pub(crate) fn closure(&self, names: &[&str]) -> Result<Vec<Module>> {
        let mut ordered = Vec::new();
        for name in names {
            self.visit(&canonical(name), &mut ordered, &mut Vec::new())?;
        }
        Ok(ordered)
    }

    fn visit(&self, name: &str, ordered: &mut Vec<Module>, path: &mut Vec<String>) -> Result<()> {
        if ordered.iter().any(|module| module.name == name) || self.builtin.iter().any(|builtin| builtin == name) {
            return Ok(());
        }
        if path.iter().any(|outer| outer == name) {
            bail!("kernel modules depend on each other in a circle: {}", path.join(", "));
        }
        let file = self
            .files
            .get(name)
            .with_context(|| format!("the kernel has no module {name} in {}", self.dir.display()))?;
        let contents = read_module(file)?;
        path.push(name.to_owned());
        for dependency in depends(&contents).with_context(|| format!("{}", file.display()))? {
            self.visit(&dependency, ordered, path)?;
        }
        path.pop();
        ordered.push(Module { name: name.to_owned(), contents });
        Ok(())
    }
}

/// The modules below /oxen/modules, and in the file `list` there the order in which to load them.
pub(crate) fn install(tree: &mut Tree, dir: Option<&Path>, list: &str, names: &[&str]) -> Result<()> {
    let mut order = String::new();
    if let Some(dir) = dir {
        for module in ModuleDir::open(dir)?.closure(names)? {
            order.push_str(&module.name);
            order.push('\n');
            tree.file(&format!("oxen/modules/{}.ko", module.name), 0o644, module.contents);
        }
    }
    tree.file(&format!("oxen/modules/{list}"), 0o644, order.into_bytes());
    Ok(())
}

/// A module file's ELF contents.
fn read_module(path: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    if path.extension().is_none_or(|ending| ending != "xz") {
        return Ok(bytes);
    }
    image::decompress::decompress_file(&bytes, LARGEST_MODULE)
        .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
}

/// The names after "depends=" in the module's `.modinfo` section.
fn depends(elf: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(elf).context("not an ELF file")?;
    let section = file.section_by_name(".modinfo").context("no .modinfo section: not a kernel module")?;
    let data = section.data().context("the .modinfo section is damaged")?;
    Ok(parse_depends(data))
}

fn parse_depends(modinfo: &[u8]) -> Vec<String> {
    modinfo
        .split(|byte| *byte == 0)
        .filter_map(|line| std::str::from_utf8(line).ok()?.strip_prefix("depends="))
        .flat_map(|list| list.split(','))
        .filter(|name| !name.is_empty())
        .map(canonical)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modinfo_lists_dependencies() {
        let info = b"license=GPL\0depends=xen-privcmd,loop\0retpoline=Y\0";
        assert_eq!(parse_depends(info), ["xen_privcmd", "loop"]);
        assert_eq!(parse_depends(b"depends=\0name=loop\0"), Vec::<String>::new());
    }

    #[test]
    fn file_names_of_modules() {
        assert_eq!(module_name(Path::new("a/xen-evtchn.ko")).unwrap(), "xen_evtchn");
        assert_eq!(module_name(Path::new("a/tun.ko.xz")).unwrap(), "tun");
        assert_eq!(module_name(Path::new("modules.order")), None);
    }

    #[test]
    fn a_module_that_is_nowhere_is_named_and_a_builtin_one_is_skipped() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("kernel")).unwrap();
        std::fs::write(dir.path().join("modules.builtin"), "kernel/fs/xenfs/xenfs.ko\n").unwrap();
        let modules = ModuleDir::open(dir.path()).unwrap();
        assert!(modules.closure(&["xenfs"]).unwrap().is_empty());
        let error = format!("{:#}", modules.closure(&["xen-gone"]).unwrap_err());
        assert!(error.contains("xen_gone"), "{error}");
    }
}
